"""Losses of a generator and its critic: logistic and hinge losses, R1, and augmentation of the critic's images.

Images are in [-1, 1], logits high for real.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from idm.io.machine import on_device

PerFace = Float[Tensor, " b *rest"]
Known = Float[Tensor, " b"]
"""1 for a face that counts, 0 for one that contributes nothing (its landmarks are unknown)."""
Images = Float[Tensor, "b c h w"]


def generator_logistic(fake: PerFace, known: Known | None = None) -> Float[Tensor, ""]:
    """Non-saturating logistic loss of the generator: E softplus(-D(fake))."""
    return mean_over_faces(F.softplus(-fake), known)


def discriminator_logistic(real: PerFace, fake: PerFace, known: Known | None = None) -> Float[Tensor, ""]:
    """Logistic loss of a discriminator: E softplus(-D(real)) + E softplus(D(fake))."""
    return mean_over_faces(F.softplus(-real), known) + mean_over_faces(F.softplus(fake), known)


def relativistic_logistic(better: PerFace, worse: PerFace, known: Known | None = None) -> Float[Tensor, ""]:
    """Logistic loss of pairs: E softplus(D(worse) - D(better)) (Jolicoeur-Martineau, arXiv 1807.00734, RpGAN).

    With (real, fake) it is the loss of a discriminator, with (fake, real) that of the generator. What the two faces of
    a pair have in common does not matter to it, nor does a constant that is added to all logits.
    """
    return mean_over_faces(F.softplus(worse - better), known)


def hinge_generator(fake: PerFace) -> Float[Tensor, ""]:
    """Loss of the generator against a hinge critic: -E D(fake) (Miyato et al., arXiv 1802.05957, eq. 17)."""
    return -fake.mean()


def hinge_critic(real: PerFace, fake: PerFace) -> Float[Tensor, ""]:
    """E max(0, 1 - D(real)) + E max(0, 1 + D(fake)) (Miyato et al., arXiv 1802.05957, eq. 16, negated)."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def r1(discriminator: Callable[[Tensor], Tensor], real: Float[Tensor, "b 3 s s"]) -> Float[Tensor, ""]:
    """E |grad D(real)|^2, to be differentiated again (Mescheder et al., arXiv 1801.04406, eq. 9, without gamma / 2)."""
    real = real.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def mean_over_faces(values: PerFace, known: Known | None) -> Float[Tensor, ""]:
    """Mean over all faces of the batch, where unknown ones count as zero, so that a batch may be split over
    processes."""
    per_face = values.reshape(len(values), -1).mean(dim=1)
    return (per_face if known is None else known * per_face).mean()


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """A context in which gradients flow through the network but not to its weights."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


# ------------------------------------------------------------------------------------------- augmentation


def diff_augment(images: Images, generator: torch.Generator) -> Images:
    """DiffAugment (Zhao et al., arXiv 2006.10738): random colour, translation and cutout of each image.

    The critic sees real and generated images through it, in the losses of both players, so that it cannot memorise a
    small training set. It is differentiable in the images, also twice, as R1 needs.

    Args:
        images: in [-1, 1]; the results may leave that range.
        generator: of all random numbers; they are drawn on its device.
    """
    return cutout(translate(change_colour(images, generator), generator), generator)


def change_colour(images: Images, generator: torch.Generator) -> Images:
    """Shift brightness by up to 0.5, then scale saturation by 0 to 2, then contrast by 0.5 to 1.5."""
    brightness, saturation, contrast = _uniform(images, generator).unbind(dim=1)
    images = images + (brightness - 0.5)
    images = torch.lerp(images.mean(dim=1, keepdim=True), images, 2 * saturation)
    return torch.lerp(images.mean(dim=(1, 2, 3), keepdim=True), images, contrast + 0.5)


def translate(images: Images, generator: torch.Generator, share: float = 1 / 8) -> Images:
    """Move each image by whole pixels, up to ``share`` of its side each way; zeros come in."""
    height, width = images.shape[-2:]
    most = round(share * height), round(share * width)
    padded = F.pad(images, (most[1], most[1], most[0], most[0]))
    corners = [_integers(len(images), 2 * reach + 1, generator) for reach in most]
    return torch.stack([image[:, y : y + height, x : x + width] for image, y, x in zip(padded, *corners, strict=True)])


def cutout(images: Images, generator: torch.Generator, share: float = 1 / 2) -> Images:
    """Set a square of ``share`` of each image's side to zero; its centre is anywhere in the image."""
    kept = []
    for length in images.shape[-2:]:
        side = round(share * length)
        first = torch.tensor(_integers(len(images), length + 1, generator)) - side // 2
        places = torch.arange(length)
        kept.append((places < first[:, None]) | (places >= first[:, None] + side))
    rows, columns = kept
    return images * on_device(rows[:, None, :, None] | columns[:, None, None, :], images.device)


def _uniform(images: Images, generator: torch.Generator) -> Float[Tensor, "b 3 1 1 1"]:
    drawn = torch.rand(len(images), 3, 1, 1, 1, generator=generator, device=generator.device)
    return on_device(drawn, images.device).to(images.dtype)


def _integers(number: int, end: int, generator: torch.Generator) -> list[int]:
    """``number`` of 0 .. end - 1."""
    return torch.randint(end, (number,), generator=generator, device=generator.device).tolist()
