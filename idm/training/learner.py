"""The intrinsic iteration: one whole training of f_theta on degraded samples of the data."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Bool, Float, UInt8
from safetensors.torch import load_file
from torch import Tensor

from idm.data.pairs import Batch
from idm.diffusion.noise import normals, uniforms
from idm.diffusion.objective import own_estimates, training_loss
from idm.diffusion.process import Prediction
from idm.diffusion.schedule import piecewise_uniform, start_and_log_uniform
from idm.diffusion.ssim import ssim
from idm.faces.features import FeatureMaps, feature_l1
from idm.io.machine import inference_dtype, on_device
from idm.io.ranges import to_diffusion
from idm.models.denoiser import Denoiser
from idm.models.lora import merged_weights
from idm.restorers.idm import IDM
from idm.restorers.saved import save_idm
from idm.training.adversarial import Adversary
from idm.training.ema import EMA
from idm.training.updates import optimizer_step


@dataclass(frozen=True)
class Optimisation:
    """Settings of the optimiser; the fields are those of the ``train`` section."""

    num_steps: int
    learning_rate: float
    warmup_steps: int
    decay: Literal["constant", "cosine"]
    betas: tuple[float, float]
    weight_decay: float
    max_grad_norm: float
    ema_decay: float

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, then constant or a half cosine to zero at ``num_steps``."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.decay == "constant":
            return self.learning_rate
        progress = (step - self.warmup_steps) / max(1, self.num_steps - self.warmup_steps)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


@dataclass(frozen=True)
class NoiseLevels:
    """The distribution of gamma in training.

    Attributes:
        start_share: see :func:`~idm.diffusion.schedule.start_and_log_uniform`; None is SR3's piecewise uniform.
        own_estimates: share of the samples below the start whose x_t is made of the model's own estimate of x_0.
        end_to_end: whether gradients flow through these estimates.
    """

    start_share: float | None = None
    own_estimates: float = 0.0
    end_to_end: bool = False

    def draw(self, gammas: Float[Tensor, " T1"], u: Float[Tensor, "3 b"]) -> Float[Tensor, " b"]:
        """gamma of each sample, from uniforms."""
        if self.start_share is None:
            return piecewise_uniform(gammas, u[0], u[1])
        return start_and_log_uniform(gammas, self.start_share, u[0], u[1])


Judged = list[tuple[Float[Tensor, "b 3 s s"], Float[Tensor, "b 3 s s"]]]
"""The critic's training data: for each micro-batch, faces and estimates of them in [-1, 1]; both may be empty."""


