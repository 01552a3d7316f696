"""Do the tests find wrong mathematics? Wrong edits, each of which must make a named test file fail.

    make faults                       all of them, as the nightly job does
    python tests/faults.py gamma ema  those with one of these words in their name or file

Every fault is set into a copy of the repository in a temporary folder, where the named tests then run;
nothing is changed in place. The unchanged copy must pass first. The exit code is 1 if any fault was missed
or no longer fits the code. To add one: a row below, under its file; ``old`` must occur there exactly once, and
``tests`` is a test file or one of its tests.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
COPIED = ("idm", "gan_baseline", "configs", "tests", "pyproject.toml", "train_idm.py")
SECONDS = 600
GAN_LEARNER = "tests/unit/test_gan_learner.py"
GAN_WIRING = "tests/unit/test_gan_wiring.py::test_a_field_changes_what_is_built_or_the_first_steps"
WIRING = "tests/unit/test_wiring.py::test_a_field_changes_what_is_built_or_the_first_steps"


@dataclass(frozen=True)
class Fault:
    name: str
    file: str
    old: str
    new: str
    tests: str

    def has_tests(self, folder: Path) -> bool:
        """Whether the file is there, and in it the test that is named."""
        file, _, name = self.tests.partition("::")
        return (folder / file).is_file() and f"def {name.partition('[')[0]}" in (folder / file).read_text()


FAULTS = [
    # idm/diffusion
    Fault(
        "gamma_0 = 1 forgotten in the training levels",
        "idm/diffusion/schedule.py",
        "return gammas[t - 1] + u_within.double() * (gammas[t] - gammas[t - 1])",
        "return gammas[t]",
        "tests/property/test_diffusion.py",
    ),
    Fault(
        "one training step never drawn",
        "idm/diffusion/schedule.py",
        ".clamp(max=num_steps - 1) + 1",
        ".clamp(max=num_steps - 2) + 1",
        "tests/property/test_diffusion.py",
    ),
    Fault(
        "cosine without its square",
        "idm/diffusion/schedule.py",
        "* math.pi / 2) ** 2",
        "* math.pi / 2)",
        "tests/parity/test_diffusion.py",
    ),
    Fault(
        "forgotten sqrt in the coefficients",
        "idm/diffusion/process.py",
        "signal, noise = gamma.sqrt(), (1 - gamma).sqrt()",
        "signal, noise = gamma, 1 - gamma",
        "tests/unit/test_process.py",
    ),
    Fault(
        "v with the wrong sign",
        "idm/diffusion/process.py",
        "return signal * eps.float() - noise * x_0.float()",
        "return signal * eps.float() + noise * x_0.float()",
        "tests/parity/test_diffusion.py",
    ),
    Fault(
        "inverted min-SNR clamp",
        "idm/diffusion/objective.py",
        "snr.clamp(max=clamp)",
        "snr.clamp(min=clamp)",
        "tests/parity/test_diffusion.py",
    ),
    Fault(
        "always trained to x_0",
        "idm/diffusion/objective.py",
        "target(prediction, x_0, eps, gamma), p)",
        'target("sample", x_0, eps, gamma), p)',
        "tests/unit/test_objective.py",
    ),
    # idm/models
    Fault(
        "log-SNR replaced by a constant",
        "idm/models/layers.py",
        "angles = log_snr[:, None] * frequencies",
        "angles = 0 * log_snr[:, None] * frequencies",
        "tests/property/test_denoiser.py",
    ),
    Fault(
        "noise level embedded as gamma",
        "idm/models/layers.py",
        "angles = log_snr[:, None] * frequencies",
        "angles = gamma.float()[:, None] * frequencies",
        "tests/unit/test_denoiser.py",
    ),
    Fault(
        "attention without its scale",
        "idm/models/layers.py",
        "q * q.shape[-1] ** -0.5 @ k.mT",
        "q @ k.mT",
        "tests/property/test_denoiser.py",
    ),
    Fault(
        "condition forgotten",
        "idm/models/unet.py",
        "torch.cat([patches_d, patches], dim=1)",
        "torch.cat([patches, patches], dim=1)",
        "tests/property/test_denoiser.py",
    ),
    Fault(
        "padding not cropped from the right side",
        "idm/models/denoiser.py",
        "output = pixels[..., :height, :width].float()",
        "output = pixels[..., -height:, -width:].float()",
        "tests/property/test_denoiser.py",
    ),
    # idm/data
    Fault(
        "flip without moving the landmarks",
        "idm/data/pairs.py",
        "np.array([width - 1, 0], np.float32) + np.array([-1, 1], np.float32) * points[order]",
        "points[order]",
        "tests/unit/test_data.py",
    ),
    Fault(
        "flip without renaming the landmarks",
        "idm/data/pairs.py",
        "_MIRRORED_5 = [1, 0, 2, 4, 3]",
        "_MIRRORED_5 = [0, 1, 2, 3, 4]",
        "tests/unit/test_data.py",
    ),
    Fault(
        "every worker reads all parts of a stream",
        "idm/data/huggingface.py",
        "turn, within = divmod(position, self.TURN)",
        "turn, within = divmod(position, 1)",
        "tests/unit/test_data.py::test_each_worker_of_each_process_opens_its_own_files_of_a_stream",
    ),
    Fault(
        "a stream that always resumes at the start of an epoch",
        "idm/data/huggingface.py",
        "first, start = divmod(number, self.share)",
        "first, start = number // self.share, 0",
        "tests/unit/test_data.py::test_a_stream_resumes_at_its_position_with_any_number_of_workers",
    ),
    Fault(
        "the share rises with positions instead of steps",
        "idm/data/mixing.py",
        "self.share(position // self.batch_size)",
        "self.share(position)",
        "tests/unit/test_mixing.py",
    ),
    Fault(
        "all processes train on the same samples",
        "idm/data/pairs.py",
        "(micro_batch * self.world + self.rank) * self.size",
        "micro_batch * self.world * self.size",
        "tests/unit/test_data.py::test_processes_share_the_positions_of_one_global_batch",
    ),
    Fault(
        "all workers yield the same micro-batches of a stream",
        "idm/data/pairs.py",
        "(self.first + worker.id, worker.num_workers)",
        "(self.first, worker.num_workers)",
        "tests/unit/test_data.py::test_a_stream_resumes_at_its_position_with_any_number_of_workers",
    ),
    # idm/evaluation
    Fault(
        "a Frechet distance without its means",
        "idm/evaluation/frechet.py",
        "((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + spread",
        "spread",
        "tests/unit/test_frechet.py",
    ),
    Fault(
        "given pairs that are matched by their order instead of their names",
        "idm/data/given.py",
        "GivenPairs(Part(lq, [degraded[name] for name in originals]), hq)",
        "GivenPairs(lq, hq)",
        "tests/unit/test_given.py",
    ),
    Fault(
        "metrics of pairs where there are no originals",
        "idm/evaluation/metrics.py",
        'if metric.kind == "pair" and not has_originals:',
        'if metric.kind == "pair" and has_originals is None:',
        "tests/unit/test_given.py",
    ),
    Fault(
        "a face drawn with the seed of its place in the batch",
        "idm/evaluation/engine.py",
        "[seed + i for i in chosen]",
        "[seed + start + i for i in range(len(chosen))]",
        "tests/unit/test_compare.py::test_a_face_is_drawn_with_its_own_seed_whichever_faces_are_chosen",
    ),
    Fault(
        "faces shrunk without antialiasing",
        "idm/evaluation/compare.py",
        'mode="bicubic", antialias=True',
        'mode="bicubic"',
        "tests/unit/test_compare.py::test_a_face_is_shrunk_with_antialiasing",
    ),
    Fault(
        "mean instead of median seconds",
        "idm/evaluation/compare.py",
        "float(np.median(seconds))",
        "float(np.mean(seconds))",
        "tests/unit/test_compare.py::test_the_seconds_of_a_row_are_the_median",
    ),
    Fault(
        "kept faces of another original",
        "idm/evaluation/kept.py",
        "pair.lq.tobytes() + pair.hq.tobytes()",
        "pair.lq.tobytes()",
        "tests/unit/test_compare.py::test_a_stopped_comparison_resumes_to_the_same_numbers_and_pixels",
    ),
    Fault(
        "the least similar face as the stranger",
        "idm/evaluation/identity.py",
        "similarity.argmax(axis=1)",
        "similarity.argmin(axis=1)",
        "tests/unit/test_identity.py::test_the_stranger_of_a_face_is_the_most_similar_other_one",
    ),
    Fault(
        "colour shift in the order blue, green, red",
        "idm/evaluation/pixels.py",
        "rgb2lab(image.astype(np.float64))",
        "rgb2lab(image[..., ::-1].astype(np.float64))",
        "tests/unit/test_metrics.py::test_colour_shift_of_a_primary_from_white_is_its_place_in_lab",
    ),
    Fault(
        "luma of sharpness in the order blue, green, red",
        "idm/evaluation/pixels.py",
        "image.astype(np.float64) @ _LUMA, cv2",
        "image.astype(np.float64) @ _LUMA[::-1], cv2",
        "tests/unit/test_metrics.py::test_sharpness_weighs_red_green_and_blue_as_luma_does",
    ),
    Fault(
        "the last column of each part of a table lost",
        "idm/evaluation/layout.py",
        "columns[-1] + 1",
        "columns[-1]",
        "tests/unit/test_report.py::test_a_wide_table_becomes_parts_with_the_labels_and_the_rows_that_have_numbers",
    ),
    Fault(
        "intervals of two kinds in one column",
        "idm/evaluation/tables.py",
        '("data", "num_images", "seed", "interval")',
        '("data", "num_images", "seed")',
        "tests/unit/test_report.py::test_numbers_of_different_data_never_stand_in_one_column",
    ),
    Fault(
        "a histogram without its zero",
        "idm/evaluation/plots.py",
        "_span([*values, 0.0])",
        "_span(values)",
        "tests/unit/test_report_page.py::test_a_histogram_has_its_line_at_zero_where_all_differences_are_positive",
    ),
    Fault(
        "the evaluated faces as the other real ones",
        "idm/apps/cli/faces.py",
        'options.seed + 1, "--real"',
        'options.seed, "--real"',
        "tests/unit/test_compare_command.py::test_references_are_rows_and_each_face_has_its_nearest_stranger",
    ),
    # idm/config/assembly
    Fault(
        "every model published as if it predicted x_0",
        "idm/config/assembly/intrinsic.py",
        "IDM(denoiser, gammas, prediction=config.objective.prediction,",
        'IDM(denoiser, gammas, prediction="sample",',
        "tests/unit/test_wiring.py::test_every_prediction_is_trained_validated_and_published_as_what_it_is",
    ),
    Fault(
        "every model trained to predict x_0",
        "idm/config/assembly/intrinsic.py",
        "        prediction=config.objective.prediction,\n        p=",
        '        prediction="sample",\n        p=',
        "tests/unit/test_wiring.py::test_every_prediction_is_trained_validated_and_published_as_what_it_is",
    ),
    Fault(
        "p always 1",
        "idm/config/assembly/intrinsic.py",
        "p=config.objective.p,",
        "p=1,",
        f"{WIRING}[ObjectiveConfig.p]",
    ),
    Fault(
        "min-SNR clamp not passed on",
        "idm/config/assembly/intrinsic.py",
        "min_snr_clamp=config.objective.min_snr_clamp,",
        "min_snr_clamp=None,",
        f"{WIRING}[ObjectiveConfig.min_snr_clamp]",
    ),
    Fault(
        "SSIM loss not passed on",
        "idm/config/assembly/intrinsic.py",
        "ssim_weight=config.objective.ssim_weight,",
        "ssim_weight=0.0,",
        f"{WIRING}[ObjectiveConfig.ssim_weight]",
    ),
    Fault(
        "share of own estimates not passed on",
        "idm/config/assembly/intrinsic.py",
        "NoiseLevels(config.start_share, config.own_estimates)",
        "NoiseLevels(config.start_share)",
        f"{WIRING}[StartAndLogUniformConfig.own_estimates]",
    ),
    Fault(
        "noise from one seed in all runs",
        "idm/config/assembly/intrinsic.py",
        "        seed=config.seed,\n        noise_levels",
        "        seed=0,\n        noise_levels",
        f"{WIRING}[RunConfig.seed]",
    ),
    Fault(
        "weight of undegraded faces not passed on",
        "idm/config/assembly/intrinsic.py",
        "clean_weight=config.objective.clean_weight,",
        "clean_weight=1.0,",
        f"{WIRING}[ObjectiveConfig.clean_weight]",
    ),
    Fault(
        "initial weights from one seed in all runs",
        "idm/config/assembly/intrinsic.py",
        "torch.manual_seed(config.seed)",
        "torch.manual_seed(0)",
        f"{WIRING}[RunConfig.seed]",
    ),
    Fault(
        "weight decay not passed on",
        "idm/config/assembly/intrinsic.py",
        "weight_decay=train.weight_decay,",
        "weight_decay=0.0,",
        f"{WIRING}[IDMTrainConfig.weight_decay]",
    ),
    Fault(
        "decay of the average not passed on",
        "idm/config/assembly/intrinsic.py",
        "ema_decay=train.ema_decay,",
        "ema_decay=0.999,",
        f"{WIRING}[IDMTrainConfig.ema_decay]",
    ),
    Fault(
        "warm-up not passed on",
        "idm/config/assembly/intrinsic.py",
        "warmup_steps=train.warmup_steps,",
        "warmup_steps=0,",
        f"{WIRING}[IDMTrainConfig.warmup_steps]",
    ),
    Fault(
        "gradient checkpointing not passed on",
        "idm/config/assembly/intrinsic.py",
        "denoiser.gradient_checkpointing = train.gradient_checkpointing",
        "denoiser.gradient_checkpointing = False",
        f"{WIRING}[IDMTrainConfig.gradient_checkpointing]",
    ),
    Fault(
        "x_d never injected at every scale",
        "idm/config/assembly/intrinsic.py",
        "**config.denoiser.model_dump()",
        '**config.denoiser.model_dump(exclude={"inject_degraded"})',
        f"{WIRING}[DenoiserConfig.inject_degraded]",
    ),
    Fault(
        "every chain starts from noise",
        "idm/config/assembly/intrinsic.py",
        "chain=config.sampler.build())",
        'chain=config.sampler.model_copy(update={"start_from": "noise"}).build())',
        f"{WIRING}[ChainConfig.start_from]",
    ),
    Fault(
        "share of undegraded faces not passed on",
        "idm/config/assembly/data.py",
        "clean_probability=config.clean_probability,",
        "",
        f"{WIRING}[DegradationConfig.clean_probability]",
    ),
    Fault(
        "shift of the faces not passed on",
        "idm/config/assembly/run.py",
        "max_shift=config.data.max_shift,",
        "max_shift=0,",
        f"{WIRING}[DataConfig.max_shift]",
    ),
    Fault(
        "held-out faces degraded from one seed",
        "idm/config/assembly/run.py",
        "FrozenPairs(val, recipe, config.validation.seed)",
        "FrozenPairs(val, recipe, 1234)",
        f"{WIRING}[ValidationConfig.seed]",
    ),
    Fault(
        "rounds of one iteration trained differently",
        "idm/config/assembly/run.py",
        "*(() if rounds else FROM_HERE_ON)",
        "*FROM_HERE_ON",
        "tests/unit/test_claim.py",
    ),
    Fault(
        "offset of the cosine schedule not passed on",
        "idm/config/assembly/intrinsic.py",
        "schedule.cosine(config.num_steps, config.offset)",
        "schedule.cosine(config.num_steps)",
        f"{WIRING}[CosineConfig.offset]",
    ),
    Fault(
        "last beta of the linear schedule not passed on",
        "idm/config/assembly/intrinsic.py",
        "schedule.linear(config.beta_start, config.beta_end, config.num_steps)",
        "schedule.linear(config.beta_start, num_steps=config.num_steps)",
        f"{WIRING}[LinearConfig.beta_end]",
    ),
    Fault(
        "never compiled",
        "idm/config/assembly/intrinsic.py",
        "    if train.compile:\n",
        "    if False:\n",
        f"{WIRING}[IDMTrainConfig.compile]",
    ),
    Fault(
        "share of mirrored faces not passed on",
        "idm/config/assembly/run.py",
        "        config.data.flip_probability,\n",
        "        0.5,\n",
        f"{WIRING}[DataConfig.flip_probability]",
    ),
    Fault(
        "every round starts from new weights",
        "idm/config/assembly/extrinsic.py",
        'if number > 0 and config.extrinsic.init == "previous":',
        "if False:",
        "tests/unit/test_wiring.py::test_a_field_changes_the_rounds[ExtrinsicConfig.init]",
    ),
    Fault(
        "a gate where none is wanted",
        "idm/config/assembly/extrinsic.py",
        "gate = None if config.gate is None else Gate(**config.gate.model_dump())",
        "gate = Gate(**(config.gate or type(config)().gate).model_dump())",
        "tests/unit/test_wiring.py::test_a_field_changes_the_rounds[ExtrinsicConfig.gate]",
    ),
    Fault(
        "held-out faces left undegraded",
        "idm/config/assembly/run.py",
        "clean_probability=0.0)\n",
        "clean_probability=config.degradation.clean_probability)\n",
        "tests/unit/test_build_run.py::test_all_held_out_faces_are_degraded",
    ),
    Fault(
        "each process takes all cores",
        "idm/config/assembly/run.py",
        'share_cores(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))',
        "share_cores(1)",
        "tests/unit/test_build_run.py::test_freed_memory_is_kept_and_the_cores_are_shared_with_the_processes_of_this_machine",
    ),
    Fault(
        "freed memory returned to the kernel",
        "idm/config/assembly/run.py",
        "    keep_freed_memory()\n",
        "",
        "tests/unit/test_build_run.py::test_freed_memory_is_kept_and_the_cores_are_shared_with_the_processes_of_this_machine",
    ),
    Fault(
        "trackers without the settings",
        "idm/config/assembly/run.py",
        "config=for_trackers(config))",
        "config={})",
        "tests/unit/test_build_run.py::test_trackers_receive_the_settings_at_the_start",
    ),
    Fault(
        "the first faces held out instead of some of all",
        "idm/config/assembly/data.py",
        "Part(val, evenly(len(val), num_val))",
        "Part(val, range(num_val))",
        "tests/unit/test_build_run.py::test_faces_of_a_validation_source_are_spread_over_it",
    ),
    Fault(
        "every round continues from round 0",
        "idm/config/assembly/extrinsic.py",
        'f"round_{number - 1}")\n            initial',
        '"round_0")\n            initial',
        "tests/unit/test_rounds.py::test_a_round_that_continues_has_the_weights_of_the_round_before",
    ),
    Fault(
        "init_from instead of the round before",
        "idm/config/assembly/intrinsic.py",
        "if initial is None and train.init_from",
        "if train.init_from",
        "tests/unit/test_wiring.py::test_the_weights_of_a_round_come_before_those_of_init_from",
    ),
    Fault(
        "a round that was killed counts as finished",
        "idm/config/assembly/extrinsic.py",
        ' and json.loads(result.read_text())["step"] == config.train.num_steps:',
        ":",
        "tests/unit/test_rounds.py::test_a_round_is_trained_until_its_last_step_has_validated",
    ),
    # idm/training
    Fault(
        "settings of lost steps kept in the history",
        "idm/training/log.py",
        '    rows = [row for row in rows if row["step"] <= step]\n',
        "",
        "tests/unit/test_run.py::test_a_history_keeps_no_settings_of_steps_that_were_lost",
    ),
    Fault(
        "a step that waits for the copy of the noise levels",
        "idm/training/learner.py",
        "level = on_device(gamma, x_0.device)",
        "level = gamma.to(x_0.device)",
        "tests/unit/test_transfers.py",
    ),
    Fault(
        "warm-up that begins with a rate of 0",
        "idm/training/learner.py",
        "self.learning_rate * (step + 1) / self.warmup_steps",
        "self.learning_rate * step / self.warmup_steps",
        "tests/unit/test_learner.py",
    ),
    Fault(
        "noise from a sample's place in the batch",
        "idm/training/learner.py",
        "training_noise(self.seed, batch.positions, x_0)",
        "training_noise(self.seed, range(len(x_0)), x_0)",
        "tests/unit/test_learner.py",
    ),
    Fault(
        "averages never updated",
        "idm/training/learner.py",
        "        self.ema.update(self._parameters(), step, updated)\n",
        "",
        "tests/unit/test_learner.py",
    ),
    Fault(
        "averages not restored",
        "idm/training/learner.py",
        "        self.ema.restore(self.pipeline.denoiser.parameters())\n",
        "",
        "tests/unit/test_learner.py",
    ),
    Fault(
        "losses in mixed precision",
        "idm/training/learner.py",
        "        return training_loss(\n            self.model,",
        '        torch.set_autocast_enabled("cpu", True)\n        return training_loss(\n            self.model,',
        "tests/unit/test_learner.py::test_in_mixed_precision_the_network_computes_in_bfloat16_and_its_losses_in_float32",
    ),
    Fault(
        "networks not in mixed precision",
        "idm/training/learner.py",
        "accelerator.prepare(denoiser, optimizer)",
        "denoiser, accelerator.prepare(optimizer)",
        "tests/unit/test_learner.py::test_in_mixed_precision_the_network_computes_in_bfloat16_and_its_losses_in_float32",
    ),
    Fault(
        "critic judges estimates at the start too",
        "idm/training/learner.py",
        "judgeable = ((gamma > self.gammas[-1])",
        "judgeable = ((gamma >= self.gammas[-1])",
        "tests/unit/test_adversary.py",
    ),
    Fault(
        "critic compares originals with themselves",
        "idm/training/learner.py",
        "estimate[refined].detach()))",
        "x_0[refined]))",
        "tests/unit/test_adversary.py",
    ),
    Fault(
        "R1 in bfloat16",
        "idm/training/adversarial.py",
        "PatchCritic.forward(critic, images)",
        "critic(images)",
        "tests/unit/test_adversary.py",
    ),
    Fault(
        "updates with gradients that are not finite",
        "idm/training/updates.py",
        "(~torch.isfinite(norm)).float()",
        "torch.zeros_like(norm)",
        "tests/unit/test_learner.py",
    ),
    Fault(
        "weights saved that are not finite",
        "idm/training/loop.py",
        "if not all_finite(self.learner.tensors()):",
        "if False:",
        "tests/unit/test_run.py",
    ),
    Fault(
        "the best checkpoint is the newest",
        "idm/training/validation.py",
        'if sign * score > sign * run_folder.best_score(checkpoints, self.best, worst=-sign * float("inf")):',
        "if sign:",
        "tests/unit/test_run.py",
    ),
    Fault(
        "averages that start with their whole decay",
        "idm/training/ema.py",
        "min(self.decay, (1 + step) / (10 + step)) if step else 0.0",
        "self.decay",
        "tests/unit/test_ema.py",
    ),
    Fault(
        "training seconds that include validation",
        "idm/training/loop.py",
        "            run_folder.prune(self.checkpoints, self.settings.keep_checkpoints)\n        self._tick()\n",
        "            run_folder.prune(self.checkpoints, self.settings.keep_checkpoints)\n",
        "tests/unit/test_run.py::test_the_seconds_of_training_leave_out_saving_and_validation",
    ),
    Fault(
        "a broken mark of the best kept",
        "idm/training/loop.py",
        "            if self.validation is not None:\n                mark_best",
        "            if False:\n                mark_best",
        "tests/unit/test_run.py::test_a_run_with_a_broken_mark_of_the_best_resumes_and_finds_it_anew",
    ),
    Fault(
        "noise of every validation from one seed",
        "idm/training/validation.py",
        "seed=self.seed)",
        "seed=0)",
        "tests/unit/test_run.py::test_the_seed_of_a_validation_is_that_of_its_noise",
    ),
    Fault(
        "skipped updates of the critic not counted",
        "idm/training/learner.py",
        "else torch.maximum(skipped, self.adversary.skipped)",
        "else skipped",
        "tests/unit/test_adversary.py::test_an_update_of_the_critic_that_is_not_finite_is_skipped_and_counted",
    ),
    # idm/extrinsic
    Fault(
        "the gate forgets what x* may lose in sharpness",
        "idm/extrinsic/gate.py",
        "if not sharper >= -gate.max_sharpness_loss:",
        "if not sharper >= -1:",
        "tests/unit/test_gate.py",
    ),
    Fault(
        "unreadable faces left out of the hash of a source",
        "idm/extrinsic/clean.py",
        "origin.update(digest.encode())\n",
        'origin.update(b"" if isinstance(face, ImageError) else digest.encode())\n',
        "tests/unit/test_clean_attacks.py::test_a_job_with_unreadable_faces_resumes",
    ),
    Fault(
        "every process reads all parts of a stream that is cleaned",
        "idm/extrinsic/job.py",
        "shards[len(shards) * rank // world : len(shards) * (rank + 1) // world]",
        "shards[rank::world]",
        "tests/unit/test_clean_streams.py",
    ),
    Fault(
        "a part of a stream that has grown not noticed",
        "idm/extrinsic/stream.py",
        "if self.source.parts > 1 and index",
        "if False and index",
        "tests/unit/test_clean_streams.py",
    ),
    # idm/io
    Fault(
        "a checkpoint without its hashes used",
        "idm/io/run_folder.py",
        "if hashed and not",
        "if False and not",
        "tests/unit/test_checkpoint.py",
    ),
    # idm/faces
    Fault(
        "a warp's samples half a pixel off",
        "idm/faces/align.py",
        "(np.arange(side * num_samples) + 0.5) / num_samples - 0.5 for",
        "(np.arange(side * num_samples) + 0.5) / num_samples for",
        "tests/property/test_paste.py",
    ),
    Fault(
        "the cubic of OpenCV, which moves edges",
        "idm/faces/align.py",
        "(-0.5 * t + t2 - 0.5 * t3, 1 - 2.5 * t2 + 1.5 * t3, 0.5 * t + 2 * t2 - 1.5 * t3, -0.5 * t2 + 0.5 * t3)",
        "(1.5*t2-.75*(t+t3), 1-2.25*t2+1.25*t3, .75*t+1.5*t2-1.25*t3, .75*(t3-t2))",
        "tests/property/test_paste.py",
    ),
    Fault(
        "the origin of a tile forgotten",
        "idm/faces/paste.py",
        "        to_tile[:, 2] -= origin\n",
        "",
        "tests/property/test_paste.py",
    ),
    Fault(
        "overlapping faces added up",
        "idm/faces/paste.py",
        "np.divide(weight**2, total,",
        "np.divide(weight * total, total,",
        "tests/property/test_paste.py",
    ),
    Fault(
        "a line instead of a parabola, which cuts the turns",
        "idm/faces/track.py",
        "min(degree + 1, len(times))",
        "min(degree, len(times))",
        "tests/unit/test_track.py",
    ),
    # gan_baseline
    Fault(
        "component critics trained at the rate of the other critic",
        "gan_baseline/build.py",
        "build_adam(config, train.component_learning_rate, train.component_betas)",
        "build_adam(config, train.discriminator_learning_rate, train.component_betas)",
        f"{GAN_WIRING}[GANTrainConfig.component_learning_rate]",
    ),
    Fault(
        "a generator that helps its relativistic critic",
        "gan_baseline/adversary.py",
        "relativistic_logistic(network(fake), of_real)",
        "relativistic_logistic(of_real, network(fake))",
        f"{GAN_LEARNER}::test_a_relativistic_discriminator_compares_each_face_with_its_original",
    ),
    Fault(
        "a generator that helps its relativistic component critics",
        "gan_baseline/adversary.py",
        "relativistic_logistic(fakes[name][0], reals[name][0], known)",
        "relativistic_logistic(reals[name][0], fakes[name][0], known)",
        f"{GAN_LEARNER}::test_relativistic_component_critics_compare_patches_of_known_faces_with_the_originals",
    ),
    Fault(
        "a grown prior whose new RGB head begins at random",
        "gan_baseline/prior.py",
        "    nn.init.zeros_(head.modulated_conv.weight)\n",
        "",
        f"{GAN_LEARNER}::test_a_grown_prior_begins_as_the_smaller_one_enlarged",
    ),
    Fault(
        "a critic that grows at its coarse end",
        "gan_baseline/prior.py",
        "{int(found[1]) + 1}",
        "{int(found[1])}",
        f"{GAN_LEARNER}::test_a_grown_prior_begins_as_the_smaller_one_enlarged",
    ),
    Fault(
        "a grown critic whose colours are cut by its first leaky ReLU",
        "gan_baseline/prior.py",
        "first, block, raised = discriminator.first, discriminator.blocks[0], 1.5",
        "first, block, raised = discriminator.first, discriminator.blocks[0], 0.5",
        f"{GAN_LEARNER}::test_a_grown_prior_begins_as_the_smaller_one_enlarged",
    ),
    Fault(
        "R1 at its default interval",
        "gan_baseline/build.py",
        "        r1_every=losses.r1_every,\n",
        "        r1_every=16,\n",
        f"{GAN_WIRING}[LossesConfig.r1_every]",
    ),
    Fault(
        "gradients never clipped",
        "gan_baseline/build.py",
        "train.milestones, train.decay_factor, train.max_grad_norm)",
        "train.milestones, train.decay_factor, None)",
        f"{GAN_WIRING}[GANTrainConfig.max_grad_norm]",
    ),
    Fault(
        "weight of the style loss not passed on",
        "gan_baseline/build.py",
        "            style=losses.style,\n            identity",
        "            style=50.0,\n            identity",
        f"{GAN_WIRING}[LossesConfig.style]",
    ),
    Fault(
        "decay of the average of the baseline not passed on",
        "gan_baseline/build.py",
        "        ema_decay=train.ema_decay,\n        fix_decoder",
        "        ema_decay=0.99,\n        fix_decoder",
        f"{GAN_WIRING}[GANTrainConfig.ema_decay]",
    ),
    Fault(
        "demodulation forgotten",
        "gan_baseline/stylegan2.py",
        "return torch.rsqrt(s.square() @ squares.T + 1e-8)",
        "return s.new_ones(len(s), len(squares))",
        "tests/unit/test_gan_networks.py",
    ),
    Fault(
        "the wrong half of the channels transformed",
        "gan_baseline/stylegan2.py",
        "[x[:, :identity], torch.addcmul(shift, x[:, identity:], scale)]",
        "[torch.addcmul(shift, x[:, :identity], scale), x[:, identity:]]",
        "tests/unit/test_gan_networks.py",
    ),
    Fault(
        "scale and shift exchanged",
        "gan_baseline/gfpgan.py",
        "(self.condition_scale[i](h), self.condition_shift[i](h))",
        "(self.condition_shift[i](h), self.condition_scale[i](h))",
        "tests/unit/test_gan_networks.py",
    ),
    Fault(
        "unbiased deviation within a group",
        "idm/models/critics.py",
        "var(dim=0, unbiased=False)",
        "var(dim=0, unbiased=True)",
        "tests/unit/test_critics.py",
    ),
    Fault(
        "blur of the skip off by a pixel",
        "idm/models/critics.py",
        "blur(x, padding=1, stride=2)",
        "blur(x, padding=2, stride=2)[..., 1:, 1:]",
        "tests/unit/test_critics.py",
    ),
    Fault(
        "real and fake exchanged",
        "idm/diffusion/adversarial.py",
        "return mean_over_faces(F.softplus(-real), known) + mean_over_faces(F.softplus(fake), known)",
        "return mean_over_faces(F.softplus(real), known) + mean_over_faces(F.softplus(-fake), known)",
        "tests/unit/test_adversarial.py",
    ),
    Fault(
        "R1 averaged over pixels",
        "idm/diffusion/adversarial.py",
        "return gradient.square().sum(dim=(1, 2, 3)).mean()",
        "return gradient.square().mean()",
        "tests/unit/test_adversarial.py",
    ),
    Fault(
        "Gram matrix not normalised",
        "gan_baseline/losses.py",
        " / (flat.shape[1] * flat.shape[2])",
        "",
        "tests/unit/test_gan_losses.py",
    ),
    # idm/degradation
    Fault(
        "noise in units of 1 instead of 1/255",
        "idm/degradation/operations.py",
        "* np.float32(sigma / 255)",
        "* np.float32(sigma)",
        "tests/unit/test_degradation.py",
    ),
    Fault(
        "blur does not scale with the face",
        "idm/degradation/steps.py",
        "return operations.blur(image, kernels.gaussian_taps(sigma_x * frame.scale, radius))",
        "return operations.blur(image, kernels.gaussian_taps(sigma_x, radius))",
        "tests/unit/test_degradation.py",
    ),
    Fault(
        "the sinc kernel without its 1/r",
        "idm/degradation/kernels.py",
        "/ (2 * np.pi * distance)",
        "/ (2 * np.pi)",
        "tests/unit/test_degradation.py",
    ),
]


def copy_repository(folder: Path) -> None:
    left_out = shutil.ignore_patterns("__pycache__", ".*cache")
    for name in COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=left_out)
        elif source.exists():
            shutil.copy(source, folder / name)


def run_tests(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest in the copy, with the copy's packages instead of the installed ones."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    options = ("-n0", "-x", "-q", "--tb=no", "--import-mode=importlib", "-p", "no:cacheprovider")
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def require_the_copy(folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    where = "import idm; print(idm.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", where], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    if not Path(done.stdout.strip()).resolve().is_relative_to(folder.resolve()):
        raise SystemExit(f"the tests would run on {done.stdout.strip()} instead of the copy")


def verdict(folder: Path, fault: Fault) -> str:
    """Either "caught by" and the first test that failed, or "MISSED" and why."""
    path = folder / fault.file
    if not path.exists() or not fault.has_tests(folder):
        return "MISSED (no such file)"
    text = path.read_text()
    if text.count(fault.old) != 1:
        return f"MISSED (old text found {text.count(fault.old)} times)"
    path.write_text(text.replace(fault.old, fault.new))
    try:
        done = run_tests(folder, fault.tests)
    except subprocess.TimeoutExpired:
        return f"MISSED (the tests ran longer than {SECONDS} s)"
    finally:
        path.write_text(text)
    if done.returncode == 0:
        return "MISSED"
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    if done.returncode != 1 or not failed:
        return f"MISSED (the tests could not run: {(done.stdout + done.stderr).strip()[-300:]})"
    if "[XPASS(strict)]" in failed[0]:
        return f"MISSED (only a known fault went away: {failed[0]})"
    return f"caught by {failed[0].partition('::')[2].partition(' - ')[0]}"


def main(words: list[str]) -> int:
    chosen = [f for f in FAULTS if not words or any(w.lower() in f"{f.name} {f.file}".lower() for w in words)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copy_repository(folder)
        require_the_copy(folder)
        present = sorted({fault.tests for fault in chosen if fault.has_tests(folder)})
        unchanged = run_tests(folder, *present)
        if unchanged.returncode != 0:
            print(f"the tests fail without any fault:\n{unchanged.stdout[-2000:]}{unchanged.stderr[-2000:]}")
            return 1
        missed = 0
        for fault in chosen:
            found = verdict(folder, fault)
            missed += not found.startswith("caught by ")
            print(f"{fault.file}: {fault.name}\n    {found}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
