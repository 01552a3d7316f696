"""A visual report of a cleaning job: sheets of faces before and after, on one page."""

import html
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from idm.extrinsic.manifest import SUMMARY, read_manifest
from idm.extrinsic.shards import Entry
from idm.io.atomic import read_json, write_text
from idm.io.grid import image_grid
from idm.io.image_writer import write_image

Pictures = Callable[[Sequence[Entry]], list[tuple[np.ndarray, np.ndarray]]]
"""Gives (x, x*) of each entry."""


def write_report(output: Path, pictures: Pictures, num_shown: int = 12, seed: int = 0) -> Path:
    """Sheets of the most changed, the rejected and random faces under ``output/report``; returns the page's path.

    Raises:
        CleanError: the job is not finished.
    """
    folder = output / "report"
    folder.mkdir(exist_ok=True)
    sections = []
    for title, entries in choose_examples(read_manifest(output), num_shown, seed).items():
        if not entries:
            continue
        name = title.replace(" ", "_") + ".png"
        write_image(folder / name, image_grid([list(pair) for pair in pictures(entries)], ["x", "x* = f(x)"]))
        sections.append(_section(title, name, entries))
    page = folder / "index.html"
    write_text(page, _page(read_json(output / SUMMARY), sections))
    return page


def choose_examples(entries: Sequence[Entry], num_shown: int, seed: int) -> dict[str, list[Entry]]:
    """Choose the faces of a report: replaced ones farthest from their originals, rejected ones, and any."""
    read = [entry for entry in entries if entry.seed is not None]
    changed = sorted((e for e in read if e.accepted and e.psnr is not None), key=lambda e: (e.psnr, e.index))
    rejected = [e for e in read if not e.accepted and e.reason != "no better"]
    rng = np.random.default_rng(seed)

    def some(candidates: Sequence[Entry]) -> list[Entry]:
        return [candidates[i] for i in sorted(rng.permutation(len(candidates))[:num_shown])]

    return {"most changed": changed[:num_shown], "rejected": some(rejected), "random": some(read)}


def _section(title: str, picture: str, entries: Sequence[Entry]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(e.id)}<td>{'x*' if e.accepted else 'x'}<td>{html.escape(e.reason)}"
        f"<td>{_number(e.identity, 3)}<td>{_number(e.psnr, 2)}"
        f"<td>{_number(e.sharpness_before, 3)} → {_number(e.sharpness_after, 3)}"
        f"<td>{_number(e.noise_before, 2)} → {_number(e.noise_after, 2)}"
        f"<td>{_number(e.blockiness_before, 2)} → {_number(e.blockiness_after, 2)}"
        for e in entries
    )
    return (
        f"<h2>{title}</h2><div><img src='{picture}' alt='{title}: x beside x*'><table><tr><th>face<th>in the pool"
        f"<th>why<th>identity<th>PSNR to x<th>sharpness<th>noise<th>blockiness{rows}</table></div>"
    )


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _page(summary: dict, sections: Sequence[str]) -> str:
    drift = summary["drift"]
    reasons = ", ".join(f"{count} {reason}" for reason, count in summary["reasons"].items())
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Cleaned faces</title>
<style>body {{ font: 15px system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem }}
div {{ display: flex; gap: 2rem; align-items: flex-start; overflow-x: auto }} td, th {{ padding: 0 .6rem 0 0;
text-align: left; white-space: nowrap }}</style>
<h1>Cleaned faces</h1>
<p>{summary["accepted"]} of {summary["num_faces"]} faces were replaced ({reasons}); {summary["unreadable"]} could not
be read, {summary["duplicates"]} are duplicates.</p>
<p>Drift of the set: identity {_number(drift["identity"], 4)}, colour {drift["colour"]} (R, G, B in 1/255).</p>
{"".join(sections)}
</html>
"""
