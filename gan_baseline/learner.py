"""The training of GFP-GAN: one optimiser step of generator, discriminator and component discriminators."""

import copy
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor

from gan_baseline import losses
from gan_baseline.adversary import Adam, ComponentAdversary, FaceAdversary, Terms
from gan_baseline.equalised import factors
from gan_baseline.gfpgan import GFPGAN
from gan_baseline.restorer import MODEL, GFPGANRestorer
from gan_baseline.stylegan2 import noise_maps, noise_size
from gan_baseline.weights import load_gfpgan, save_gfpgan
from idm.data.pairs import Batch
from idm.diffusion.noise import normals
from idm.faces.components import Box, known_boxes
from idm.faces.features import Embedding, FeatureMaps, feature_l1
from idm.io.machine import on_device
from idm.io.ranges import from_uint8, to_diffusion
from idm.training.ema import EMA

Images = Float[Tensor, "b 3 s s"]


@dataclass(frozen=True)
class Weights:
    """Weights of the generator's losses, as in the ``losses`` section. A loss with weight 0 is not computed."""

    l1: float
    pyramid: float
    pyramid_until: int
    pyramid_after: float
    perceptual: float
    style: float
    adversarial: float
    identity: float


class AdversarialIteration:
    """Trains a GFP-GAN; a :class:`~idm.training.protocol.Learner`.

    Args:
        adversary, components: the discriminators; None if no loss needs them.
        features, embedding: the networks of the perceptual and style losses and of the identity loss; None if no loss
            needs them.
        fix_decoder: keep the decoder's weights fixed.
        equalised: train the generator with equalised learning rates, see :mod:`gan_baseline.equalised`.
        seed: seed of the generator's noise maps, which depend on it and on the position of a sample in the run.
    """

    model_name = MODEL

    def __init__(
        self,
        generator: GFPGAN,
        accelerator: Accelerator,
        *,
        adversary: FaceAdversary | None,
        components: ComponentAdversary | None,
        features: FeatureMaps | None,
        embedding: Embedding | None,
        weights: Weights,
        adam: Adam,
        ema_decay: float,
        fix_decoder: bool,
        seed: int,
        equalised: bool = False,
    ) -> None:
        self.accelerator, self.weights, self.adam, self.seed = accelerator, weights, adam, seed
        self.adversary, self.components = adversary, components
        self.features, self.embedding = features, embedding
        # Unused parameters must not require a gradient: with several processes, DDP would wait for it.
        generator.stylegan_decoder.requires_grad_(not fix_decoder)
        generator.stylegan_decoder.style_mlp.requires_grad_(False)
        generator.toRGB.requires_grad_(weights.pyramid > 0)
        self.published = copy.deepcopy(generator).to(accelerator.device).eval().requires_grad_(False)
        self.model, self.optimizer = accelerator.prepare(
            generator, adam.optimizer(generator, factors(generator) if equalised else None)
        )
        self.ema = EMA(self._parameters(), ema_decay)
        self.skipped = torch.zeros((), device=accelerator.device)

    # -------------------------------------------------------------------------------------------- one step

    def train_step(self, step: int, batches: Iterator[Batch]) -> Terms:
        """Update all networks once and return the mean losses over the micro-batches.

        All networks learn from the same forward pass of the generator, before any of them is updated.
        """
        players = [player for player in (self, self.adversary, self.components) if player is not None]
        for player in players:
            player.adam.schedule(player.optimizer, step)
        values: dict[str, list[Tensor]] = defaultdict(list)
        for _ in range(self.accelerator.gradient_accumulation_steps):
            with self.accelerator.accumulate(*(player.model for player in players)):
                for name, value in self._micro_batch(step, next(batches)).items():
                    values[name].append(value.detach())
                norms = [player.adam.step(self.accelerator, player.model, player.optimizer) for player in players]
        updated = torch.stack([torch.isfinite(norm) for norm in norms if norm is not None])
        self.ema.update(self._parameters(), step, updated[0])
        self.skipped = (~updated.all()).float()
        return {name: torch.stack(each).mean() for name, each in values.items()}

    def _micro_batch(self, step: int, batch: Batch) -> Terms:
        """Losses and gradients of all networks on one micro-batch."""
        device, landmarks, points = self.accelerator.device, batch.landmarks, batch.points
        hq, x_d = (
            to_diffusion(from_uint8(images.to(device, non_blocking=True)))  # of pinned memory
            for images in (batch.hq, batch.lq)
        )
        restored, rgbs = self.model(x_d, self.noise(batch.positions))
        terms = self.generator_losses(step, restored, rgbs, hq, landmarks, points)
        loss = torch.stack(list(terms.values())).sum()
        self.accelerator.backward(loss)
        restored = restored.detach()
        critics: Terms = {}
        if self.adversary is not None:
            critics |= self._backward(*self.adversary.own_losses(step, hq, restored))
        if self.components is not None:
            found = self._found(landmarks, points, hq)
            critics |= self._backward(*self.components.own_losses(hq, restored, *found))
        return {"loss": loss, **terms, **critics}

    def _backward(self, terms: Terms, accuracies: Terms) -> Terms:
        self.accelerator.backward(torch.stack(list(terms.values())).sum())
        return terms | accuracies

    def generator_losses(
        self,
        step: int,
        restored: Images,
        rgbs: list[Float[Tensor, "b 3 _ _"]],
        hq: Images,
        landmarks: Float[Tensor, "b 5 2"],
        points: Float[Tensor, "b 68 2"] | None = None,
    ) -> Terms:
        """Return the weighted terms of the generator's loss; terms with weight 0 are left out.

        Args:
            step: optimiser step, counted from 0.
            restored, hq: images in [-1, 1].
            rgbs: the U-Net's RGB images, coarsest first.
            landmarks: five points in pixels, on the CPU; NaN in faces without landmarks.
            points: 68 points in pixels, on the CPU, or None.
        """
        w, terms = self.weights, {}
        if w.l1:
            terms["l1"] = w.l1 * F.l1_loss(restored, hq)
        if w.pyramid:
            weight = losses.pyramid_weight(step, w.pyramid, w.pyramid_until, w.pyramid_after)
            terms["pyramid"] = weight * losses.pyramid_l1(rgbs, hq)
        if self.features is not None:
            terms |= self._feature_losses(self.features, restored, hq, landmarks)
        if self.embedding is not None:
            with self.accelerator.autocast():
                ours = self.embedding(restored, landmarks)
                with torch.no_grad():
                    theirs = self.embedding(hq, landmarks)
            terms["identity"] = w.identity * F.l1_loss(ours.float(), theirs.float())
        if self.adversary is not None:
            terms["adversarial"] = w.adversarial * self.adversary.generator_loss(restored, hq)
        if self.components is not None:
            terms |= self.components.generator_losses(restored, hq, *self._found(landmarks, points, hq))
        return terms

    def _feature_losses(
        self, features: FeatureMaps, restored: Images, hq: Images, landmarks: Float[Tensor, "b 5 2"]
    ) -> Terms:
        w, terms = self.weights, {}
        with self.accelerator.autocast():
            ours = features(restored, landmarks)
            with torch.no_grad():
                theirs = features(hq, landmarks)
        if w.perceptual:
            terms["perceptual"] = w.perceptual * feature_l1(ours, theirs, features.layer_weights)
        if w.style:
            terms["style"] = w.style * losses.style_l1(ours, theirs, features.layer_weights)
        return terms

    def _found(
        self, landmarks: Float[Tensor, "b 5 2"], points: Float[Tensor, "b 68 2"] | None, hq: Images
    ) -> tuple[Float[Tensor, " b"], dict[str, Box]]:
        known, boxes = known_boxes(landmarks, points, hq.shape[-1])
        return on_device(known, hq.device), boxes

    def noise(self, positions: list[int]) -> list[Float[Tensor, "b 1 _ _"]]:
        """Draw the generator's noise maps, which depend on (seed, position) only."""
        at, size = on_device(torch.tensor(positions), self.accelerator.device), self.published.image_size
        return noise_maps(normals(self.seed, at, (noise_size(size),)), size)

    # -------------------------------------------------------------------------------------------- its result

    def restorer(self) -> GFPGANRestorer:
        """Return the generator with its averaged weights."""
        self.ema.publish(self.published.parameters())
        return GFPGANRestorer(self.published)

    def tensors(self) -> list[Tensor]:
        """Return the weights of all networks and the generator's averages."""
        critics = [player.model for player in (self.adversary, self.components) if player is not None]
        learnt = [parameter for critic in critics for parameter in critic.parameters()]
        return [*self._parameters(), *learnt, *self.ema.shadow_params]

    def save(self, folder: Path) -> None:
        """Write the state of all processes, and on the main one the generator."""
        self.accelerator.save_state(str(folder), safe_serialization=True)
        self.ema.publish(self.published.parameters())
        if self.accelerator.is_main_process:
            save_gfpgan(self.published, folder / MODEL)

    def load(self, folder: Path) -> None:
        """Restore what :meth:`save` wrote."""
        self.accelerator.load_state(str(folder))
        self.published.load_state_dict(load_gfpgan(folder / MODEL).state_dict())
        self.ema.restore(self.published.parameters())

    def _parameters(self) -> list[torch.nn.Parameter]:
        return list(self.accelerator.unwrap_model(self.model).parameters())
