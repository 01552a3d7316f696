"""IDM as a diffusers pipeline: the trained denoiser, its noise levels, and how to sample from them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from einops import rearrange
from jaxtyping import Float
from PIL import Image as PILImage
from torch import Tensor

from idm.diffusion.process import Image
from idm.diffusion.samplers import (
    SamplerName,
    Start,
    build_scheduler,
    chain_of,
    check_chain,
    sample,
    steps_run,
)
from idm.diffusion.schedule import from_betas
from idm.io.ranges import from_diffusion, to_diffusion, to_uint8
from idm.models.unet import Denoiser
from idm.restorers.backends import Backend, ExportedDenoiser, denoiser_inputs
from idm.restorers.card import model_card
from idm.restorers.export import Graph

ImageInput = PILImage.Image | np.ndarray | Tensor
StepCallback = Callable[["IDMPipeline", int, int, dict[str, Tensor]], object]


class IDMPipeline(DiffusionPipeline):
    """Restores aligned faces with f_theta.

    ``IDMPipeline.from_pretrained(folder)`` loads what training saved. It is a
    :class:`~idm.restorers.protocol.Restorer` and, called, a diffusers pipeline.

    Args:
        denoiser: f_theta.
        scheduler: a scheduler with ``prediction_type="sample"``; to change the sampler, put another one here
            by its ``from_config``.
        prediction: how f_theta's output is read: "epsilon", "sample" or "v".
        num_inference_steps, start_from, strength, eta: the sampler's defaults,
            see :func:`idm.diffusion.samplers.sample`.
    """

    model_cpu_offload_seq = "denoiser"
    denoiser: Denoiser
    scheduler: SchedulerMixin

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
        self.exported: ExportedDenoiser | None = None

    @property
    def image_size(self) -> int:
        return self.denoiser.config.image_size

    def set_chain(
        self,
        *,
        sampler: SamplerName | None = None,
        num_inference_steps: int | None = None,
        start_from: Start | None = None,
        strength: float | None = None,
        fidelity: float | None = None,
    ) -> None:
        """Change the defaults of the sampler; what is None stays.

        Args:
            sampler: "langevin", "ddim", "dpmpp_2m" or "unipc".
            num_inference_steps, start_from, strength: see :func:`idm.diffusion.samplers.sample`.
            fidelity: instead of the last two: start from the degraded face and run the last 1 - fidelity of the
                chain, at least one step. 0 is the whole chain, from noise; 1 one step at the lowest noise level.

        Raises:
            ValueError: settings that contradict each other, or an impossible chain.
        """
        scheduler = self.scheduler
        if sampler is not None:
            gammas = from_betas(torch.tensor(scheduler.config.trained_betas, dtype=torch.float64))
            scheduler = build_scheduler(sampler, gammas)
        num_steps: int = self.config.num_inference_steps if num_inference_steps is None else num_inference_steps
        if fidelity is not None:
            if start_from is not None or strength is not None:
                raise ValueError("fidelity sets start_from and strength; give it or them")
            start_from, strength = chain_of(fidelity, num_steps)
        start_from = start_from or self.config.start_from
        strength = self.config.strength if strength is None else strength
        check_chain(scheduler, num_steps=num_steps, start_from=start_from, strength=strength, eta=self.config.eta)
        self.scheduler = scheduler
        self.register_to_config(num_inference_steps=num_steps, start_from=start_from, strength=strength)

    def use_backend(self, backend: Backend | Literal["torch"], dtype: torch.dtype = torch.float32) -> None:
        """Choose what runs f_theta from now on: PyTorch, or another program on a graph of the present weights.

        All else stays with PyTorch, as does the denoiser that is saved.

        Args:
            dtype: what the other program computes in; of PyTorch's denoiser it is its own.

        Raises:
            ExportError: see :class:`~idm.restorers.backends.ExportedDenoiser`.
        """
        self.exported = None if backend == "torch" else ExportedDenoiser(self.denoiser.eval(), backend, dtype)

    def graph(self) -> Graph:
        """f_theta(x_d, x_t, gamma) for :func:`~idm.restorers.export.export_onnx`, with what a sampler needs to know."""
        metadata = {
            "inputs": "x_d: degraded faces in [-1, 1]; x_t = sqrt(gamma) x_0 + sqrt(1 - gamma) eps; gamma in (0, 1)",
            "prediction": self.config.prediction,  # how the output is read
            "scheduler": type(self.scheduler).__name__,
            "scheduler_config": json.dumps(dict(self.scheduler.config)),
        }
        return Graph("denoiser", self.denoiser, denoiser_inputs(self.denoiser), metadata)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> "IDMPipeline":
        """Load a pipeline from a folder or a hub repository, from safetensors files only; arguments as diffusers'."""
        return super().from_pretrained(pretrained_model_name_or_path, **{"use_safetensors": True, **kwargs})

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save as diffusers does, and a model card where there is none yet."""
        super().save_pretrained(save_directory, **kwargs)
        card = Path(save_directory) / "README.md"
        if not card.exists():
            card.write_text(self.card())

    def card(self) -> str:
        """A model card with what the pipeline knows of itself."""
        return model_card(
            size=self.image_size,
            parameters=sum(p.numel() for p in self.denoiser.parameters()),
            sampler=type(self.scheduler).__name__,
            settings=self.config,
        )

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str = "Upload IDM",
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Upload the pipeline with its card to a hub repository, made if need be; gives the commit's address."""
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return str(
                api.upload_folder(
                    repo_id=repo_id, folder_path=folder, commit_message=commit_message, create_pr=create_pr
                )
            )

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
        return_dict: bool = True,
        callback_on_step_end: StepCallback | None = None,
    ) -> ImagePipelineOutput | tuple[list[PILImage.Image] | list[np.ndarray] | Tensor]:
        """Restore one aligned face or several of one size.

        Args:
            image: PIL; h w 3 or b h w 3 arrays, uint8 or float in [0, 1]; or 3 h w or b 3 h w tensors in [0, 1].
                Sides are from the model's own to one and a half times that; those that the network's stride does not
                divide are padded and cropped, never resized.
            generator: one for each face, or one for all. Then the first face draws as from a copy of it, so that
                ``idm restore --seed`` gives the same, and it seeds those of the others.
            output_type: a list of PIL images, of h w 3 float arrays in [0, 1], or a b 3 h w tensor in [0, 1].
            return_dict: give the faces as ``.images``, or in a tuple of one.
            callback_on_step_end: called with (pipeline, step from 0, timestep, {"x_0": current estimate, b 3 h w in
                [-1, 1]}) after each step, as in other diffusers pipelines; what it returns is not used.

        Raises:
            ValueError: for faces of different sizes, or of one that gives damaged faces; or settings that
                :func:`sample` refuses.
        """
        lq = _to_tensor(image)
        _require_size(lq, self.image_size)
        if generator is None:
            generator = torch.Generator().manual_seed(torch.seed())
        if isinstance(generator, torch.Generator):
            generator = _one_for_each(generator, len(lq))
        num_steps = self.config.num_inference_steps if num_inference_steps is None else num_inference_steps
        total = steps_run(num_steps, self.config.strength if strength is None else strength)
        with self.progress_bar(total=total) as bar:

            def on_step(step: int, num_run: int, x_0: Image) -> None:
                bar.update()
                if callback_on_step_end is not None:
                    timestep = int(self.scheduler.timesteps[num_steps - num_run + step - 1])
                    callback_on_step_end(self, step - 1, timestep, {"x_0": x_0})

            restored = self._sample(
                lq,
                generator,
                num_inference_steps=num_inference_steps,
                start_from=start_from,
                strength=strength,
                eta=eta,
                on_step=on_step,
            )
        images = _to_type(restored, output_type)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

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
            self.exported or self.denoiser.eval(),
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


