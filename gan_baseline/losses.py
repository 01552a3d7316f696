"""What GFP-GAN is trained with, as functions of images, logits and features.

The forms are those of the authors' code (github.com/TencentARC/GFPGAN at 7552a77, ``gfpgan/models/gfpgan_model.py``
and ``options/train_gfpgan_v1.yml``). Images are in [-1, 1]. Weights are not applied here, with two exceptions that
belong to the form: those of feature maps.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

PerFace = Float[Tensor, " b *rest"]
Known = Float[Tensor, " b"]
"""1 for a face that counts, 0 for one that contributes nothing (its landmarks are unknown)."""
Maps = Sequence[Float[Tensor, "b _ _ _"]]

# ------------------------------------------------------------------------------------------ reconstruction


def pyramid_l1(rgbs: Maps, hq: Float[Tensor, "b 3 s s"]) -> Float[Tensor, ""]:
    """L1 between the U-Net's image of every scale and the clean face halved again and again, bilinear; their sum.

    Args:
        rgbs: the U-Net's images, coarsest first; the last has the size of ``hq``.
    """
    loss = hq.new_zeros(())
    for rgb in reversed(rgbs):
        loss = loss + F.l1_loss(rgb, hq)
        hq = F.interpolate(hq, scale_factor=0.5, mode="bilinear", align_corners=False)
    return loss


def pyramid_weight(step: int, weight: float, until: int, after: float) -> float:
    """The weight of the pyramid loss in optimiser step ``step`` (from 0): ``weight`` for the first ``until`` steps."""
    return weight if step < until else after


# --------------------------------------------------------------------------------------------- adversarial


def generator_logistic(fake: PerFace, known: Known | None = None) -> Float[Tensor, ""]:
    """Non-saturating logistic loss of the generator: E softplus(-D(fake))."""
    return _mean(F.softplus(-fake), known)


def discriminator_logistic(real: PerFace, fake: PerFace, known: Known | None = None) -> Float[Tensor, ""]:
    """Logistic loss of a discriminator: E softplus(-D(real)) + E softplus(D(fake))."""
    return _mean(F.softplus(-real), known) + _mean(F.softplus(fake), known)


def r1(discriminator: Callable[[Tensor], Tensor], real: Float[Tensor, "b 3 s s"]) -> Float[Tensor, ""]:
    """E |grad D(real)|^2, to be differentiated again (Mescheder et al., arXiv 1801.04406, eq. 9, without gamma / 2)."""
    real = real.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


# ------------------------------------------------------------------------------------------------ features


def gram(features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c c"]:
    """F F^T / (c h w), in float32."""
    flat = rearrange(features.float(), "b c h w -> b c (h w)")
    return einsum(flat, flat, "b i n, b j n -> b i j") / (flat.shape[1] * flat.shape[2])


def style_l1(ours: Maps, theirs: Maps, weights: Sequence[float], known: Known | None = None) -> Float[Tensor, ""]:
    """Style loss: weighted sum over feature maps of the L1 between their Gram matrices."""
    pairs = zip(weights, ours, theirs, strict=True)
    return torch.stack([weight * _mean((gram(a) - gram(b)).abs(), known) for weight, a, b in pairs]).sum()


def _mean(values: PerFace, known: Known | None) -> Float[Tensor, ""]:
    """Mean over all faces of the batch, where unknown ones count as zero: so a batch may be split over processes."""
    per_face = values.reshape(len(values), -1).mean(dim=1)
    return (per_face if known is None else known * per_face).mean()
