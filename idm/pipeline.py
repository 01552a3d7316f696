"""IDM as a diffusers pipeline: the trained denoiser, its noise levels, and how to sample from them."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from einops import rearrange
from jaxtyping import Float
from PIL import Image as PILImage
from torch import Tensor

from idm.data.ranges import from_diffusion, to_diffusion, to_uint8
from idm.diffusion.process import Image
from idm.diffusion.samplers import Start, sample
from idm.nn.denoiser import Denoiser

ImageInput = PILImage.Image | np.ndarray | Tensor


class IDMPipeline(DiffusionPipeline):
    """Restores aligned faces with f_theta.

    ``IDMPipeline.from_pretrained(folder)`` loads what training saved. It is a
    :class:`~idm.restorer.Restorer` and, called, a diffusers pipeline.

    Args:
        denoiser: f_theta.
        scheduler: a scheduler with ``prediction_type="sample"``; to change the sampler, put another one here
            by its ``from_config``.
        prediction: how f_theta's output is read: "epsilon", "sample" or "v".
        num_inference_steps, start_from, strength, eta: the sampler's defaults,
            see :func:`idm.diffusion.samplers.sample`.
    """

    model_cpu_offload_seq = "denoiser"

    def __init__(
        self,
        denoiser: Denoiser,
        scheduler: SchedulerMixin,
        prediction: str = "sample",  # Prediction and Start, but diffusers understands plain types only
        num_inference_steps: int = 10,
        start_from: str = "noise",
        strength: float = 1.0,
        eta: float = 0.0,
    ) -> None:
        super().__init__()
        self.register_modules(denoiser=denoiser, scheduler=scheduler)
        self.register_to_config(
            prediction=prediction,
            num_inference_steps=num_inference_steps,
            start_from=start_from,
            strength=strength,
            eta=eta,
        )

    @property
    def image_size(self) -> int:
        return self.denoiser.config.image_size

    def restore(self, lq: Float[Tensor, "b 3 s s"], seeds: Sequence[int]) -> Float[Tensor, "b 3 s s"]:
        """Restore degraded faces in [0, 1] with the sampler's defaults; face i draws from ``seeds[i]``."""
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return self._sample(lq, generators)

    def generate(self, seeds: Sequence[int]) -> Float[Tensor, "b 3 s s"]:
        """Faces out of noise, in [0, 1], with the sampler's number of steps; each depends on its seed alone.

        Raises:
            ValueError: the denoiser is conditional, a model of restoration and not of faces.
        """
        if self.denoiser.config.conditional:
            raise ValueError("generate() needs an unconditional denoiser (denoiser.conditional: false)")
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        nothing = torch.zeros(len(seeds), 3, self.image_size, self.image_size)
        return self._sample(nothing, generators, start_from="noise", strength=1.0)

    def __call__(
        self,
        image: ImageInput | Sequence[ImageInput],
        *,
        num_inference_steps: int | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        start_from: Start | None = None,
        strength: float | None = None,
        eta: float | None = None,
        output_type: Literal["pil", "np", "pt"] = "pil",
    ) -> list[PILImage.Image] | list[np.ndarray] | Tensor:
        """Restore one aligned face or several of one size.

        Args:
            image: PIL; h w 3 arrays, uint8 or float in [0, 1]; or 3 h w or b 3 h w tensors in [0, 1].
                Sizes that the network's stride does not divide are padded and cropped, never resized.
            generator: one for each face, or one for all from which each face's own is seeded.
            output_type: a list of PIL images, of h w 3 float arrays in [0, 1], or a b 3 h w tensor in [0, 1].

        Raises:
            ValueError: for faces of different sizes, or settings that :func:`sample` refuses.
        """
        lq = _to_tensor(image)
        if generator is None:
            generator = torch.Generator().manual_seed(torch.seed())
        if isinstance(generator, torch.Generator):
            seeds = torch.randint(2**62, (len(lq),), generator=generator, device=generator.device).tolist()
            generator = [torch.Generator().manual_seed(seed) for seed in seeds]
        with self.progress_bar(total=num_inference_steps or self.config.num_inference_steps) as bar:
            restored = self._sample(
                lq,
                generator,
                num_inference_steps=num_inference_steps,
                start_from=start_from,
                strength=strength,
                eta=eta,
                on_step=lambda step, num_steps, x_0: bar.update(),
            )
        match output_type:
            case "pt":
                return restored
            case "np":
                return [rearrange(face, "c h w -> h w c").cpu().numpy() for face in restored]
            case "pil":
                return [PILImage.fromarray(to_uint8(rearrange(x, "c h w -> h w c").cpu().numpy())) for x in restored]
        raise ValueError(f"output_type must be 'pil', 'np' or 'pt', got {output_type!r}")

    def _sample(
        self,
        lq: Float[Tensor, "b 3 h w"],
        generators: Sequence[torch.Generator],
        *,
        num_inference_steps: int | None = None,
        start_from: Start | None = None,
        strength: float | None = None,
        eta: float | None = None,
        on_step: Callable[[int, int, Image], None] | None = None,
    ) -> Float[Tensor, "b 3 h w"]:
        defaults = self.config
        restored = sample(
            self.denoiser.eval(),
            to_diffusion(lq.to(self.denoiser.device, torch.float32)),
            self.scheduler,
            prediction=defaults.prediction,
            num_steps=defaults.num_inference_steps if num_inference_steps is None else num_inference_steps,
            generators=generators,
            start_from=start_from or defaults.start_from,
            strength=defaults.strength if strength is None else strength,
            eta=defaults.eta if eta is None else eta,
            on_step=on_step,
        )
        return from_diffusion(restored)


def _to_tensor(image: ImageInput | Sequence[ImageInput]) -> Float[Tensor, "b 3 h w"]:
    """One image or several of any accepted kind, as one batch in [0, 1]."""
    if isinstance(image, Tensor) and image.ndim == 4:
        return torch.stack([_one_to_tensor(face) for face in image])
    images = [image] if isinstance(image, ImageInput) else list(image)
    faces = [_one_to_tensor(face) for face in images]
    if len({face.shape for face in faces}) != 1:
        raise ValueError(f"faces must have one size, got {sorted({tuple(face.shape[1:]) for face in faces})}")
    return torch.stack(faces)


def _one_to_tensor(image: ImageInput) -> Float[Tensor, "3 h w"]:
    if isinstance(image, Tensor):
        return _in_range(image)
    array = np.asarray(image.convert("RGB") if isinstance(image, PILImage.Image) else image)
    if array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"expected an h w 3 image, got shape {array.shape}")
    if array.dtype == np.uint8:
        array = array.astype(np.float32) / 255
    return _in_range(rearrange(torch.from_numpy(array), "h w c -> c h w"))


def _in_range(image: Tensor) -> Float[Tensor, "3 h w"]:
    if not image.is_floating_point() or not (image.min() >= 0 and image.max() <= 1):  # false for NaN too
        raise ValueError(f"expected floats in [0, 1], got {image.dtype} in {image.min()}..{image.max()}")
    return image.float()
