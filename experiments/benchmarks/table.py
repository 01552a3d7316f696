"""Make the tables of the README from the result files.

``python experiments/benchmarks/table.py`` prints them, ``--write`` puts them into the README, and ``--check`` exits
with status 1 if the tables in the README are stale.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from idm.evaluation.layout import update_tables

FOLDER = Path(__file__).parent
SPEEDUP = "speed-up (least to greatest)"

Result = dict[str, Any]


def markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Format a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def networks_table(result: Result) -> str:
    """Sizes of the compared networks."""
    header = ["case", "pixels", "network", "widths", "parameters (M)", "GFLOP per image"]
    names = {"idm": "UNet", "diffusers": "UNet2DModel"}
    rows = [
        [
            case["case"],
            case["image_size"],
            name,
            ", ".join(map(str, case["widths"][key])),
            f"{case['million_parameters'][key]:.1f}",
            f"{case['gflop_per_image'][key]:.2f}",
        ]
        for case in result["cases"]
        for key, name in names.items()
    ]
    return markdown(header, rows)


def training_table(result: Result) -> str:
    """Speed and memory of training steps."""
    header = ["case", "network", "settings", "images/s", "GFLOP/s", "peak memory (MB)", SPEEDUP]
    rows = [
        [
            case["case"],
            variant["network"],
            variant["settings"],
            f"{variant['images_per_second']:.2f}",
            f"{variant['gflop_per_second']:.0f}",
            f"{variant['peak_memory_mb']:.0f}",
            _speedup(variant["speedup"]),
        ]
        for case in result["cases"]
        for variant in case["variants"]
    ]
    return markdown(header, rows)


def sampling_table(result: Result) -> str:
    """Seconds of whole sampling chains."""
    header = ["case", "batch", "steps", "rounds", *(f"{name}, s/face" for name in ("diffusers", "idm")), SPEEDUP]
    rows = [
        [
            case["case"],
            chain["batch_size"],
            chain["num_steps"],
            chain["rounds"],
            f"{chain['seconds_per_face']['diffusers']:.3f}",
            f"{chain['seconds_per_face']['idm']:.3f}",
            _speedup(chain["speedup"]) + (" †" if _disturbed(chain["all_seconds_per_face"]) else ""),
        ]
        for case in result["cases"]
        for chain in case["chains"]
    ]
    return markdown(header, rows)


def _disturbed(seconds: dict[str, list[float]]) -> bool:
    """Whether the rounds of a network differ so much that other work must have run on the machine."""
    return any(max(rounds) > 1.5 * min(rounds) for rounds in seconds.values())


def data_loading_table(result: Result) -> str:
    """Pairs per second, compared with the training step."""
    header = ["pixels", "workers", "cold", "warm", "training step", "share of time spent on data, warm"]
    rows = []
    for size in result["sizes"]:
        training = size["training_images_per_second"]
        for loading in size["loading"]:
            cold, warm = (loading["images_per_second"][name] for name in ("cold", "warm"))
            share = f"{training / (training + warm):.1%}" if loading["num_workers"] == 0 else "beside it"
            rates = [f"{rate:.0f}" for rate in (cold, warm)]
            rows.append([size["image_size"], loading["num_workers"], *rates, f"{training:.1f}", share])
    return markdown(header, rows)


def gan_table(result: Result) -> str:
    """GFP-GAN's generator with single faces."""
    header = ["channel multiplier", "network", "settings", "s/face", "peak memory (MB)", SPEEDUP]
    rows = [
        [
            case["channel_multiplier"],
            variant["network"],
            variant["settings"],
            f"{variant['seconds_per_face']:.2f}" + (" †" if _disturbed({"": variant["all_seconds_per_face"]}) else ""),
            f"{variant['peak_memory_mb']:.0f}",
            _speedup(variant["speedup"]),
        ]
        for case in result["cases"]
        for variant in case["variants"]
    ]
    deviations = ", ".join(
        f"{case['bfloat16_deviation']:.1%} (channel multiplier {case['channel_multiplier']})"
        for case in result["cases"]
    )
    return markdown(header, rows) + f"\n\nbfloat16 deviates from float32 by {deviations} of the output's deviation."


def backends_table(result: Result) -> str:
    """Inference backends: speed, and differences in the restored faces."""
    header = ["case", "batch", "backend", "seconds to start", "s/face", SPEEDUP]
    rows = [
        [
            case["case"],
            row["batch_size"],
            row["variant"],
            f"{row['seconds_to_build']:.1f}",
            f"{row['seconds_per_face']:.3f}" + (" †" if _disturbed({"": row["all_seconds_per_face"]}) else ""),
            _speedup(row["speedup"]),
        ]
        for case in result["cases"]
        for row in case["rows"]
    ]
    quality = result["quality"]
    quality_header = ["backend", "levels, most", "levels, mean", "PSNR to torch fp32", "PSNR", "change of PSNR"]
    quality_rows = [
        [
            row["variant"],
            row["levels_max"],
            f"{row['levels_mean']:.4f}",
            "-" if row["psnr_between"] is None else f"{row['psnr_between']:.1f}",
            f"{row['psnr']:.3f}",
            f"{row['psnr_change']:+.4f}",
        ]
        for row in quality["rows"]
    ]
    note = (
        f"The same faces, {quality['num_faces']} {quality['faces']}, idm-faces-128, against PyTorch in fp32; "
        "differences in levels of 8 bits, PSNR in dB:"
    )
    return f"{markdown(header, rows)}\n\n{note}\n\n{markdown(quality_header, quality_rows)}"


