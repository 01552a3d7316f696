"""Do the tests find wrong mathematics? Some thirty wrong edits, each of which must make a named test fail.

    make faults                       all of them, as the nightly job does
    python tests/faults.py gamma ema  those with one of these words in their name or file

Each fault is written into a copy of the repository in a temporary folder, where its test then runs. The unchanged copy
must pass first. The exit code is 1 if any fault was missed or no longer fits the code. To add one, add a row below,
under its package; ``old`` must occur in the file exactly once. Wiring has tests of its own, which change every setting:
``tests/unit/test_wiring.py`` and ``tests/unit/test_gan_wiring.py``.
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
    test: str


FAULTS = [
    # idm/diffusion
    Fault(
        "gamma_0 = 1 forgotten in the training levels",
        "idm/diffusion/schedule.py",
        "return gammas[t - 1] + u_within.double() * (gammas[t] - gammas[t - 1])",
        "return gammas[t]",
        "tests/property/test_diffusion.py::test_training_levels_are_uniform_over_the_steps_and_within_each",
    ),
    Fault(
        "cosine without its square",
        "idm/diffusion/schedule.py",
        "* math.pi / 2) ** 2",
        "* math.pi / 2)",
        "tests/parity/test_diffusion.py::test_the_cosine_schedule_equals_that_of_ddpm",
    ),
    Fault(
        "forgotten sqrt in the coefficients",
        "idm/diffusion/process.py",
        "signal, noise = gamma.sqrt(), (1 - gamma).sqrt()",
        "signal, noise = gamma, 1 - gamma",
        "tests/unit/test_process.py::test_coefficients_are_square_roots_that_multiply_images",
    ),
    Fault(
        "v with the wrong sign",
        "idm/diffusion/process.py",
        "return signal * eps.float() - noise * x_0.float()",
        "return signal * eps.float() + noise * x_0.float()",
        "tests/parity/test_diffusion.py::test_the_v_target_is_the_velocity_of_ddpm",
    ),
    Fault(
        "inverted min-SNR clamp",
        "idm/diffusion/objective.py",
        "snr.clamp(max=clamp)",
        "snr.clamp(min=clamp)",
        "tests/parity/test_diffusion.py::test_min_snr_weights_equal_those_of_diffusers_training_scripts",
    ),
    Fault(
        "always trained to x_0",
        "idm/diffusion/objective.py",
        "target(prediction, x_0, eps, gamma), p)",
        'target("sample", x_0, eps, gamma), p)',
        "tests/unit/test_objective.py::test_a_perfect_output_has_no_loss",
    ),
    Fault(
        "the last share of a chain replaced by its first",
        "idm/diffusion/chain.py",
        "return levels[n - chain.steps_run :]",
        "return levels[: chain.steps_run]",
        "tests/unit/test_samplers.py::test_only_the_last_share_of_the_chain_is_run",
    ),
    Fault(
        "Langevin noise scaled by its variance",
        "idm/diffusion/samplers.py",
        "mean + (1 - alpha) ** 0.5 * noise",
        "mean + (1 - alpha) * noise",
        "tests/unit/test_samplers.py::test_the_langevin_step_follows_its_equation",
    ),
    Fault(
        "fresh noise of DDIM added without making room for it",
        "idm/diffusion/samplers.py",
        "max(0.0, 1 - gamma_next - s**2)",
        "1 - gamma_next",
        "tests/parity/test_diffusion.py::test_a_ddim_trajectory_equals_the_loop_of_diffusers_in_epsilon_prediction",
    ),
    Fault(
        "the slope of DPM-Solver++ over a whole step",
        "idm/diffusion/samplers.py",
        "        x = follow(x, x_0 + h / 2 * slope, gamma, gamma_next)\n        x_0, before",
        "        x = follow(x, x_0 + h * slope, gamma, gamma_next)\n        x_0, before",
        "tests/parity/test_diffusion.py::test_a_trajectory_equals_that_of_the_scheduler_as_which_it_is_saved",
    ),
    Fault(
        "a sign in UniPC's second weight",
        "idm/diffusion/samplers.py",
        "2 / h**2 + (2 / h - 1) / B",
        "2 / h**2 + (2 / h + 1) / B",
        "tests/parity/test_diffusion.py::test_a_trajectory_equals_that_of_the_scheduler_as_which_it_is_saved",
    ),
    Fault(
        "real and fake exchanged",
        "idm/diffusion/adversarial.py",
        "return mean_over_faces(F.softplus(-real), known) + mean_over_faces(F.softplus(fake), known)",
        "return mean_over_faces(F.softplus(real), known) + mean_over_faces(F.softplus(-fake), known)",
        "tests/unit/test_adversarial.py::test_the_discriminators_loss_is_that_of_both_sides",
    ),
    Fault(
        "R1 averaged over pixels",
        "idm/diffusion/adversarial.py",
        "return gradient.square().sum(dim=(1, 2, 3)).mean()",
        "return gradient.square().mean()",
        "tests/unit/test_adversarial.py::test_r1_of_a_linear_discriminator_is_the_square_of_its_weights",
    ),
    Fault(
        "nine rounds of Philox",
        "idm/diffusion/noise.py",
        "for _ in range(10):",
        "for _ in range(9):",
        "tests/unit/test_noise.py::test_the_words_are_those_that_the_authors_publish",
    ),
    Fault(
        "two samples of a run with the same noise",
        "idm/diffusion/noise.py",
        "low, high), (seed",
        "low >> 1, high), (seed",
        "tests/unit/test_noise.py::test_neighbouring_samples_seeds_and_pixels_are_uncorrelated",
    ),
    # idm/models
    Fault(
        "noise level embedded as gamma",
        "idm/models/layers.py",
        "angles = log_snr[:, None] * frequencies",
        "angles = gamma.float()[:, None] * frequencies",
        "tests/unit/test_denoiser.py::test_the_embedding_sees_the_log_snr_in_sines_and_cosines",
    ),
    Fault(
        "condition forgotten",
        "idm/models/unet.py",
        "torch.cat([patches_d, patches], dim=1)",
        "torch.cat([patches, patches], dim=1)",
        "tests/property/test_denoiser.py::test_the_degraded_face_changes_the_output",
    ),
    # idm/training
    Fault(
        "averages that start with their whole decay",
        "idm/training/ema.py",
        "min(self.decay, (1 + step) / (10 + step)) if step else 0.0",
        "self.decay",
        "tests/unit/test_ema.py::test_the_average_equals_that_of_diffusers",
    ),
    Fault(
        "decay and its complement exchanged",
        "idm/training/ema.py",
        "torch.where(updated, 1 - self.decay_at(step), 0.0)",
        "torch.where(updated, self.decay_at(step), 0.0)",
        "tests/unit/test_ema.py::test_the_average_equals_that_of_diffusers",
    ),
    # idm/degradation and idm/data
    Fault(
        "noise in units of 1 instead of 1/255",
        "idm/degradation/operations.py",
        "* np.float32(sigma / 255)",
        "* np.float32(sigma)",
        "tests/unit/test_degradation.py::test_noise_has_the_stated_sigma_and_is_independent_between_channels",
    ),
    Fault(
        "blur does not scale with the face",
        "idm/degradation/steps.py",
        "return operations.blur(image, kernels.gaussian_taps(sigma_x * frame.scale, radius))",
        "return operations.blur(image, kernels.gaussian_taps(sigma_x, radius))",
        "tests/unit/test_degradation.py::test_the_width_of_the_blur_is_the_same_part_of_the_image_at_every_size",
    ),
    Fault(
        "the sinc kernel without its 1/r",
        "idm/degradation/kernels.py",
        "/ (2 * np.pi * distance)",
        "/ (2 * np.pi)",
        "tests/unit/test_degradation.py::test_the_sinc_kernel_is_that_of_scipys_bessel_function",
    ),
    Fault(
        "flip without moving the landmarks",
        "idm/data/pairs.py",
        "np.array([width - 1, 0], np.float32) + np.array([-1, 1], np.float32) * points[order]",
        "points[order]",
        "tests/unit/test_data.py::test_mirroring_moves_each_landmark_to_its_mirrored_pixel_under_its_new_name",
    ),
    # idm/faces
    Fault(
        "a similarity that may mirror",
        "idm/faces/template.py",
        "s = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])",
        "s = np.ones(2)",
        "tests/parity/test_metrics.py::test_umeyama_never_mirrors",
    ),
    Fault(
        "a warp's samples half a pixel off",
        "idm/faces/align.py",
        "(np.arange(side * num_samples) + 0.5) / num_samples - 0.5 for",
        "(np.arange(side * num_samples) + 0.5) / num_samples for",
        "tests/property/test_paste.py::test_a_ramp_is_warped_to_the_ramp_of_the_inverse_map",
    ),
    Fault(
        "overlapping faces added up",
        "idm/faces/paste.py",
        "np.divide(weight**2, total,",
        "np.divide(weight * total, total,",
        "tests/property/test_paste.py::test_two_faces_in_one_place_count_half_each",
    ),
    Fault(
        "a line instead of a parabola, which cuts the turns",
        "idm/faces/track.py",
        "min(degree + 1, len(times))",
        "min(degree, len(times))",
        "tests/unit/test_track.py::test_steady_acceleration_is_followed_exactly_even_at_its_ends_and_at_uneven_times",
    ),
    # idm/evaluation
    Fault(
        "SSIM without the means in its covariance",
        "idm/evaluation/pixels.py",
        "_local_mean(x * y) - product,",
        "_local_mean(x * y),",
        "tests/parity/test_metrics.py::test_ssim_equals_its_formula",
    ),
    Fault(
        "colour shift in the order blue, green, red",
        "idm/evaluation/pixels.py",
        "rgb2lab(image.astype(np.float64))",
        "rgb2lab(image[..., ::-1].astype(np.float64))",
        "tests/unit/test_metrics.py::test_colour_shift_of_a_primary_from_white_is_its_place_in_lab",
    ),
    Fault(
        "a Frechet distance without its means",
        "idm/evaluation/frechet.py",
        "((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + spread",
        "spread",
        "tests/unit/test_frechet.py::test_the_distance_of_a_set_to_itself_is_zero_and_to_a_shifted_one_the_shift_squared",
    ),
    # gan_baseline
    Fault(
        "a generator that helps its relativistic critic",
        "gan_baseline/adversary.py",
        "relativistic_logistic(network(fake), of_real)",
        "relativistic_logistic(of_real, network(fake))",
        "tests/unit/test_gan_learner.py::test_a_relativistic_discriminator_compares_each_face_with_its_original",
    ),
    Fault(
        "a generator that helps its relativistic component critics",
        "gan_baseline/adversary.py",
        "relativistic_logistic(fakes[name][0], reals[name][0], known)",
        "relativistic_logistic(reals[name][0], fakes[name][0], known)",
        "tests/unit/test_gan_learner.py::"
        "test_relativistic_component_critics_compare_patches_of_known_faces_with_the_originals",
    ),
    Fault(
        "a grown critic whose colours are bent by its first leaky ReLU",
        "gan_baseline/prior.py",
        "first, block, raised = discriminator.first, discriminator.blocks[0], 1.5",
        "first, block, raised = discriminator.first, discriminator.blocks[0], 0.5",
        "tests/unit/test_gan_learner.py::test_a_grown_prior_begins_as_the_smaller_one_enlarged",
    ),
    Fault(
        "demodulation forgotten",
        "gan_baseline/stylegan2.py",
        "return torch.rsqrt(s.square() @ squares.T + 1e-8)",
        "return s.new_ones(len(s), len(squares))",
        "tests/unit/test_gan_networks.py::test_demodulated_filters_have_unit_norm",
    ),
    Fault(
        "the wrong half of the channels transformed",
        "gan_baseline/stylegan2.py",
        "[x[:, :identity], torch.addcmul(shift, x[:, identity:], scale)]",
        "[torch.addcmul(shift, x[:, :identity], scale), x[:, identity:]]",
        "tests/unit/test_gan_networks.py::test_the_transform_leaves_the_first_half_of_the_channels_untouched",
    ),
    Fault(
        "Gram matrix not normalised",
        "gan_baseline/losses.py",
        " / (flat.shape[1] * flat.shape[2])",
        "",
        "tests/unit/test_gan_losses.py::test_the_gram_matrix_is_divided_by_all_elements_of_a_map",
    ),
]


def copy_repository(folder: Path) -> None:
    left_out = shutil.ignore_patterns("__pycache__", ".*cache")
    for name in COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=left_out)
        else:
            shutil.copy(source, folder / name)


def run_tests(folder: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    """pytest in the copy, with the copy's packages instead of the installed ones."""
    options = ("-n0", "-x", "-q", "--tb=no", "--import-mode=importlib", "-p", "no:cacheprovider")
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def verdict(folder: Path, fault: Fault) -> str:
    """Either "caught by" and the first test that failed, or "MISSED" and why."""
    path = folder / fault.file
    text = path.read_text() if path.exists() else ""
    if text.count(fault.old) != 1:
        return f"MISSED (old text found {text.count(fault.old)} times)"
    path.write_text(text.replace(fault.old, fault.new))
    try:
        done = run_tests(folder, fault.test)
    except subprocess.TimeoutExpired:
        return f"MISSED (the test ran longer than {SECONDS} s)"
    finally:
        path.write_text(text)
    if done.returncode == 0:
        return "MISSED"
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    if done.returncode != 1 or not failed:
        return f"MISSED (the test could not run: {(done.stdout + done.stderr).strip()[-300:]})"
    return f"caught by {failed[0].partition('::')[2].partition(' - ')[0]}"


def main(words: list[str]) -> int:
    chosen = [f for f in FAULTS if not words or any(w.lower() in f"{f.name} {f.file}".lower() for w in words)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copy_repository(folder)
        unchanged = run_tests(folder, *sorted({fault.test for fault in chosen}))
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
