"""Do the tests find wrong mathematics? Wrong edits, each of which must make a named test file fail.

    make faults                       all of them, as the nightly job does
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
        "idm/models/network.py",
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
        "the share rises with positions instead of steps",
        "idm/data/mixing.py",
        "self.share(position // self.batch_size)",
        "self.share(position)",
        "tests/unit/test_mixing.py",
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
    # idm/extrinsic
    Fault(
        "the gate forgets what x* may lose in sharpness",
        "idm/extrinsic/gate.py",
        "if not sharper >= -gate.max_sharpness_loss:",
        "if not sharper >= -1:",
        "tests/unit/test_gate.py",
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
