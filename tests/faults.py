"""Do the tests bite? Wrong edits, each of which must make a named test file fail.

    python tests/faults.py            all of them
    python tests/faults.py gamma ema  those with one of these words in their name or file

Every fault is set into a copy of the repository in a temporary folder, where the named tests then run;
nothing is changed in place. The unchanged copy must pass first. The exit code is 1 if any fault was missed
or no longer fits the code. To add one: a row below, under its file; ``old`` must occur there exactly once.
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


@dataclass(frozen=True)
class Fault:
    name: str
    file: str
    old: str
    new: str
    tests: str


FAULTS = [
    # ---------------------------------------------------------------------------------------------------- idm/extrinsic
    Fault(
        "the gate forgets what x* may lose in sharpness",
        "idm/extrinsic/gate.py",
        "if not sharper >= -gate.max_sharpness_loss:",
        "if not sharper >= -1:",
        "tests/unit/test_gate.py",
    ),
    Fault(
        "the gate takes what is no better",
        "idm/extrinsic/gate.py",
        'return Decision(True, "better") if better else Decision(False, "no better")',
        'return Decision(True, "better")',
        "tests/unit/test_gate.py",
    ),
    Fault(
        "x* stored where x should stay",
        "idm/extrinsic/clean.py",
        "return CleanedFace(restored if decision.accepted else face.image, face.landmarks, entry)",
        "return CleanedFace(restored, face.landmarks, entry)",
        "tests/unit/test_clean.py",
    ),
    Fault(
        "a shard written in place",
        "idm/extrinsic/shards.py",
        'draft = path.with_name(f".unfinished-{uuid.uuid4().hex}-{path.name}")',
        "draft = path",
        "tests/unit/test_clean.py",
    ),
    Fault(
        "a blank picture that divides by zero",
        "idm/extrinsic/gate.py",
        "max(before.sharpness, 1e-6)",
        "before.sharpness",
        "tests/unit/test_clean.py",
    ),
    Fault(
        "a manifest split at the line separators of names",
        "idm/extrinsic/manifest.py",
        "for line in lines]",
        "for line in lines.read().splitlines()]",
        "tests/unit/test_clean.py",
    ),
    Fault(
        "another job mixed into the folder",
        "idm/extrinsic/clean.py",
        "            if changed:\n",
        "            if False:\n",
        "tests/unit/test_clean.py",
    ),
    Fault(
        "the seed of a face forgets its number",
        "idm/extrinsic/clean.py",
        "np.random.SeedSequence([0x636C65616E, seed, index, sample])",
        "np.random.SeedSequence([0x636C65616E, seed, sample])",
        "tests/unit/test_clean.py",
    ),
    Fault(
        "the pool takes P_X for P_X*",
        "idm/data/mixing.py",
        "source = self.new if drawn <",
        "source = self.old if drawn <",
        "tests/unit/test_mixing.py",
    ),
    Fault(
        "the share rises with positions instead of steps",
        "idm/data/mixing.py",
        "self.share(position // self.batch_size)",
        "self.share(position)",
        "tests/unit/test_mixing.py",
    ),
    Fault(
        "a worse round does not stop the rounds",
        "idm/extrinsic/rounds.py",
        "            if self.stopped is not None:\n                return\n",
        "",
        "tests/unit/test_rounds.py",
    ),
    Fault(
        "a Frechet distance without its means",
        "idm/evaluation/frechet.py",
        "((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + spread",
        "spread",
        "tests/unit/test_frechet.py",
    ),
    # ---------------------------------------------------------------------------------------- idm/diffusion/schedule.py
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
    # ----------------------------------------------------------------------------------------- idm/diffusion/process.py
    Fault(
        "forgotten sqrt in the coefficients",
        "idm/diffusion/process.py",
        "signal, noise = gamma.sqrt(), (1 - gamma).sqrt()",
        "signal, noise = gamma, 1 - gamma",
        "tests/unit/test_process.py",
    ),
    Fault(
        "add_noise in the images' own precision",
        "idm/diffusion/process.py",
        "return signal * x_0.float() + noise * eps.float()",
        "return (signal.to(x_0.dtype) * x_0 + noise.to(x_0.dtype) * eps).float()",
        "tests/parity/test_diffusion.py",
    ),
    Fault(
        "v with the wrong sign",
        "idm/diffusion/process.py",
        "return signal * eps.float() - noise * x_0.float()",
        "return signal * eps.float() + noise * x_0.float()",
        "tests/parity/test_diffusion.py",
    ),
    Fault(
        "x_0 from v with the wrong sign",
        "idm/diffusion/process.py",
        "return signal * x_t - noise * output",
        "return signal * x_t + noise * output",
        "tests/property/test_diffusion.py",
    ),
    # --------------------------------------------------------------------------------------- idm/diffusion/objective.py
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
    # -------------------------------------------------------------------------------------- idm/diffusion/schedulers.py
    Fault(
        "chains begin one step below the noisiest",
        "idm/diffusion/schedulers.py",
        "return levels.round().long() - 1",
        "return (levels.round().long() - 2).clamp(min=0)",
        "tests/unit/test_samplers.py",
    ),
    Fault(
        "ddim goes to t - T // num_steps",
        "idm/diffusion/schedulers.py",
        "        t_next = next_timestep(self.timesteps, t)\n        levels =",
        "        t_next = t - len(self.alphas_cumprod) // self.num_inference_steps\n        levels =",
        "tests/property/test_diffusion.py",
    ),
    Fault(
        "ddim keeps its noise when it adds fresh noise",
        "idm/diffusion/schedulers.py",
        "max(0.0, 1 - float(gamma_next) - sigma**2)",
        "max(0.0, 1 - float(gamma_next))",
        "tests/parity/test_diffusion.py",
    ),
    Fault(
        "gamma and t off by one in langevin",
        "idm/diffusion/schedulers.py",
        "float(self.gammas[t + 1]), float(self.gammas[t_next + 1])",
        "float(self.gammas[t]), float(self.gammas[max(t_next, 0)])",
        "tests/parity/test_diffusion.py",
    ),
    Fault(
        "noise added at the last langevin step",
        "idm/diffusion/schedulers.py",
        "        if t_next >= 0:\n",
        "        if t_next >= -1:\n",
        "tests/property/test_diffusion.py",
    ),
    Fault(
        "variance instead of deviation in the langevin step",
        "idm/diffusion/schedulers.py",
        "mean + (1 - alpha) ** 0.5 * noise",
        "mean + (1 - alpha) * noise",
        "tests/parity/test_diffusion.py",
    ),
    # ---------------------------------------------------------------------------------------- idm/diffusion/samplers.py
    Fault(
        "x_0 not clipped",
        "idm/diffusion/samplers.py",
        "x, gamma).clamp(-1, 1)",
        "x, gamma)",
        "tests/unit/test_samplers.py",
    ),
    Fault(
        "one generator for the whole batch",
        "idm/diffusion/samplers.py",
        "x = randn_tensor(x_d.shape, generator=list(generators),",
        "x = randn_tensor(x_d.shape, generator=generators[0],",
        "tests/unit/test_pipeline.py",
    ),
    Fault(
        "later noise from one generator",
        "idm/diffusion/samplers.py",
        '{"generator": list(generators), "eta": eta}',
        '{"generator": generators[0], "eta": eta}',
        "tests/unit/test_pipeline.py",
    ),
    Fault(
        "strength counted from the start of the chain",
        "idm/diffusion/samplers.py",
        "timesteps = [int(t) for t in scheduler.timesteps[first:num_steps]]",
        "timesteps = [int(t) for t in scheduler.timesteps[: num_steps - first]]",
        "tests/unit/test_samplers.py",
    ),
    Fault(
        "the timestep -1 kept that rounding appends",
        "idm/diffusion/samplers.py",
        "scheduler.timesteps[first:num_steps]]",
        "scheduler.timesteps[first:]]",
        "tests/unit/test_samplers.py",
    ),
    Fault(
        "trailing spacing lost",
        "idm/diffusion/samplers.py",
        'UniPCMultistepScheduler(**common, timestep_spacing="trailing",',
        'UniPCMultistepScheduler(**common, timestep_spacing="leading",',
        "tests/unit/test_samplers.py",
    ),
    Fault(
        "degraded start without noise",
        "idm/diffusion/samplers.py",
        "x = add_noise(x_d, x, levels[timesteps[0]].expand(len(x_d)))",
        "x = x_d",
        "tests/unit/test_samplers.py",
    ),
    # --------------------------------------------------------------------------------------------- idm/models/layers.py
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
        "norm over the batch",
        "idm/models/layers.py",
        "return x + h\n",
        "return x + h - h.mean(dim=0)\n",
        "tests/property/test_denoiser.py",
    ),
    # --------------------------------------------------------------- idm/restorers/export.py, idm/restorers/backends.py
    Fault(
        "a graph that gives NaN passes its check",
        "idm/restorers/export.py",
        "if not difference <= TOLERANCE[dtype]:",
        "if difference > TOLERANCE[dtype]:",
        "tests/unit/test_backends.py",
    ),
    Fault(
        "a graph is checked for the batch only that it was traced with",
        "idm/restorers/export.py",
        "for samples in ([0], [0, 1], [1, 0, 1]):",
        "for samples in ([0, 1],):",
        "tests/unit/test_backends.py",
    ),
    Fault(
        "the file is in place before its check",
        "idm/restorers/export.py",
        "        difference = check(graph, run_by_onnxruntime(draft), torch.float32)\n        draft.replace(path)",
        "        draft.replace(path)\n        difference = check(graph, run_by_onnxruntime(path), torch.float32)",
        "tests/unit/test_backends.py",
    ),
    Fault(
        "gamma is embedded in float32",
        "idm/restorers/backends.py",
        "self._denoiser.embed_gamma(gamma)}",
        "self._denoiser.embed_gamma(gamma.float())}",
        "tests/unit/test_backends.py",
    ),
    Fault(
        "OpenVINO computes in bfloat16, whatever was asked",
        "idm/restorers/backends.py",
        '"bf16" if dtype == torch.bfloat16 else "f32"',
        '"bf16"',
        "tests/unit/test_backends.py",
    ),
    Fault(
        "the pipeline goes on with PyTorch",
        "idm/restorers/pipeline.py",
        "self.exported or self.denoiser.eval(),",
        "self.denoiser.eval(),",
        "tests/unit/test_backends.py",
    ),
    # ----------------------------------------------------------------------------------------------- idm/models/unet.py
    Fault(
        "condition forgotten",
        "idm/models/unet.py",
        "torch.cat([patches_d, patches], dim=1)",
        "torch.cat([patches, patches], dim=1)",
        "tests/property/test_denoiser.py",
    ),
    Fault(
        "no attention in the decoder",
        "idm/models/unet.py",
        "h = self._run(self.decoder[i], h, embedding)",
        "h = self._run(self.decoder[i][:1], h, embedding)",
        "tests/property/test_denoiser.py",
    ),
    Fault(
        "padding not cropped from the right side",
        "idm/models/unet.py",
        "output = h[..., :height, :width].float()",
        "output = h[..., -height:, -width:].float()",
        "tests/property/test_denoiser.py",
    ),
    # --------------------------------------------------------------------------------------------------------- idm/data
    Fault(
        "flip without moving the landmarks",
        "idm/data/pairs.py",
        "np.array([image.shape[1] - 1, 0], np.float32) + np.array([-1, 1], np.float32) * points[order]",
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
    # ------------------------------------------------------------------------------------------------------- idm/config
    Fault(
        "unknown keys accepted",
        "idm/config/schema.py",
        'extra="forbid"',
        'extra="ignore"',
        "tests/unit/test_config.py",
    ),
    Fault(
        "1e-4 read as text",
        "idm/config/load.py",
        'list("-+0123456789."),',
        'list("x"),',
        "tests/unit/test_config.py",
    ),
    Fault(
        "old fields kept when a choice is switched",
        "idm/config/load.py",
        "        node.clear()\n",
        "        pass\n",
        "tests/unit/test_config.py",
    ),
    # ---------------------------------------------------------------------------------------- idm/restorers/pipeline.py
    Fault(
        "eta=0 taken for not given",
        "idm/restorers/pipeline.py",
        "eta=defaults.eta if eta is None else eta",
        "eta=eta or defaults.eta",
        "tests/unit/test_pipeline.py",
    ),
    # ------------------------------------------------------------------------------------------- idm/restorers/saved.py
    Fault(
        "shapes of weights not compared",
        "idm/restorers/saved.py",
        "if wanted.get(name) != found.get(name))",
        "if name not in found)",
        "tests/unit/test_pretrained.py",
    ),
    # ----------------------------------------------------------------------------------------------------- idm/training
    Fault(
        "gradients not cleared",
        "idm/training/learner.py",
        "                self.optimizer.zero_grad(set_to_none=True)\n",
        "",
        "tests/golden/test_training.py",
    ),
    Fault(
        "gradients not clipped",
        "idm/training/learner.py",
        "self.model.parameters(), self.optimisation.max_grad_norm",
        "self.model.parameters(), float('inf')",
        "tests/unit/test_learner.py",
    ),
    Fault(
        "EMA decay swapped",
        "idm/training/learner.py",
        "decay=optimisation.ema_decay",
        "decay=1 - optimisation.ema_decay",
        "tests/unit/test_learner.py",
    ),
    Fault(
        "EMA never stepped",
        "idm/training/learner.py",
        "        self.ema.step(self._parameters())\n",
        "",
        "tests/unit/test_learner.py",
    ),
    Fault(
        "noise from the first position for all",
        "idm/training/learner.py",
        "number = seed_of(seed, position)",
        "number = seed_of(seed, positions[0])",
        "tests/unit/test_learner.py",
    ),
    Fault(
        "EMA not restored on resume",
        "idm/training/learner.py",
        "            shadow.copy_(whole)\n",
        "            pass\n",
        "tests/unit/test_learner.py",
    ),
    Fault(
        "the best checkpoint pruned",
        "idm/io/run_folder.py",
        "        if checkpoint != best:\n",
        "        if checkpoint:\n",
        "tests/unit/test_checkpoint.py",
    ),
    Fault(
        "half a checkpoint left after an error",
        "idm/io/run_folder.py",
        "        shutil.rmtree(draft, ignore_errors=True)\n",
        "",
        "tests/unit/test_checkpoint.py",
    ),
    # --------------------------------------------------------------------------------------------------- idm/evaluation
    Fault(
        "the clock stops before the faces are there",
        "idm/evaluation/engine.py",
        "    restored = restorer.restore(lq, seeds).cpu()\n    seconds = (perf_counter() - begun) / len(seeds)\n",
        "    restored = restorer.restore(lq, seeds)\n    seconds = (perf_counter() - begun) / len(seeds)\n"
        "    restored = restored.cpu()\n",
        "tests/unit/test_compare.py",
    ),
    Fault(
        "every face of a comparison is drawn with one seed",
        "idm/evaluation/compare.py",
        "[seed + i for i in indices]",
        "[seed for i in indices]",
        "tests/unit/test_compare.py",
    ),
    # ----------------------------------------------------------------------------------------------------- gan_baseline
    Fault(
        "the critic of components without its last bias",
        "idm/models/critics.py",
        "EqualisedConv2d(256, 1, 3, activate=False)",
        "EqualisedConv2d(256, 1, 3, bias=False, activate=False)",
        "tests/unit/test_critics.py",
    ),
    Fault(
        "demodulation forgotten",
        "gan_baseline/stylegan2.py",
        "return torch.rsqrt(s.square() @ squares.T + 1e-8)",
        "return s.new_ones(len(s), len(squares))",
        "tests/unit/test_gan_networks.py",
    ),
    Fault(
        "demodulation by the unscaled filters",
        "gan_baseline/stylegan2.py",
        "torch.rsqrt(s.square() @ squares.T + 1e-8)",
        "torch.rsqrt(torch.ones_like(s) @ squares.T + 1e-8)",
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
        "the RGB head reads its own convolution's code",
        "gan_baseline/stylegan2.py",
        "image = to_rgb(h, codes[:, 2 * i + 3], image)",
        "image = to_rgb(h, codes[:, 2 * i + 2], image)",
        "tests/parity/test_gan.py",
    ),
    Fault(
        "the sqrt(2) of a styled convolution forgotten",
        "gan_baseline/stylegan2.py",
        "self.bias, gain=sqrt(2))",
        "self.bias)",
        "tests/parity/test_gan.py",
    ),
    Fault(
        "z not normalised",
        "gan_baseline/stylegan2.py",
        "mapping: list[nn.Module] = [NormaliseCode()]",
        "mapping: list[nn.Module] = [nn.Identity()]",
        "tests/unit/test_gan_networks.py",
    ),
    Fault(
        "noise maps shared within a batch",
        "gan_baseline/stylegan2.py",
        "generator=generator, device=generator.device) for generator in generators]",
        "generator=generators[0], device=generator.device) for generator in generators]",
        "tests/unit/test_gan_networks.py",
    ),
    Fault(
        "skips added after the block",
        "gan_baseline/gfpgan.py",
        "h = block(h + skips.pop())",
        "h = block(h)",
        "tests/parity/test_gan.py",
    ),
    Fault(
        "scale and shift exchanged",
        "gan_baseline/gfpgan.py",
        "(self.condition_scale[i](h), self.condition_shift[i](h))",
        "(self.condition_shift[i](h), self.condition_scale[i](h))",
        "tests/unit/test_gan_networks.py",
    ),
    Fault(
        "the transform begins at scale 0",
        "gan_baseline/gfpgan.py",
        "start=1.0)",
        "start=0.0)",
        "tests/unit/test_gan_networks.py",
    ),
    Fault(
        "nearest neighbours instead of bilinear",
        "gan_baseline/gfpgan.py",
        "h, skip = self.conv2(upsample(h)), upsample(self.skip(x))",
        "h, skip = self.conv2(F.interpolate(h, scale_factor=2)), upsample(self.skip(x))",
        "tests/parity/test_gan.py",
    ),
    Fault(
        "unbiased deviation within a group",
        "idm/models/critics.py",
        "var(dim=0, unbiased=False)",
        "var(dim=0, unbiased=True)",
        "tests/unit/test_critics.py",
    ),
    Fault(
        "images of a group one after another, values not",
        "idm/models/critics.py",
        "x[first::num_groups]",
        "x[first * group_size : (first + 1) * group_size]",
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
        "the gain of a biased critic layer misses its bias",
        "idm/models/critics.py",
        "self.gain * self.bias",
        "1 * self.bias",
        "tests/unit/test_critics.py",
    ),
    Fault(
        "half a gradient to the critic's input",
        "idm/models/critics.py",
        "self.first(x.contiguous(memory_format=torch.channels_last))",
        "self.first(0.5 * (x + x.detach()))",
        "tests/unit/test_critics.py",
    ),
    Fault(
        "another architecture exported",
        "gan_baseline/weights.py",
        "if value != PUBLISHED[name]",
        'if name == "narrow" and value != PUBLISHED[name]',
        "tests/unit/test_gan_weights.py",
    ),
    Fault(
        "gaps filled with whatever is there",
        "idm/io/weights.py",
        "wrong = sorted(name for name in wanted.keys() | found.keys()",
        "wrong = sorted(name for name in wanted.keys() & found.keys()",
        "tests/unit/test_gan_weights.py",
    ),
    Fault(
        "weights written in place",
        "gan_baseline/weights.py",
        'draft = path.with_name(f".{path.name}.part")',
        "draft = path",
        "tests/unit/test_gan_weights.py",
    ),
    Fault(
        "pickled code run",
        "idm/io/weights.py",
        "weights_only=True",
        "weights_only=False",
        "tests/unit/test_gan_weights.py",
    ),
    # ---------------------------------------------------------------------------------- photographs: faces, files, jobs
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
        "enlargement without its half pixel",
        "idm/apps/photo/restorer.py",
        "0.5 * factors - 0.5]",
        "0 * factors]",
        "tests/unit/test_photo.py",
    ),
    Fault(
        "the guard the wrong way round",
        "idm/apps/photo/face.py",
        "self.identity >= settings.min_identity",
        "self.identity <= settings.min_identity",
        "tests/unit/test_photo.py",
    ),
    Fault(
        "every sample drawn with one seed",
        "idm/apps/photo/restorer.py",
        "(face, settings.seed + k)",
        "(face, settings.seed)",
        "tests/unit/test_photo.py",
    ),
    Fault(
        "a broken face pasted",
        "idm/apps/photo/face.py",
        '            self.failure = f"the restorer gave',
        '            _ = f"the restorer gave',
        "tests/unit/test_photo.py",
    ),
    Fault(
        "points of the copy scaled without half a pixel",
        "idm/faces/detect.py",
        ".reshape(-1, 2) + 0.5) * factors - 0.5",
        ".reshape(-1, 2)) * factors",
        "tests/unit/test_detect.py",
    ),
    Fault(
        "two orientations exchanged",
        "idm/io/photos.py",
        "orientation in (2, 3, 6, 7)",
        "orientation in (2, 3, 8, 7)",
        "tests/unit/test_photos.py",
    ),
    Fault(
        "a photograph of which a face failed counted as restored",
        "idm/apps/photo/files.py",
        "    if broken:\n",
        "    if False:\n",
        "tests/e2e/test_photos.py",
    ),
    Fault(
        "what is there done again",
        "idm/apps/photo/job.py",
        "            del self.todo[source]\n",
        "",
        "tests/unit/test_job.py",
    ),
    # ------------------------------------------------------------------------------------------- gan_baseline/losses.py
    Fault(
        "generator's logistic loss with the wrong sign",
        "idm/diffusion/adversarial.py",
        "return mean_over_faces(F.softplus(-fake), known)",
        "return mean_over_faces(F.softplus(fake), known)",
        "tests/unit/test_adversarial.py",
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
        "R1 that cannot be differentiated again",
        "idm/diffusion/adversarial.py",
        "create_graph=True)",
        "create_graph=False)",
        "tests/unit/test_adversarial.py",
    ),
    Fault(
        "Gram matrix not normalised",
        "gan_baseline/losses.py",
        " / (flat.shape[1] * flat.shape[2])",
        "",
        "tests/unit/test_gan_losses.py",
    ),
    Fault(
        "pyramid loss one step too long",
        "gan_baseline/losses.py",
        "return weight if step < until else after",
        "return weight if step <= until else after",
        "tests/unit/test_gan_losses.py",
    ),
    Fault(
        "faces without landmarks counted",
        "idm/diffusion/adversarial.py",
        "(per_face if known is None else known * per_face).mean()",
        "per_face.mean()",
        "tests/unit/test_adversarial.py",
    ),
    Fault(
        "contrast about black instead of the mean",
        "idm/diffusion/adversarial.py",
        "return torch.lerp(images.mean(dim=(1, 2, 3), keepdim=True), images, contrast + 0.5)",
        "return images * (contrast + 0.5)",
        "tests/unit/test_adversarial.py",
    ),
    Fault(
        "a cutout that never reaches the edge",
        "idm/diffusion/adversarial.py",
        "first = torch.tensor(_integers(len(images), length + 1, generator)) - side // 2",
        "first = torch.tensor(_integers(len(images), length - side + 1, generator))",
        "tests/unit/test_adversarial.py",
    ),
    # --------------------------------------------------------------------------------------- idm/faces/components.py
    Fault(
        "eyes swapped",
        "idm/faces/components.py",
        '{"left_eye": left_eye, "right_eye": right_eye, "mouth": mouth}',
        '{"left_eye": right_eye, "right_eye": left_eye, "mouth": mouth}',
        "tests/unit/test_components.py",
    ),
    Fault(
        "crops half a pixel off",
        "idm/faces/components.py",
        "centre, half = box[:, :2] + 0.5, box[:, 2:]",
        "centre, half = box[:, :2], box[:, 2:]",
        "tests/unit/test_components.py",
    ),
    # ----------------------------------------------------------------------------------------- idm/faces/features.py
    Fault(
        "VGG-19's maps after their ReLU",
        "idm/faces/features.py",
        "taps.append(len(layers) - 2)",
        "taps.append(len(layers) - 1)",
        "tests/unit/test_features.py",
    ),
    # ---------------------------------------------------------------------------------------- gan_baseline/equalised.py
    Fault(
        "filters of upsampling convolutions not turned",
        "gan_baseline/equalised.py",
        "weight = weight.flip(-1, -2)",
        "weight = weight.flip(-1)",
        "tests/unit/test_gan_equalised.py",
    ),
    Fault(
        "gain of the activation forgotten where the branches begin",
        "gan_baseline/equalised.py",
        "|condition_(scale|shift)\\.\\d+\\.0\\.",
        "",
        "tests/unit/test_gan_equalised.py",
    ),
    Fault(
        "zeros around an image forgotten by smooth resampling",
        "gan_baseline/stylegan2.py",
        "return upsample(F.pad(x, (1, 1, 1, 1)))[..., cut:-cut, cut:-cut]",
        'return upsample(F.pad(x, (1, 1, 1, 1), mode="replicate"))[..., cut:-cut, cut:-cut]',
        "tests/unit/test_gan_equalised.py",
    ),
    Fault(
        "equalised rates left out",
        "gan_baseline/adversary.py",
        'group["lr"] = self.learning_rate_at(step) * group["share"]',
        'group["lr"] = self.learning_rate_at(step)',
        "tests/unit/test_gan_equalised.py",
    ),
    # ---------------------------------------------------------------------------------------- gan_baseline/adversary.py
    Fault(
        "R1 without its 1/2",
        "gan_baseline/adversary.py",
        "self.r1_every * self.gamma / 2 * adversarial.r1",
        "self.r1_every * self.gamma * adversarial.r1",
        "tests/unit/test_gan_learner.py",
    ),
    Fault(
        "lazy R1 not made up for",
        "gan_baseline/adversary.py",
        "return self.r1_every * self.gamma / 2",
        "return self.gamma / 2",
        "tests/unit/test_gan_learner.py",
    ),
    Fault(
        "R1 in mixed precision",
        "gan_baseline/adversary.py",
        "return StyleGAN2Discriminator.forward(network, images)",
        "return network(images)",
        "tests/unit/test_gan_learner.py",
    ),
    Fault(
        "discriminators taught by the generator's loss",
        "idm/diffusion/adversarial.py",
        "    for parameter in trained:\n        parameter.requires_grad_(False)\n",
        "",
        "tests/unit/test_gan_learner.py",
    ),
    Fault(
        "betas swapped",
        "gan_baseline/adversary.py",
        "betas=self.betas",
        "betas=self.betas[::-1]",
        "tests/unit/test_gan_learner.py",
    ),
    Fault(
        "learning rate falls one step late",
        "gan_baseline/adversary.py",
        "milestone <= step",
        "milestone < step",
        "tests/unit/test_gan_config.py",
    ),
    Fault(
        "Gram weights of the component features swapped",
        "gan_baseline/adversary.py",
        "STYLE_WEIGHTS = (0.5, 1.0)",
        "STYLE_WEIGHTS = (1.0, 0.5)",
        "tests/unit/test_gan_learner.py",
    ),
    # ------------------------------------------------------------------------------------------ gan_baseline/learner.py
    Fault(
        "detach forgotten",
        "gan_baseline/learner.py",
        "        restored = restored.detach()\n",
        "",
        "tests/unit/test_gan_learner.py",
    ),
    Fault(
        "EMA decay swapped in the baseline",
        "gan_baseline/learner.py",
        "decay=ema_decay",
        "decay=1 - ema_decay",
        "tests/unit/test_gan_learner.py",
    ),
    Fault(
        "trained weights published instead of averaged ones",
        "gan_baseline/learner.py",
        "zip(self.published.parameters(), self.ema.shadow_params, strict=True)",
        "zip(self.published.parameters(), self._parameters(), strict=True)",
        "tests/unit/test_gan_learner.py",
    ),
    Fault(
        "EMA not restored on the baseline's resume",
        "gan_baseline/learner.py",
        "            shadow.copy_(averaged)\n",
        "            pass\n",
        "tests/unit/test_gan_learner.py",
    ),
    Fault(
        "only the generator's learning rate falls",
        "gan_baseline/learner.py",
        "            player.adam.schedule(player.optimizer, step)\n",
        "            self.adam.schedule(self.optimizer, step)\n",
        "tests/unit/test_gan_learner.py",
    ),
    Fault(
        "the generator's noise from the first position for all",
        "gan_baseline/learner.py",
        "seed_of(self.seed, position)) for",
        "seed_of(self.seed, positions[0])) for",
        "tests/unit/test_gan_learner.py",
    ),
    # -------------------------------------------------------------------------------------------- gan_baseline/build.py
    Fault(
        "discriminator with the generator's betas",
        "gan_baseline/build.py",
        "train.discriminator_learning_rate, train.discriminator_betas",
        "train.discriminator_learning_rate, train.betas",
        "tests/unit/test_gan_config.py",
    ),
    # -------------------------------------------------------------------------------------------- gan_baseline/prior.py
    Fault(
        "codes mixed the wrong way round",
        "gan_baseline/prior.py",
        "crossover[:, None])[..., None], first, second)",
        "crossover[:, None])[..., None], second, first)",
        "tests/unit/test_gan_learner.py",
    ),
    # ----------------------------------------------------------------------------------------------- idm/faces/track.py
    Fault(
        "landmarks are smoothed over the past only",
        "idm/faces/track.py",
        "if abs(sighting.frame - frame) <= self.reach]",
        "if 0 <= frame - sighting.frame <= self.reach]",
        "tests/unit/test_track.py",
    ),
    Fault(
        "a line instead of a parabola, which cuts the turns",
        "idm/faces/track.py",
        "min(degree + 1, len(times))",
        "min(degree, len(times))",
        "tests/unit/test_track.py",
    ),
    Fault(
        "faces matched in the order of detection, not of overlap",
        "idm/faces/track.py",
        "in sorted(overlaps):",
        "in overlaps:",
        "tests/unit/test_track.py",
    ),
    Fault(
        "a cut is not noticed",
        "idm/faces/track.py",
        "track.is_open = False",
        "track.is_open = True",
        "tests/unit/test_track.py",
    ),
    # ------------------------------------------------------------------------------------------ idm/apps/photo/video.py
    Fault(
        "frames seen by the killed run are seen again",
        "idm/apps/photo/video.py",
        "if frame.index >= tracker.num_seen:",
        "if frame.index >= 0:",
        "tests/unit/test_video.py",
    ),
    Fault(
        "segments of any job count",
        "idm/apps/photo/video.py",
        "or owner.read_text() != description:",
        "or False:",
        "tests/unit/test_video.py",
    ),
    Fault(
        "the whole clip is read before the first frame is restored",
        "idm/apps/photo/video.py",
        "        for frame in frames:\n            pixels",
        "        for frame in list(frames):\n            pixels",
        "tests/unit/test_video.py",
    ),
    # ---------------------------------------------------------------------------------------------------- idm/io/video/
    Fault(
        "clips are turned the wrong way",
        "idm/io/video/read.py",
        "np.rot90(rgb.to_ndarray(), quarters(self.image))",
        "np.rot90(rgb.to_ndarray(), -quarters(self.image))",
        "tests/unit/test_video.py",
    ),
    Fault(
        "values outside faces are converted there and back",
        "idm/io/video/write.py",
        "new[keep] = old[keep]",
        "pass",
        "tests/unit/test_video.py",
    ),
    Fault(
        "a cut-short clip just ends",
        "idm/io/video/read.py",
        "if claimed is not None and end < claimed - _SHORT:",
        "if False:",
        "tests/unit/test_video.py",
    ),
    Fault(
        "the turn is lost",
        "idm/io/video/join.py",
        "        pictures.set_display_matrix(matrix)\n",
        "",
        "tests/unit/test_video.py",
    ),
    Fault(
        "times in the muxer's own units",
        "idm/io/video/join.py",
        "round(packet.pts * packet.time_base / time_base)",
        "packet.pts",
        "tests/unit/test_video.py",
    ),
    # ------------------------------------------------------------------------------------------ idm/apps/web/session.py
    Fault(
        "two users in one chain at once",
        "idm/apps/web/session.py",
        "        with self._restoring:\n",
        "        if True:\n",
        "tests/unit/test_session.py",
    ),
    Fault(
        "two users in the detector at once",
        "idm/apps/web/session.py",
        "        with self.lock:\n",
        "        if True:\n",
        "tests/unit/test_session.py",
    ),
    Fault(
        "the limit on pixels forgotten",
        "idm/apps/web/session.py",
        "read_photo(path, self.max_pixels)",
        "read_photo(path)",
        "tests/unit/test_session.py",
    ),
    Fault(
        "fidelity forgotten",
        "idm/apps/web/session.py",
        "strength=self.strength,",
        "strength=1.0,",
        "tests/unit/test_session.py",
    ),
    # ----------------------------------------------------------------------------------------- idm/apps/web/handlers.py
    Fault(
        "the server's folders in messages",
        "idm/apps/web/handlers.py",
        ".replace(str(path), path.name)",
        "",
        "tests/unit/test_app_server.py",
    ),
    Fault(
        "the seed forgotten",
        "idm/apps/web/handlers.py",
        "int(seed), float(upscale)",
        "0, float(upscale)",
        "tests/unit/test_app_server.py",
    ),
    # ------------------------------------------------------------------------------------------- idm/apps/web/server.py
    Fault(
        "addresses fetched through the file route",
        "idm/apps/web/server.py",
        "file=(?!\\w+:).+",
        "file=.+",
        "tests/unit/test_app_server.py",
    ),
    Fault(
        "addresses fetched through calls",
        "idm/apps/web/server.py",
        '        return search(json.loads(body or b"null"))',
        "        return False",
        "tests/unit/test_app_server.py",
    ),
    Fault(
        "uploads without limit",
        "idm/apps/web/server.py",
        "        elif int(length) > limit:\n",
        "        elif False:\n",
        "tests/unit/test_app_server.py",
    ),
    Fault(
        "the calls' files unchecked, as on a mounted page",
        "idm/apps/web/server.py",
        "    page.server.config.timeout_graceful_shutdown = 1",
        "    page.has_launched = False",
        "tests/unit/test_app_server.py",
    ),
    Fault(
        "temporary files left",
        "idm/apps/web/server.py",
        "        shutil.rmtree(home, ignore_errors=True)",
        "        pass",
        "tests/unit/test_app_server.py",
    ),
    Fault(
        "examples swept away",
        "idm/apps/web/server.py",
        "if path not in kept and path.lstat",
        "if path.lstat",
        "tests/unit/test_app_server.py",
    ),
    # -------------------------------------------------------------------------------------------- idm/apps/web/theme.py
    Fault(
        "names as HTML",
        "idm/apps/web/theme.py",
        "{html.escape(order.restorer)}",
        "{order.restorer}",
        "tests/unit/test_app_server.py",
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
    options = ("-x", "-q", "--tb=no", "--import-mode=importlib", "-p", "no:cacheprovider")
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
    if not path.exists() or not (folder / fault.tests).exists():
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
        present = sorted({fault.tests for fault in chosen if (folder / fault.tests).exists()})
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
