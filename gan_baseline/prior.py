"""Stage zero: training of StyleGAN2, the prior that initialises GFP-GAN's decoder (Karras et al., arXiv 1912.04958).

It uses the logistic losses with lazy R1 and style mixing, without StyleGAN2's path length regularisation.
"""

import copy
import re
from collections.abc import Iterator, Mapping
from math import sqrt
from pathlib import Path

import torch
from accelerate import Accelerator
from einops import rearrange
from jaxtyping import Float, Int64
from safetensors.torch import save_file
from torch import Tensor, nn

from gan_baseline.adversary import Adam, FaceAdversary
from gan_baseline.equalised import SLOW, factors, fold, is_equalised
from gan_baseline.stylegan2 import StyleGAN2Generator, ToRGB, noise_maps, noise_size
from idm.data.pairs import Batch
from idm.diffusion.noise import normals, uniforms
from idm.io.machine import on_device
from idm.io.ranges import from_uint8, to_diffusion
from idm.io.run_folder import damage, list_checkpoints
from idm.io.weights import WeightsError, fill, read_weights
from idm.models.critics import DownBlock, StyleGAN2Discriminator
from idm.training.ema import EMA

PRIOR = "prior.safetensors"
BUNDLED = Path(__file__).parent / "pretrained" / PRIOR
CRITIC = "model.safetensors"  # accelerate's name for the network that is prepared first


