"""A complete run, and the check that its settings fit together."""

from pathlib import Path

from idm.config.schema.data import DataConfig, DegradationConfig
from idm.config.schema.extrinsic import ExtrinsicConfig
from idm.config.schema.method import ChainConfig, DenoiserConfig, LinearConfig, ObjectiveConfig, ScheduleConfig
from idm.config.schema.section import Section
from idm.config.schema.training import IDMTrainConfig, TrainConfig, ValidationConfig
from idm.evaluation.metrics import METRICS, why_undefined


class RunConfig(Section):
    """Settings of every run."""

    output_dir: Path
    """The run's folder. Starting a run again in the same folder resumes it."""
    seed: int = 0
    """Seed of the initial weights, the order of the faces, the degradations and the noise."""
    data: DataConfig
    """Faces."""
    degradation: DegradationConfig = DegradationConfig()
    """How a clean face becomes a degraded one."""
    train: TrainConfig
    validation: ValidationConfig = ValidationConfig()
    """Held-out faces with frozen degradations."""

    def impossible_combinations(self) -> list[str]:
        """Settings that are valid by themselves but cannot work together."""
        faults = []
        if self.train.batch_size % self.train.accumulation:
            faults.append(
                f"train.batch_size: {self.train.batch_size} does not divide into train.accumulation="
                f"{self.train.accumulation} micro-batches"
            )
        if self.validation.num_shown > self.validation.num_images:
            faults.append("validation.num_shown: exceeds validation.num_images")
        if self.validation.best not in self.validation.metrics:
            faults.append(f"validation.best: {self.validation.best} is not among validation.metrics")
        if METRICS[self.validation.best].better == "one":
            faults.append(f"validation.best: {self.validation.best} is best at 1 and ranks no checkpoints")
        for name in self.validation.metrics:
            if reason := why_undefined(METRICS[name], self.data.image_size):
                faults.append(f"validation.metrics: {name} {reason}")
        source, val_source = self.data.source, self.data.val_source
        faults += [f"data.source.{fault}" for fault in source.impossible_combinations()]
        if val_source is not None:
            faults += [f"data.val_source.{fault}" for fault in val_source.impossible_combinations()]
        if val_source is None:
            if source.name == "huggingface" and source.streaming:
                faults.append("data.val_source: is required with a streaming source, whose end is not known")
            if source.name == "synthetic" and source.num_faces <= self.validation.num_images:
                faults.append("data.source.num_faces: nothing is left to train on after the held-out faces")
        elif val_source.name == "huggingface" and val_source.streaming:
            faults.append("data.val_source.streaming: validation needs a source that can be indexed")
        return faults


class IDMConfig(RunConfig):
    """Everything that train_idm.py needs."""

    denoiser: DenoiserConfig = DenoiserConfig()
    """The network."""
    schedule: ScheduleConfig = LinearConfig()
    """Noise levels."""
    objective: ObjectiveConfig = ObjectiveConfig()
    """The loss."""
    sampler: ChainConfig = ChainConfig(name="ddim")
    """The chain that restores a face, in validation and in the published model."""
    train: IDMTrainConfig
    """Optimisation, logging and checkpoints."""
    extrinsic: ExtrinsicConfig | None = None
    """Rounds of the extrinsic iteration; by default a single training."""

    def impossible_combinations(self) -> list[str]:
        faults = self._impossible_denoiser() + self._impossible_chain("sampler", self.sampler)
        return faults + self._impossible_rounds() + super().impossible_combinations()

    def _impossible_denoiser(self) -> list[str]:
        faults = []
        net, size = self.denoiser, self.data.image_size
        if len(net.channels) != len(net.num_blocks):
            faults.append(
                f"denoiser.num_blocks: {len(net.num_blocks)} levels, but denoiser.channels has {len(net.channels)}"
            )
        if size % (net.patch_size * 2 ** (len(net.channels) - 1)):
            faults.append(
                f"data.image_size: {size} does not divide by patch_size * 2^(levels - 1) = "
                f"{net.patch_size * 2 ** (len(net.channels) - 1)}"
            )
        for level, width in enumerate(net.channels):
            side = size // (net.patch_size * 2**level)
            if side in net.attention_resolutions and width % net.head_dim:
                faults.append(
                    f"denoiser.head_dim: {net.head_dim} does not divide the {width} channels at {side}x{side}"
                )
        levels = self.objective.noise_levels
        if levels.name == "start_and_log_uniform" and levels.own_estimates and self.objective.prediction != "sample":
            faults.append("objective.noise_levels.own_estimates: needs objective.prediction=sample")
        if levels.name == "start_and_log_uniform" and levels.end_to_end and not levels.own_estimates:
            faults.append("objective.noise_levels.end_to_end: needs objective.noise_levels.own_estimates above 0")
        if net.add_degraded and self.objective.prediction != "sample":
            faults.append(
                f"denoiser.add_degraded: needs objective.prediction=sample, not {self.objective.prediction}"
                " (x_d is an estimate of x_0, not of noise)"
            )
        for name in ("add_degraded", "inject_degraded"):
            if not net.conditional and getattr(net, name):
                faults.append(f"denoiser.{name}: must be false without denoiser.conditional: there is no x_d")
        if self.train.lora is not None and self.train.compile:
            faults.append("train.compile: not available with train.lora, whose layers cannot share what is compiled")
        if self.train.lora is not None and self.train.init_from is None:
            faults.append("train.lora: needs train.init_from, since adapters alone cannot train a new network")
        if self.objective.adversarial is not None and self.train.mixed_precision == "fp16":
            faults.append(
                "train.mixed_precision: fp16 is not available with objective.adversarial, because one loss scale "
                "cannot serve two optimisers; use bf16"
            )
        if self.schedule.name == "linear" and self.schedule.beta_start > self.schedule.beta_end:
            faults.append("schedule.beta_start: is above schedule.beta_end")
        return faults

    def _impossible_chain(self, where: str, chain: ChainConfig) -> list[str]:
        faults = []
        if chain.num_steps > self.schedule.num_steps:
            faults.append(f"{where}.num_steps: {chain.num_steps} exceeds the schedule's {self.schedule.num_steps}")
        try:
            chain.build()
        except ValueError as error:
            faults.append(f"{where}: {error}")
        return faults

    def _impossible_rounds(self) -> list[str]:
        if self.extrinsic is None:
            return []
        chain, source, replacement = self.extrinsic.sampler, self.data.source, self.extrinsic.replacement.name
        faults = [] if chain is None else self._impossible_chain("extrinsic.sampler", chain)
        if not {"psnr", "ssim"} <= set(self.validation.metrics):
            faults.append("validation.metrics: rounds are compared by psnr and ssim, which must be among them")
        if source.name == "huggingface" and source.streaming and replacement != "at_once":
            faults.append(f"extrinsic.replacement.name: {replacement} needs a data.source that can be indexed")
        if source.name == "huggingface" and source.streaming and self.extrinsic.condition_on == "original":
            faults.append("extrinsic.condition_on: original needs a data.source that can be indexed; set it to cleaned")
        return faults
