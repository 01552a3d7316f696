"""Render the results of ``run.py``: ``python experiments/strengths/table.py`` writes ``table.md`` beside this file."""

import json
from pathlib import Path
from typing import Any

from idm.io.atomic import write_text

HERE = Path(__file__).parent
METRICS = {
    "psnr": ("PSNR ↑", 2),
    "ssim": ("SSIM ↑", 3),
    "identity": ("Identity ↑", 3),
    "sharpness": ("Sharpness → 1", 2),
}


def render(results: Path = HERE / "results") -> str:
    """Return the tables of all result files: each restorer on each split, then by source and by group of the faces."""
    parts = ["# Results on undegraded, mildly degraded, GFP-GAN-degraded and severely degraded faces\n"]
    for path in sorted(results.glob("*.json")):
        result = json.loads(path.read_text())
        title = f"## {path.stem}\n\n{result['num_faces']} faces of `{result['split']}`, {result['image_size']} px"
        parts.append(f"{title}, seed {result['seed']}, commit {result['commit'][:12]}.\n")
        parts += [strengths(result), breakdown(result, "by_source"), breakdown(result, "by_group")]
    return "\n".join(parts)


def strengths(result: dict[str, Any]) -> str:
    """Format one row per strength: each metric of the given and the restored faces, with the paired interval."""
    head = ["degradation", *(title for title, _ in METRICS.values()), "lose .3 dB", "seconds"]
    lines = [row(head), row(["---"] * len(head))]
    for name, values in result["strengths"].items():
        cells = [change(values["metrics"][metric], digits) for metric, (_, digits) in METRICS.items()]
        lost = f"{100 * values['share_losing_0.3_db']:.0f} %"
        lines.append(row([name, *cells, lost, f"{values['seconds_per_face']:.2f}"]))
    return "\n".join(lines) + "\n"


def change(metric: dict[str, Any], digits: int) -> str:
    difference = metric["difference"]
    low, high = (f"{difference[end]:+.{digits}f}" for end in ("low", "high"))
    return f"{metric['given']:.{digits}f} → {metric['restored']:.{digits}f} [{low}, {high}]"


def breakdown(result: dict[str, Any], key: str) -> str:
    """Format the means of the given and the restored faces for each part of the faces, with GFP-GAN's degradation."""
    head = [key.removeprefix("by_"), "faces", *(title for title, _ in METRICS.values())]
    lines = [row(head), row(["---"] * len(head))]
    for name, values in result["strengths"]["gfpgan"][key].items():
        cells = [f"{values[m][0]:.{d}f} → {values[m][1]:.{d}f}" for m, (_, d) in METRICS.items()]
        lines.append(row([name, str(values["num_faces"]), *cells]))
    return "\n".join(lines) + "\n"


def row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    write_text(HERE / "table.md", render())