def int8_table(result: Result) -> str:
    """ONNX files of 8 bits: size and speed, and changes of the restored faces."""
    metrics = ["PSNR", "change of PSNR", "worst face", "SSIM", "identity", "sharpness"]
    header = ["variant", "MB", *metrics, "s/face", SPEEDUP]
    rows = [
        [
            row["variant"],
            f"{row['megabytes']:.1f}",
            f"{row['psnr']:.2f}",
            *(f"{row['change']['psnr'][of]:+.3f}" for of in ("mean", "min")),
            *(f"{row[metric]:.4f} ({row['change'][metric]['mean']:+.4f})" for metric in ("ssim", "identity")),
            f"{row['sharpness']:.3f} ({row['change']['sharpness']['mean']:+.3f})",
            f"{row['seconds_per_face']:.3f}",
            _speedup(row["speedup"]),
        ]
        for row in result["rows"]
    ]
    return markdown(header, rows)


def cleaning_table(result: Result) -> str:
    """Cleaning jobs, compared with sampling alone."""
    header = ["case", "pixels", "steps", "sampling, s/face", "cleaning, s/face", "overhead (least to greatest)"]
    rows = [
        [
            case["case"],
            case["pixels"],
            case["num_steps"],
            *(f"{case['seconds_per_face'][name]:.4f}" for name in ("sampling", "cleaning")),
            "{median:.1%} ({min:.1%} to {max:.1%})".format(**case["overhead"]),
        ]
        for case in result["cases"]
    ]
    return markdown(header, rows)


def evaluation_table(result: Result) -> str:
    """Speed of metrics on pairs of files."""
    header = ["measures", "ms a pair", "pairs/s", "times as fast as pyiqa (least to greatest)"]
    rows = [
        [
            name,
            f"{1e3 * seconds:.2f}",
            f"{1 / seconds:.1f}",
            _speedup(result["speedup"][name]) if name in result["speedup"] else "-",
        ]
        for name, seconds in result["seconds_per_pair"].items()
    ]
    return markdown(header, rows)


def cost_table(result: Result) -> str:
    """Cost of restorers; a restorer whose weights are missing is a row of gaps."""
    header = ["restorer", "pixels", "parameters (M)", "GFLOP per face", "s/face", "peak memory (MB)"]
    rows, notes = [], []
    for row in result["rows"]:
        if "missing" in row:
            rows.append([row["label"], *["–"] * (len(header) - 1)])
            notes.append(f"{row['label']}: not measured: its weights are missing; `{row['missing']}` gets them.")
            continue
        mark = " †" if _disturbed({"": row["all_seconds_per_face"]}) else ""
        costs = [f"{row['gflop_per_face']:.1f}", f"{row['seconds_per_face']:.3f}{mark}", f"{row['peak_memory_mb']:.0f}"]
        rows.append([f"{row['label']} ({row['name']})", row["image_size"], f"{row['parameters'] / 1e6:.1f}", *costs])
    return "\n\n".join([markdown(header, rows), *notes])


def startup_table(result: Result) -> str:
    header = ["command", "seconds of the processor", "ratio"]
    rows = [[f"`{row['command']}`", f"{row['processor_seconds']:.2f}", f"{row['ratio']:.2f}"] for row in result["rows"]]
    return markdown(header, rows)


def _speedup(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"


def all_tables() -> str:
    """Return the text between the markers of the README."""
    training, sampling, loading, cleaning, gan, evaluation, cost, backends, int8, startup = (
        json.loads((FOLDER / "results" / f"{name}.json").read_text())
        for name in (
            *("training", "sampling", "data_loading", "cleaning"),
            *("gan_generator", "evaluation", "cost", "backends", "int8", "startup"),
        )
    )
    machine = training["machine"]
    return "\n\n".join(
        [
            f"{machine['processor']}, {machine['threads']} threads, torch {training['versions']['torch']}, "
            f"diffusers {training['versions']['diffusers']}.",
            "### Networks",
            networks_table(training),
            f"### Training, batch {training['batch_size']}, {training['rounds']} rounds",
            training_table(training),
            "### Sampling with DDIM",
            sampling_table(sampling),
            "† disturbed: seconds of one network differ by more than half between rounds.",
            f"### Data loading: images per second, {loading['num_faces']} {loading['faces']}",
            _conditions(loading),
            data_loading_table(loading),
            f"### Cleaning, batch {cleaning['batch_size']}, {cleaning['rounds']} rounds",
            f"Faces: {cleaning['num_faces']}; {_conditions(cleaning).lower()}",
            cleaning_table(cleaning),
            f"### GFP-GAN, {gan['image_size']} px, batch {gan['batch_size']}, {gan['rounds']} rounds",
            _conditions(gan),
            gan_table(gan),
            f"### Measuring pairs of {evaluation['pixels']} px, {evaluation['rounds']} rounds",
            f"Pairs: {evaluation['num_pairs']}; {_conditions(evaluation).lower()}",
            evaluation_table(evaluation),
            f"### Cost of one face, batch 1, {cost['precision']}, {cost['rounds']} rounds",
            _conditions(cost),
            cost_table(cost),
            f"### Backends, chains of {backends['num_steps']} steps, {backends['rounds']} rounds",
            _conditions(backends),
            backends_table(backends),
            f"### ONNX files of 8 bits, {int8['model']['name']}, {int8['model']['num_steps']} steps",
            f"Faces: {int8['num_faces']}; {_conditions(int8).lower()}",
            int8_table(int8),
            f"### Start-up of commands, {startup['rounds']} rounds",
            startup_table(startup) + "\n",
        ]
    )


def _conditions(result: Result) -> str:
    return f"Threads: {result['machine']['threads']}; load average before: {result['load_average']}."


if __name__ == "__main__":
    update_tables(__doc__, FOLDER / "README.md", all_tables)
