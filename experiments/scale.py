"""Estimate the cost of the paper's full run: ``python experiments/scale.py [--measured FILE] --write``, or ``--check``.

FLOPs are counted on the networks of ``CONFIGS``. Throughput comes from a result of ``benchmarks/gpu.py``. Without such
a result, an assumed share of a GPU's peak performance gives the throughput, and the page says so.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import torch
from networks import forward_gflop

from idm.config.assembly.intrinsic import build_denoiser
from idm.config.load import load_config
from idm.config.schema import IDMConfig

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).with_suffix(".md")
CLEANING = Path(__file__).parent / "benchmarks" / "results" / "many_shards.json"
CONFIGS = ("ffhq512", "ffhq512_patch4")
FACES = 70_000
PEAK_TFLOPS, SHARE = 989, 0.3
GPUS = (1, 8, 64)
PASSES = 3


@dataclass(frozen=True)
class Cost:
    """GPU seconds of one training and one cleaning of the extrinsic iteration."""

    training: float
    cleaning: float

    @property
    def whole(self) -> float:
        """GPU seconds of round 0, the cleaning and round 1."""
        return 2 * self.training + self.cleaning


def cost(name: str, images_per_second: float | None) -> tuple[float, Cost]:
    """Return (GFLOP of a forward pass, cost). Without a throughput, assume a share of the peak performance."""
    config = load_config(ROOT / "configs" / f"{name}.yaml", IDMConfig, [])
    with torch.device("meta"):
        gflop = forward_gflop(build_denoiser(config), config.data.image_size)
    forwards = SHARE * PEAK_TFLOPS * 1e3 / gflop if images_per_second is None else PASSES * images_per_second
    extra = 1 if config.train.gradient_checkpointing and images_per_second is None else 0  # recomputed forward pass
    training = config.train.num_steps * config.train.batch_size * (PASSES + extra) / forwards
    return gflop, Cost(training, FACES * config.sampler.num_steps / forwards)


PAGE_TEXT = """# Cost of the paper's full run

`python experiments/scale.py --write` writes this page. The run consists of two training runs and, between them, one
cleaning of {faces:,} faces with the chain of the configuration. A training run has the steps and the batch size of the
configuration. The paper names neither; both are those of SR3, see `configs/ffhq512.yaml`.

{throughput}

The time on several GPUs is that of one GPU divided by their number. Communication and waiting for data are not
included.

| configuration | GFLOP of a forward pass | part | {gpus} |
|---|---|---|{bars}
{rows}
"""
ASSUMED = f"""**These configurations were not measured on a GPU.** The hours assume that a GPU reaches {SHARE:.0%} of {PEAK_TFLOPS} TFLOP/s (H100, dense bfloat16). They are
inversely proportional to that share. `benchmarks/gpu.py` measures the throughput, and `--measured` then replaces the
assumption. It is optimistic for small networks: `faces256/long.yaml`, with 26 GFLOP a forward pass, trained on 400 faces
a second of an H200, 3 % of that peak, because the process that launches the kernels was the limit. A training step
counts three forward passes, four with gradient checkpointing."""  # noqa: E501

CLEANING_TEXT = """
## A cleaning on {num_processes} processes, without networks

`python experiments/benchmarks/many_shards.py -o {path}`
cleans {num_faces:,} faces of {pixels} px in {num_shards} shards. It simulates {num_processes} processes one after another
on one core. One process is stopped in the middle of its share and restarted. The manifest lists each face exactly once.

| part | seconds |
|---|---|
| reading, judging and storing, all processes together ({per_face:.2f} ms per face) | {seconds[all_processes_together]:.1f} |
| slowest process ({most} shards at most) | {seconds[slowest_process]:.1f} |
| manifest, summary and card | {seconds[manifest]:.1f} |
| check of the finished job on a restart | {seconds[check_of_a_finished_job]:.1f} |

Peak memory {peak_memory_mb:.0f} MB. Commit {short}, {machine[processor]}.
"""  # noqa: E501


def page(measured: dict[str, float], source: str | None) -> str:
    """Return the page as Markdown.

    Args:
        measured: images per second and GPU in training, by the name of the configuration.
        source: where they were measured; None if the throughput is assumed.
    """
    rows = []
    for name in CONFIGS:
        gflop, found = cost(name, measured.get(name))
        for part, seconds in (
            ("one training", found.training),
            ("cleaning", found.cleaning),
            ("two trainings and the cleaning", found.whole),
        ):
            cells = " | ".join(_duration(seconds / number) for number in GPUS)
            rows.append(f"| {name} | {gflop:.0f} | {part} | {cells} |")
    text = PAGE_TEXT.format(
        faces=FACES,
        throughput=f"The throughput was measured, see `{source}`." if source else ASSUMED,
        gpus=" | ".join(f"{number} GPU{'s' * (number > 1)}" for number in GPUS),
        bars="---|" * len(GPUS),
        rows="\n".join(rows),
    )
    return text + _bookkeeping()


def _duration(seconds: float) -> str:
    return f"{seconds / 86400:,.1f} days" if seconds > 2 * 86400 else f"{seconds / 3600:.2f} h"


def _bookkeeping() -> str:
    """Return the section on the cleaning's bookkeeping, if it was measured."""
    if not CLEANING.exists():
        return ""
    found = json.loads(CLEANING.read_text())
    return CLEANING_TEXT.format(
        **found,
        path=CLEANING.relative_to(ROOT),
        per_face=1e3 * found["seconds"]["all_processes_together"] / found["num_faces"],
        most=found["shards_of_a_process"][1],
        short=found["commit"][:7],
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measured", type=Path, nargs="*", default=[], help="results of benchmarks/gpu.py")
    parser.add_argument("--write", action="store_true", help="write the page instead of printing it")
    parser.add_argument("--check", action="store_true", help="exit with status 1 if the page is stale")
    arguments = parser.parse_args()
    measured = {}
    for path in arguments.measured:
        result = json.loads(path.read_text())
        rates = [row.get("images_per_second", 0) for row in result["rows"] if row["network"] == "idm"]
        measured[Path(result["config"]).stem] = max(rates) / result["processes"]
    text = page(measured, ", ".join(map(str, arguments.measured)) or None)
    if arguments.check:
        return 0 if PAGE.exists() and PAGE.read_text() == text else 1
    if arguments.write:
        PAGE.write_text(text)
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