def _require_size(lq: Float[Tensor, "b 3 h w"], size: int) -> None:
    """On faces of `val` the model in the box, of 128 px, gives at 96 px 24.3 dB instead of the 25.5 dB of faces resized
    to its size and back; at 160 px 25.2 instead of 25.0, at 192 px 24.8 instead of 24.9, and at 512 px damaged ones."""
    height, width = lq.shape[2:]
    most = size * 3 // 2
    if not (size <= height <= most and size <= width <= most):
        raise ValueError(
            f"faces of {width} x {height} pixels would come back damaged: this model restores aligned faces of {size} "
            f"to {most} pixels per side; resize them to {size} x {size}, or give the photograph to idm.restore_photo"
        )


def _one_for_each(generator: torch.Generator, num_faces: int) -> list[torch.Generator]:
    """A generator for each face, on the CPU; the given one moves on."""
    first = generator.clone_state() if generator.device.type == "cpu" else None
    seeds = torch.randint(2**62, (num_faces,), generator=generator, device=generator.device).tolist()
    seeded = [torch.Generator().manual_seed(seed) for seed in seeds]
    return seeded if first is None else [first, *seeded[1:]]


def _to_type(restored: Float[Tensor, "b 3 h w"], output_type: str) -> list[PILImage.Image] | list[np.ndarray] | Tensor:
    match output_type:
        case "pt":
            return restored
        case "np":
            return [rearrange(face, "c h w -> h w c").cpu().numpy() for face in restored]
        case "pil":
            return [PILImage.fromarray(to_uint8(rearrange(x, "c h w -> h w c").cpu().numpy())) for x in restored]
    raise ValueError(f"output_type must be 'pil', 'np' or 'pt', got {output_type!r}")


def _to_tensor(image: ImageInput | Sequence[ImageInput]) -> Float[Tensor, "b 3 h w"]:
    """One image or several of any accepted kind, as one batch in [0, 1]."""
    if isinstance(image, Tensor | np.ndarray) and image.ndim == 4:
        images: list[ImageInput] = list(image)
    else:
        images = [image] if isinstance(image, ImageInput) else list(image)
    if not images:
        raise ValueError("there is no face to restore")
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
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"expected a 3 h w or b 3 h w tensor, got shape {tuple(image.shape)}")
    if not image.is_floating_point() or not (image.min() >= 0 and image.max() <= 1):  # false for NaN too
        raise ValueError(f"expected floats in [0, 1], got {image.dtype} in {image.min()}..{image.max()}")
    return image.float()