class IntrinsicIteration:
    """Trains a denoiser; a :class:`~idm.training.protocol.Learner`.

    Args:
        denoiser: may have adapters (:mod:`idm.models.lora`); only parameters that require gradients are trained.
        gammas: the noise schedule, see :mod:`idm.diffusion.schedule`.
        seed: determines, with a sample's position, its noise level and noise.
        clean_weight: of the pixel loss of faces that are not degraded; that of the others is 1.
        ssim_weight: of 1 - SSIM of the estimate of x_0.
        features: frozen network of a feature loss of weight ``feature_weight``; None for a loss of pixels only.
        adversary: a critic that is trained beside the denoiser.
        make_pipeline: builds the publishable model around a denoiser.
    """

    model_name = "pipeline"

    def __init__(
        self,
        denoiser: Denoiser,
        accelerator: Accelerator,
        *,
        gammas: Float[Tensor, " T1"],
        prediction: Prediction,
        p: int,
        min_snr_clamp: float | None,
        optimisation: Optimisation,
        seed: int,
        make_pipeline: Callable[[Denoiser], IDM],
        noise_levels: NoiseLevels = NoiseLevels(),
        clean_weight: float = 1.0,
        ssim_weight: float = 0.0,
        features: FeatureMaps | None = None,
        feature_weight: float = 0.0,
        adversary: Adversary | None = None,
    ) -> None:
        self.accelerator, self.optimisation, self.seed = accelerator, optimisation, seed
        self.noise_levels, self.clean_weight, self.ssim_weight = noise_levels, clean_weight, ssim_weight
        self.features, self.feature_weight = features, feature_weight
        self.gammas, self.prediction, self.p, self.min_snr_clamp = gammas, prediction, p, min_snr_clamp
        optimizer = torch.optim.AdamW(
            [weight for weight in denoiser.parameters() if weight.requires_grad],
            lr=optimisation.learning_rate,
            betas=optimisation.betas,
            weight_decay=optimisation.weight_decay,
            fused=True,
        )
        self.model, self.optimizer = accelerator.prepare(denoiser, optimizer)
        self.adversary = adversary
        if adversary is not None:
            adversary.prepare(accelerator)
        published = denoiser.config.build().to(accelerator.device)
        self.pipeline = make_pipeline(published.requires_grad_(False))
        self.ema = EMA(self._parameters(), optimisation.ema_decay)
        self.skipped = torch.zeros((), device=accelerator.device)

    def train_step(self, step: int, batches: Iterator[Batch]) -> dict[str, Tensor]:
        """One update of f_theta, and of its critic if there is one: see
        :meth:`idm.training.protocol.Trainable.train_step`."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.optimisation.learning_rate_at(step)
        losses: list[Tensor] = []
        levels: list[dict[str, Tensor]] = []
        critic: dict[str, Tensor] = {}
        for _ in range(self.accelerator.gradient_accumulation_steps):
            batch = next(batches)
            judged: Judged = []
            with self.accelerator.accumulate(self.model):
                loss = self.loss(batch, levels, judged)
                self.accelerator.backward(loss)
                grad_norm = optimizer_step(
                    self.accelerator, self.model, self.optimizer, self.optimisation.max_grad_norm
                )
                if self.adversary is not None:
                    critic = self.adversary.train_step(step, *judged.pop(), self._augmentation(batch, "critic"))
            losses.append(loss.detach())
        assert grad_norm is not None
        updated = torch.isfinite(grad_norm)
        self.ema.update(self._parameters(), step, updated)
        by_level = {name: torch.stack([each[name] for each in levels]).sum(dim=0) for name in levels[0]}
        skipped = (~updated).float()
        self.skipped = skipped if self.adversary is None else torch.maximum(skipped, self.adversary.skipped)
        return {"loss": torch.stack(losses).mean(), "grad_norm": grad_norm, **by_level, **critic}

    def loss(
        self, batch: Batch, levels: list[dict[str, Tensor]] | None = None, judged: Judged | None = None
    ) -> Float[Tensor, ""]:
        """The objective on one micro-batch, its randomness a function of (seed, positions).

        Only the networks that accelerate has prepared, the denoiser and the critic, compute in mixed precision. They
        return float32, and everything else is float32.

        Args:
            levels: receives the result of :func:`by_noise_level`.
            judged: receives the critic's training data.
        """
        x_0, x_d = self._to_diffusion(batch.hq), self._to_diffusion(batch.lq)
        eps, u = training_noise(self.seed, batch.positions, x_0)
        gamma = self.noise_levels.draw(self.gammas, u)
        level = on_device(gamma, x_0.device)
        torch.manual_seed(seed_of(self.seed, batch.positions[0]))  # dropout takes no generator
        noised = None
        if self.noise_levels.own_estimates:
            chosen = (u[2] < self.noise_levels.own_estimates) & (gamma > self.gammas[-1])
            noised = own_estimates(
                self.model,
                x_0=x_0,
                x_d=x_d,
                eps=eps,
                gamma_start=self.gammas[-1],
                chosen=chosen,
                end_to_end=self.noise_levels.end_to_end,
            )
        return training_loss(
            self.model,
            x_0=x_0,
            x_d=x_d,
            eps=eps,
            gamma=level,
            prediction=self.prediction,
            p=self.p,
            min_snr_clamp=self.min_snr_clamp,
            weights=on_device(torch.where(degraded(batch), 1.0, self.clean_weight), x_0.device),
            noised=noised,
            estimate_loss=self._estimate_loss(x_0, gamma, batch, judged),
            report=None if levels is None else lambda losses: levels.append(by_noise_level(losses, level)),
        )

    def _estimate_loss(
        self, x_0: Tensor, gamma: Tensor, batch: Batch, judged: Judged | None
    ) -> Callable[[Tensor], Float[Tensor, ""]] | None:
        """The losses of an estimate of x_0 beyond its pixels: SSIM and features, in float32, and the critic's.

        The critic judges estimates of degraded faces below the chain's start only. At the start, where x_t is noise,
        the estimate stays the mean of the faces that x_d may show; a chain then moves from the mean to a likely face.
        A face that is not degraded shows nothing but itself.
        """
        ssim_weight, features, adversary = self.ssim_weight, self.features, self.adversary
        if not ssim_weight and features is None and adversary is None:
            return None
        judgeable = ((gamma > self.gammas[-1]) & degraded(batch)).nonzero()[:, 0]
        refined = on_device(judgeable, x_0.device)

        def loss(estimate: Float[Tensor, "b 3 s s"]) -> Float[Tensor, ""]:
            total = estimate.new_zeros(())
            if ssim_weight:
                total = total + ssim_weight * (1 - ssim(estimate, x_0)).mean()
            if features is not None:
                with torch.no_grad():
                    wanted = features(x_0, batch.landmarks)
                found = features(estimate, batch.landmarks)
                total = total + self.feature_weight * feature_l1(found, wanted, features.layer_weights)
            if adversary is not None and judged is not None:
                judged.append((x_0[refined], estimate[refined].detach()))
            if adversary is not None and len(judgeable):
                adversarial = adversary.generator_loss(estimate[refined], self._augmentation(batch, "denoiser"))
                total = total + (loss_of(adversarial, self._refinement()) if adversary.only_refinement else adversarial)
            return total

        return loss

    def _refinement(self) -> list[Tensor]:
        """The trained weights behind the patches."""
        refine = self.accelerator.unwrap_model(self.model).refine
        return [weight for weight in refine.parameters() if weight.requires_grad]

    def _to_diffusion(self, images: UInt8[Tensor, "b 3 s s"]) -> Float[Tensor, "b 3 s s"]:
        return to_diffusion(images.to(self.accelerator.device, non_blocking=True).float() / 255)  # of pinned memory

    def _augmentation(self, batch: Batch, role: Literal["critic", "denoiser"]) -> torch.Generator:
        """The generator of the critic's augmentation, from (seed, position) alone."""
        return torch.Generator().manual_seed(seed_of(self.seed, batch.positions[0]) + (role == "critic"))

    def restorer(self) -> IDM:
        """The model with the averaged weights, in the precision of inference."""
        self._publish()
        self.pipeline.denoiser.type(inference_dtype(self.accelerator.device))
        return self.pipeline

    def tensors(self) -> list[Tensor]:
        """The weights, their averages, and the weights of the critic."""
        critic = [] if self.adversary is None else list(self.adversary.critic.parameters())
        return [*self._parameters(), *self.ema.shadow_params, *critic]

    def save(self, folder: Path) -> None:
        """Write the state of all processes, and on the main one the pipeline."""
        self.accelerator.save_state(str(folder), safe_serialization=True)
        self._publish()
        if self.accelerator.is_main_process:
            save_idm(self.pipeline, folder / self.model_name)

    def load(self, folder: Path) -> None:
        """Restore what :meth:`save` wrote."""
        self.accelerator.load_state(str(folder))
        weights = load_file(folder / self.model_name / "denoiser" / "diffusion_pytorch_model.safetensors")
        self.pipeline.denoiser.float().load_state_dict(weights)
        self.ema.restore(self.pipeline.denoiser.parameters())

    def _publish(self) -> None:
        """Copy the averaged weights into the publishable pipeline, in float32; on all processes."""
        self.ema.publish(self.pipeline.denoiser.float().parameters())

    def _parameters(self) -> list[Tensor]:
        """The weights as they would be published without an average: adapters are merged."""
        merged = merged_weights(self.accelerator.unwrap_model(self.model))
        return [merged[name] for name in self._names()]

    def _names(self) -> list[str]:
        return [name for name, _ in self.pipeline.denoiser.named_parameters()]


