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
    # ------------------------------------------------------------------------------ idm/diffusion/schedule.py
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
    # ------------------------------------------------------------------------------- idm/diffusion/process.py
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
    # ----------------------------------------------------------------------------- idm/diffusion/objective.py
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
    # ---------------------------------------------------------------------------- idm/diffusion/schedulers.py
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
    # ------------------------------------------------------------------------------ idm/diffusion/samplers.py
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
    # --------------------------------------------------------------------------------------- idm/nn/layers.py
    Fault(
        "log-SNR replaced by a constant",
        "idm/nn/layers.py",
        "angles = log_snr[:, None] * frequencies",
        "angles = 0 * log_snr[:, None] * frequencies",
        "tests/property/test_denoiser.py",
    ),
    Fault(
        "noise level embedded as gamma",
        "idm/nn/layers.py",
        "angles = log_snr[:, None] * frequencies",
        "angles = gamma.float()[:, None] * frequencies",
        "tests/unit/test_denoiser.py",
    ),
    Fault(
        "attention without its scale",
        "idm/nn/layers.py",
        "q * q.shape[-1] ** -0.5 @ k.mT",
        "q @ k.mT",
        "tests/property/test_denoiser.py",
    ),
    Fault(
        "norm over the batch",
        "idm/nn/layers.py",
        "return x + h\n",
        "return x + h - h.mean(dim=0)\n",
        "tests/property/test_denoiser.py",
    ),
    # ------------------------------------------------------------------------------------- idm/nn/denoiser.py
    Fault(
        "condition forgotten",
        "idm/nn/denoiser.py",
        "torch.cat([patches_d, patches_t], dim=1)",
        "torch.cat([patches_t, patches_t], dim=1)",
        "tests/property/test_denoiser.py",
    ),
    Fault(
        "no attention in the decoder",
        "idm/nn/denoiser.py",
        "h = self._run(self.decoder[i], h, embedding)",
        "h = self._run(self.decoder[i][:1], h, embedding)",
        "tests/property/test_denoiser.py",
    ),
    Fault(
        "padding not cropped from the right side",
        "idm/nn/denoiser.py",
        "output = h[..., :height, :width].float()",
        "output = h[..., -height:, -width:].float()",
        "tests/property/test_denoiser.py",
    ),
    # ------------------------------------------------------------------------------------------ idm/data
    Fault(
        "flip without moving the landmarks",
        "idm/data/pairs.py",
        "        landmarks[:, 0] = image.shape[1] - 1 - landmarks[:, 0]\n",
        "",
        "tests/unit/test_data.py",
    ),
    Fault(
        "flip without renaming the landmarks",
        "idm/data/pairs.py",
        "landmarks[[1, 0, 2, 4, 3]]",
        "landmarks[[0, 1, 2, 3, 4]]",
        "tests/unit/test_data.py",
    ),
    # ------------------------------------------------------------------------------------------ idm/config
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
    # ------------------------------------------------------------------------------------- idm/pipeline.py
    Fault(
        "eta=0 taken for not given",
        "idm/pipeline.py",
        "eta=defaults.eta if eta is None else eta",
        "eta=eta or defaults.eta",
        "tests/unit/test_pipeline.py",
    ),
    # ------------------------------------------------------------------------------------ idm/pretrained.py
    Fault(
        "shapes of weights not compared",
        "idm/pretrained.py",
        "if wanted.get(name) != found.get(name))",
        "if name not in found)",
        "tests/unit/test_pretrained.py",
    ),
    # -------------------------------------------------------------------------------------- idm/training
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
        "number = _seed_of(seed, position)",
        "number = _seed_of(seed, positions[0])",
        "tests/unit/test_learner.py",
    ),
    Fault(
        "EMA not restored on resume",
        "idm/training/learner.py",
        "            shadow.copy_(weights[name])\n",
        "            pass\n",
        "tests/unit/test_learner.py",
    ),
    Fault(
        "the best checkpoint pruned",
        "idm/training/checkpoint.py",
        "        if checkpoint != best:\n",
        "        if checkpoint:\n",
        "tests/unit/test_checkpoint.py",
    ),
    Fault(
        "half a checkpoint left after an error",
        "idm/training/checkpoint.py",
        "        shutil.rmtree(draft, ignore_errors=True)\n",
        "",
        "tests/unit/test_checkpoint.py",
    ),
    # ------------------------------------------------------------------------------------ idm/faces/track.py
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
    # ------------------------------------------------------------------------------------------- idm/video.py
    Fault(
        "frames seen by the killed run are seen again",
        "idm/video.py",
        "if frame.index >= tracker.num_seen:",
        "if frame.index >= 0:",
        "tests/unit/test_video.py",
    ),
    Fault(
        "segments of any job count",
        "idm/video.py",
        "or owner.read_text() != description:",
        "or False:",
        "tests/unit/test_video.py",
    ),
    Fault(
        "the whole clip is read before the first frame is restored",
        "idm/video.py",
        "        for frame in frames:\n            pixels",
        "        for frame in list(frames):\n            pixels",
        "tests/unit/test_video.py",
    ),
    # ----------------------------------------------------------------------------------------- idm/data/video/
    Fault(
        "clips are turned the wrong way",
        "idm/data/video/read.py",
        "np.rot90(rgb.to_ndarray(), quarters(self.image))",
        "np.rot90(rgb.to_ndarray(), -quarters(self.image))",
        "tests/unit/test_video.py",
    ),
    Fault(
        "values outside faces are converted there and back",
        "idm/data/video/write.py",
        "new[keep] = old[keep]",
        "pass",
        "tests/unit/test_video.py",
    ),
    Fault(
        "a cut-short clip just ends",
        "idm/data/video/read.py",
        "if claimed is not None and end < claimed - _SHORT:",
        "if False:",
        "tests/unit/test_video.py",
    ),
    Fault(
        "the turn is lost",
        "idm/data/video/join.py",
        "        pictures.set_display_matrix(matrix)\n",
        "",
        "tests/unit/test_video.py",
    ),
    Fault(
        "times in the muxer's own units",
        "idm/data/video/join.py",
        "round(packet.pts * packet.time_base / time_base)",
        "packet.pts",
        "tests/unit/test_video.py",
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