class MixingPrior(nn.Module):
    """StyleGAN2 with style mixing: the first ``crossover`` style codes come from one z, the others from another."""

    def __init__(self, generator: StyleGAN2Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(
        self,
        z: Float[Tensor, "2 b d"],
        crossover: Int64[Tensor, " b"],
        noise: list[Float[Tensor, "b 1 _ _"]],
    ) -> Float[Tensor, "b 3 s s"]:
        first, second = (self.generator.codes_of(each) for each in z)
        layer = torch.arange(self.generator.num_codes, device=z.device)
        codes = torch.where((layer < crossover[:, None])[..., None], first, second)
        return self.generator(codes, noise)


class PriorIteration:
    """Trains the prior; a :class:`~idm.training.protocol.Trainable`.

    Args:
        mixing: share of images whose codes come from two z, in [0, 1].
        seed: seed of z, crossover and noise maps, which depend on it and on the position of a sample in the run.
        equalised: train with equalised learning rates, see :mod:`gan_baseline.equalised`. If False, only the network
            from z to w learns at a lower rate.
    """

    def __init__(
        self,
        generator: StyleGAN2Generator,
        accelerator: Accelerator,
        *,
        adversary: FaceAdversary,
        adam: Adam,
        ema_decay: float,
        mixing: float,
        seed: int,
        equalised: bool = False,
    ) -> None:
        self.accelerator, self.adversary, self.adam = accelerator, adversary, adam
        self.mixing, self.seed = mixing, seed
        self.dimension = generator.style_conv1.modulated_conv.modulation.in_features
        self.published = copy.deepcopy(generator).to(accelerator.device).requires_grad_(False)
        prior = MixingPrior(generator)
        slow = {f"generator.style_mlp.{name}": SLOW for name, _ in generator.style_mlp.named_parameters()}
        self.model, self.optimizer = accelerator.prepare(
            prior, adam.optimizer(prior, factors(prior) if equalised else slow)
        )
        self.ema = EMA(self._parameters(), ema_decay)
        self.skipped = torch.zeros((), device=accelerator.device)

    def train_step(self, step: int, batches: Iterator[Batch]) -> dict[str, Tensor]:
        """Update generator and discriminator once and return the mean losses over the micro-batches."""
        for player in (self, self.adversary):
            player.adam.schedule(player.optimizer, step)
        rows = []
        for _ in range(self.accelerator.gradient_accumulation_steps):
            batch = next(batches)
            real = to_diffusion(from_uint8(batch.hq.to(self.accelerator.device, non_blocking=True)))
            with self.accelerator.accumulate(self.model, self.adversary.model):
                fake = self.model(*self.draw(batch.positions))
                loss = self.adversary.generator_loss(fake, real)
                self.accelerator.backward(loss)
                own, accuracies = self.adversary.own_losses(step, real, fake.detach())
                self.accelerator.backward(torch.stack(list(own.values())).sum())
                norms = [
                    player.adam.step(self.accelerator, player.model, player.optimizer)
                    for player in (self, self.adversary)
                ]
            rows.append({"loss": loss.detach()} | {name: value.detach() for name, value in (own | accuracies).items()})
        updated = torch.stack([torch.isfinite(norm) for norm in norms if norm is not None])
        self.ema.update(self._parameters(), step, updated[0])
        self.skipped = (~updated.all()).float()
        return {name: torch.stack([row[name] for row in rows]).mean() for name in rows[0]}

    def tensors(self) -> list[Tensor]:
        """Return the weights of both networks and the generator's averages."""
        return [*self._parameters(), *self.adversary.model.parameters(), *self.ema.shadow_params]

    def draw(self, positions: list[int]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Draw z (2, b, d), crossover (b,) and the noise maps, which depend on (seed, position) only.

        A crossover of ``num_codes`` means that an image is not mixed.
        """
        device, size, num_codes = self.accelerator.device, self.published.image_size, self.published.num_codes
        at, d = torch.tensor(positions), self.dimension
        numbers = normals(self.seed, on_device(at, device), (2 * d + noise_size(size),))
        mixed, layer, *_ = uniforms(self.seed, at)
        crossover = torch.where(mixed < self.mixing, 1 + (layer * (num_codes - 1)).long(), num_codes)
        z = rearrange(numbers[:, : 2 * d], "b (two d) -> two b d", two=2)
        return z, on_device(crossover, device), noise_maps(numbers[:, 2 * d :], size)

    def save(self, folder: Path) -> None:
        """Write the state of all processes, and on the main one the generator."""
        self.accelerator.save_state(str(folder), safe_serialization=True)
        self.ema.publish(self.published.parameters())
        if self.accelerator.is_main_process:
            save_file(self.published.state_dict(), folder / PRIOR)

    def load(self, folder: Path) -> None:
        """Restore what :meth:`save` wrote."""
        self.accelerator.load_state(str(folder))
        load_prior(self.published, folder / PRIOR)
        self.ema.restore(self.published.parameters())

    def _parameters(self) -> list[torch.nn.Parameter]:
        return list(self.accelerator.unwrap_model(self.model).parameters())


def load_prior(decoder: StyleGAN2Generator, path: Path) -> None:
    """Load the weights of a prior into a generator.

    Args:
        path: a weights file, which may be the authors' own, or the folder of a stage zero, whose newest checkpoint is
            used. A prior of larger images gives its first levels.

    Raises:
        FileNotFoundError: there is no such file, or the folder has no checkpoint.
        WeightsError: the file is damaged, or its weights are those of another network.
    """
    file = _find(path, PRIOR)
    weights = read_weights(file)
    if is_equalised(weights):
        if not decoder.smooth:
            raise WeightsError(f"{file}: is a prior that resamples smoothly; set generator.smooth to true")
        weights = fold(weights)
    fill(decoder, _first_levels(weights, decoder), file)


def grow(generator: StyleGAN2Generator, discriminator: StyleGAN2Discriminator, path: Path) -> None:
    """Start two networks from those of a stage zero with half the size (progressive growing, arXiv 1710.10196).

    The generator begins as the smaller one and bilinear upsampling: the RGB head of its new level becomes zero. The
    discriminator begins as a halving and the smaller one, see :func:`_begin_with_halving`.

    Args:
        path: the folder of the stage zero, whose newest checkpoint is used.

    Raises:
        FileNotFoundError: the folder has no checkpoint.
        WeightsError: the checkpoint is damaged, or its networks have other widths or another size.
    """
    file, levels = _find(path, PRIOR), len(generator.to_rgbs)
    weights = read_weights(file)
    if sum(name.endswith(".bias") for name in weights if re.match(r"to_rgbs\.\d+\.bias", name)) != levels - 1:
        raise WeightsError(f"{file}: is not a prior of faces of {generator.image_size // 2} px")
    fill(generator, {**generator.state_dict(), **weights}, file)
    head = generator.to_rgbs[-1]
    assert isinstance(head, ToRGB)
    nn.init.zeros_(head.modulated_conv.weight)

    file = _find(path, CRITIC)
    weights = read_weights(file)
    later = {
        re.sub(r"^blocks\.(\d+)", lambda found: f"blocks.{int(found[1]) + 1}", name): weight
        for name, weight in weights.items()
        if not name.startswith("first.")
    }
    fill(discriminator, {**discriminator.state_dict(), **later}, file)
    _begin_with_halving(discriminator, weights["first.weight"], weights["first.bias"])


@torch.no_grad()
def _begin_with_halving(
    discriminator: StyleGAN2Discriminator, weight: Float[Tensor, "c 3 1 1"], bias: Float[Tensor, " c"]
) -> None:
    """Let the first layers of a discriminator halve an image and apply the first layer of a smaller discriminator.

    Three channels carry the colours, raised so far that the leaky ReLUs leave them as they are; the others begin as
    before, and the block does not use them yet. The result is exact where the image has one colour, except near the
    border. With random first layers the discriminator was at chance for 300 steps.

    Args:
        weight, bias: the first layer of the smaller discriminator.
    """
    first, block, raised = discriminator.first, discriminator.blocks[0], 1.5
    assert isinstance(block, DownBlock)
    channels = first.weight.shape[0]
    assert first.bias is not None
    assert block.conv1.bias is not None
    assert block.conv2.bias is not None
    first.weight[:3] = sqrt(3) * torch.eye(3)[..., None, None]
    first.bias[:3] = raised
    block.conv1.weight[:3] = 0
    block.conv1.weight[range(3), range(3), 1, 1] = 3 * sqrt(channels / 2)
    block.conv1.bias[:3] = 0
    block.conv2.weight.zero_()
    block.conv2.weight[:, :3, 1, 1] = sqrt(3 * channels) * weight[..., 0, 0]
    block.conv2.bias.copy_(sqrt(2) * bias - sqrt(2 / 3) * raised * weight.sum(dim=(1, 2, 3)))
    block.skip.weight.zero_()


def _find(path: Path, name: str) -> Path:
    """Return a file of the newest checkpoint of a stage zero, or the file that ``path`` itself is."""
    checkpoints = list_checkpoints(path / "checkpoints") if path.is_dir() else []
    file = checkpoints[-1] / name if checkpoints else path
    if not file.is_file():
        raise FileNotFoundError(f"{path}: is neither a weights file nor a stage zero with a checkpoint")
    if fault := damage(file.parent, file.name):
        raise WeightsError(f"{file}: is damaged: {fault}")
    return file


def _first_levels(weights: Mapping[str, Tensor], decoder: StyleGAN2Generator) -> dict[str, Tensor]:
    """Leave out the levels that are too large for a decoder."""
    convolutions = len(decoder.style_convs)
    lengths = {"style_convs": convolutions, "to_rgbs": len(decoder.to_rgbs), "noises": convolutions + 1}

    def fits(name: str) -> bool:
        found = re.match(r"(style_convs|to_rgbs|noises)\.(?:noise)?(\d+)", name)
        return found is None or int(found[2]) < lengths[found[1]]

    return {name: weight for name, weight in weights.items() if fits(name)}
