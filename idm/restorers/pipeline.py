"""IDM as a diffusers pipeline. The commands use IDM itself and do not import diffusers."""

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

from idm.diffusion.chain import Chain, sampler_of, signal_levels
from idm.diffusion.process import Image
from idm.diffusion.schedule import from_betas
from idm.diffusion.schedulers import build_scheduler
from idm.io.errors import InvalidInput
from idm.io.ranges import to_uint8
from idm.models.denoiser import Denoiser
from idm.restorers.idm import IDM
from idm.restorers.saved import BUNDLED, load_idm, save_idm

ImageInput = PILImage.Image | np.ndarray | Tensor
StepCallback = Callable[["IDMPipeline", int, int, dict[str, Tensor]], object]

_FILES = ["model_index.json", "README.md", "denoiser/*", "scheduler/*"]


class IDMPipeline(DiffusionPipeline):
    """Restores aligned faces with f_theta; :class:`~idm.restorers.idm.IDM` as a diffusers pipeline.

    ``IDMPipeline.from_pretrained(folder)`` loads a trained model, with the same checks as the commands.

    Args:
        denoiser: f_theta.
        scheduler: names the sampler and holds the betas; to change the sampler, pass the scheduler of another sampler
            (:func:`idm.diffusion.schedulers.build_scheduler`), made by its ``from_config``, or set ``chain``.
        prediction: how f_theta's output is read: "epsilon", "sample" or "v".
        num_inference_steps, start_from, strength, eta, spacing, levels: the default chain, see
            :class:`idm.diffusion.chain.Chain`.

    Raises:
        ValueError: no sampler is saved as this scheduler, or the chain is impossible.

    Example:
        >>> pipeline = idm.IDMPipeline.from_pretrained("idm-faces-128")
        >>> face = Image.new("RGB", (128, 128))
        >>> restored = pipeline(face, generator=torch.Generator().manual_seed(0)).images[0]
        >>> restored.size
        (128, 128)
    """

    model_cpu_offload_seq = "denoiser"
    denoiser: Denoiser
    scheduler: SchedulerMixin

    def __init__(
        self,
        denoiser: Denoiser,
        scheduler: SchedulerMixin,
        prediction: str = "sample",  # Prediction, Start and Spacing, but diffusers understands plain types only
        num_inference_steps: int = 10,
        start_from: str = "noise",
        strength: float = 1.0,
        eta: float = 0.0,
        spacing: str = "even",
        levels: tuple[float, ...] = (),
    ) -> None:
        super().__init__()
        self.register_modules(denoiser=denoiser, scheduler=scheduler)
        self.register_to_config(
            prediction=prediction,
            num_inference_steps=num_inference_steps,
            start_from=start_from,
            strength=strength,
            eta=eta,
            spacing=spacing,
            levels=levels,
        )
        self.idm  # noqa: B018  # refuses what it cannot run

    @classmethod
    def from_idm(cls, model: IDM) -> "IDMPipeline":
        """The pipeline of a model, whose weights it shares."""
        pipeline = cls(model.denoiser, build_scheduler(model.chain.sampler, model.gammas), model.prediction)
        pipeline.chain = model.chain
        return pipeline

    @property
    def idm(self) -> IDM:
        """The same model as :class:`~idm.restorers.idm.IDM`; shares the weights."""
        return IDM(self.denoiser, self._gammas(), prediction=self.config.prediction, chain=self.chain)

    @property
    def chain(self) -> Chain:
        """The sampling chain; ``pipeline.chain = pipeline.chain.changed(num_steps=4)`` changes it."""
        config = self.config
        return Chain(
            sampler_of(type(self.scheduler).__name__),
            config.num_inference_steps,
            config.start_from,
            config.strength,
            config.eta,
            config.spacing,
            tuple(config.levels),
        )

    @chain.setter
    def chain(self, chain: Chain) -> None:
        gammas = self._gammas()
        signal_levels(chain, gammas.tolist())
        self.scheduler = build_scheduler(chain.sampler, gammas)
        self.register_to_config(
            num_inference_steps=chain.num_steps,
            start_from=chain.start_from,
            strength=chain.strength,
            eta=chain.eta,
            spacing=chain.spacing,
            levels=chain.levels,
        )

    def _gammas(self) -> Float[Tensor, " T1"]:
        config = self.scheduler.config
        if config.prediction_type != "sample" or config.trained_betas is None:
            raise InvalidInput(
                "the scheduler must have trained_betas and prediction_type 'sample': make it from_config"
            )
        return from_betas(torch.tensor(config.trained_betas, dtype=torch.float64))

    @property
    def image_size(self) -> int:
        """The side in pixels of the faces that the pipeline restores."""
        return self.denoiser.config.image_size

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path | None = None,
        *,
        torch_dtype: torch.dtype = torch.float32,
        **hub: Any,
    ) -> "IDMPipeline":
        """Load a pipeline from a folder, a hub repository or by the name of a bundled model, such as "idm-faces-256",
        from safetensors files only. Without an argument, load the default bundled model.

        Args:
            hub: for a repository, as of ``huggingface_hub.snapshot_download``: revision, token, cache_dir, ...

        Raises:
            ModelError: see :func:`idm.restorers.saved.load_idm`.
        """
        folder = None if pretrained_model_name_or_path is None else Path(pretrained_model_name_or_path)
        if folder is not None and not folder.is_dir() and str(folder) not in BUNDLED:
            from huggingface_hub import snapshot_download

            name = str(pretrained_model_name_or_path)
            folder = Path(snapshot_download(name, allow_patterns=_FILES, **hub))
        return cls.from_idm(load_idm(folder, torch.device("cpu"), torch_dtype))

    def save_pretrained(self, save_directory: str | Path, **_: Any) -> None:
        """Save the pipeline as safetensors, with a model card if there is none yet."""
        save_idm(self.idm, Path(save_directory))

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str = "Upload IDM",
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Upload the pipeline with its card to a hub repository, which is created if necessary; returns the commit's
        URL."""
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
        """See :meth:`idm.restorers.idm.IDM.restore`."""
        return self.idm.restore(lq, seeds)

    def generate(self, seeds: Sequence[int]) -> Float[Tensor, "b 3 s s"]:
        """See :meth:`idm.restorers.idm.IDM.generate`."""
        return self.idm.generate(seeds)

    def __call__(
        self,
        image: ImageInput | Sequence[ImageInput],
        *,
        num_inference_steps: int | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        chain: Chain | None = None,
        output_type: Literal["pil", "np", "pt"] = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepCallback | None = None,
    ) -> ImagePipelineOutput | tuple[list[PILImage.Image] | list[np.ndarray] | Tensor]:
        """Restore one aligned face or several of one size.

        Args:
            image: PIL; h w 3 or b h w 3 arrays, uint8 or float in [0, 1]; or 3 h w or b 3 h w tensors in [0, 1]. They
                must have the model's size: a model that was trained at another size would damage them.
            num_inference_steps: changes the chain's number of steps, as in other diffusers pipelines.
            generator: one for each face, or one for all; default: one that is seeded by PyTorch's global generator. A
                single generator is copied for the first face, so that the result equals that of ``idm restore --seed``,
                and it seeds the generators of the other faces.
            chain: the sampling chain; default: that of the pipeline.
            output_type: a list of PIL images, of h w 3 float arrays in [0, 1], or a b 3 h w tensor in [0, 1].
            return_dict: return the faces as ``.images`` instead of a tuple of one element.
            callback_on_step_end: called with (pipeline, step from 0, timestep, {"x_0": current estimate, b 3 h w in
                [-1, 1]}) after each step, as in other diffusers pipelines; its return value is ignored. The timestep is
                the schedule's nearest to the step's level.

        Raises:
            ValueError: the faces differ in size, do not have the model's size, or the settings make an impossible
                chain.
        """
        lq = _to_tensor(image)
        size, (height, width) = self.image_size, lq.shape[-2:]
        if (height, width) != (size, size):
            raise InvalidInput(
                f"this model restores aligned faces of {size} x {size} px, got {height} x {width}: resize them first"
            )
        if generator is None:
            generator = torch.Generator().manual_seed(int(torch.randint(2**63 - 1, ())))
        if isinstance(generator, torch.Generator):
            generator = _one_for_each(generator, len(lq))
        model = self.idm
        chain = (chain or model.chain).changed(num_steps=num_inference_steps)
        levels = torch.tensor(signal_levels(chain, model.gammas.tolist()), dtype=torch.float64)
        timesteps = (model.gammas[1:] - levels[:, None]).abs().argmin(dim=1).tolist()
        with self.progress_bar(total=len(levels)) as bar:

            def on_step(step: int, num_run: int, x_0: Image) -> None:
                bar.update()
                if callback_on_step_end is not None:
                    callback_on_step_end(self, step - 1, timesteps[step - 1], {"x_0": x_0})

            restored = model.sample(lq, generator, chain, on_step)
        images = _to_type(restored, output_type)
        return ImagePipelineOutput(images=images) if return_dict else (images,)


def _one_for_each(generator: torch.Generator, num_faces: int) -> list[torch.Generator]:
    """A generator on the CPU for each face; advances the given one."""
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
    raise InvalidInput(f"output_type must be 'pil', 'np' or 'pt', got {output_type!r}")


def _to_tensor(image: ImageInput | Sequence[ImageInput]) -> Float[Tensor, "b 3 h w"]:
    """One image or several of any accepted kind, as one batch in [0, 1]."""
    if isinstance(image, Tensor | np.ndarray) and image.ndim == 4:
        images: list[ImageInput] = list(image)
    else:
        images = [image] if isinstance(image, ImageInput) else list(image)
    if not images:
        raise InvalidInput("there is no face to restore")
    faces = [_one_to_tensor(face) for face in images]
    if len({face.shape for face in faces}) != 1:
        raise InvalidInput(f"faces must have one size, got {sorted({tuple(face.shape[1:]) for face in faces})}")
    return torch.stack(faces)


def _one_to_tensor(image: ImageInput) -> Float[Tensor, "3 h w"]:
    if isinstance(image, Tensor):
        return _in_range(image)
    array = np.asarray(image.convert("RGB") if isinstance(image, PILImage.Image) else image)
    if array.ndim != 3 or array.shape[2] != 3:
        raise InvalidInput(f"expected an h w 3 image, got shape {array.shape}")
    if array.dtype == np.uint8:
        array = array.astype(np.float32) / 255
    return _in_range(rearrange(torch.from_numpy(array), "h w c -> c h w"))


def _in_range(image: Tensor) -> Float[Tensor, "3 h w"]:
    if image.ndim != 3 or image.shape[0] != 3:
        raise InvalidInput(f"expected a 3 h w or b 3 h w tensor, got shape {tuple(image.shape)}")
    if not image.is_floating_point() or not (image.min() >= 0 and image.max() <= 1):  # false for NaN too
        raise InvalidInput(f"expected floats in [0, 1], got {image.dtype} in {image.min()}..{image.max()}")
    return image.float()