def degraded(batch: Batch) -> Bool[Tensor, " b"]:
    """Mask of the faces that differ from their originals."""
    return (batch.hq != batch.lq).flatten(1).any(dim=1)


def loss_of(loss: Float[Tensor, ""], weights: Sequence[Tensor]) -> Float[Tensor, ""]:
    """``loss`` with gradients to ``weights`` alone; what computed the loss can be differentiated again."""
    gradients = torch.autograd.grad(loss, weights, retain_graph=True)
    linear = torch.stack([(w * g).sum() for w, g in zip(weights, gradients, strict=True)]).sum()
    return loss.detach() + linear - linear.detach()


LEVELS = (0.1, 0.5, 2.0)
"""Limits between the noise levels, as sigma = sqrt((1 - gamma) / gamma), by which the loss is logged."""


def by_noise_level(losses: Float[Tensor, " b"], gamma: Float[Tensor, " b"]) -> dict[str, Float[Tensor, " 2"]]:
    """(sum, count) of the losses of the samples in each range of noise levels."""
    sigma = ((1 - gamma) / gamma).sqrt()
    bins = torch.stack([sigma > level for level in LEVELS]).sum(dim=0)
    member = (bins[:, None] == torch.arange(len(LEVELS) + 1, device=bins.device)).to(losses.device, losses.dtype)
    totals = torch.stack([member.T * losses, member.T], dim=2).sum(dim=1)  # no product of matrices: TF32 rounds it
    limits = [f"{limit:g}" for limit in (0.0, *LEVELS, math.inf)]
    return {f"loss_sigma_{low}_{high}": total for low, high, total in zip(limits, limits[1:], totals, strict=False)}


def training_noise(
    seed: int, positions: Sequence[int], like: Float[Tensor, "b c h w"]
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "3 b"]]:
    """eps ~ N(0, I) on the images' device, and three uniforms for the noise level on the CPU, from (seed, position)
    alone: see :mod:`idm.diffusion.noise`."""
    at = torch.tensor(positions)
    return normals(seed, on_device(at, like.device), like.shape[1:]), uniforms(seed, at)[:3]


def seed_of(seed: int, position: int) -> int:
    """A 63-bit seed for one sample of the run; the first word keeps it apart from the degradations' seeds."""
    words = np.random.SeedSequence([0x6E6F697365, seed, position]).generate_state(1, np.uint64)
    return int(words[0] >> 1)
