"""The files of a finished job beside its shards: manifest, summary and data-set card."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from idm.extrinsic.shards import CleanError, Entry, read_entries
from idm.io.atomic import write_json, write_text
from idm.io.find import as_text

MANIFEST, SUMMARY, CARD = "manifest.jsonl", "summary.json", "README.md"


def write_manifest(output: Path, shards: Sequence[Path], metadata: dict[str, Any]) -> dict[str, Any]:
    """Assemble the manifest of all shards, write its summary and the data-set card; returns the summary.

    Every line of the manifest also names the model that drew x*, by hash, with its sampler.

    Raises:
        CleanError: the shards do not hold every face of the source exactly once.
    """
    entries = [entry for shard in shards for entry in read_entries(shard)]
    if [entry.index for entry in entries] != list(range(metadata["num_faces"])):
        raise CleanError(f"{output}: the shards do not hold every face exactly once; delete the folder and clean again")
    lines = (json.dumps({**asdict(entry), "model": metadata["model"]}, ensure_ascii=False) for entry in entries)
    write_text(output / MANIFEST, "".join(f"{line}\n" for line in lines))
    summary = summarise_entries(entries)
    write_text(output / CARD, as_text(card(summary, metadata)))
    write_json(output / SUMMARY, summary)  # last: where it is, the job is finished
    return summary


def read_manifest(output: Path) -> list[Entry]:
    """Every line of a finished job's manifest.

    Raises:
        CleanError: there is none, or it is damaged.
    """
    path = output / MANIFEST
    if not path.exists():
        raise CleanError(f"{output}: does not hold a finished cleaning job ({MANIFEST} is missing)")
    lines = path.read_bytes().splitlines()  # str.splitlines would also split names, at U+2028 for one
    return [_read_row(path, number, line) for number, line in enumerate(lines, 1)]


def _read_row(path: Path, number: int, line: bytes) -> Entry:
    try:
        row = json.loads(line)
        row.pop("model", None)
        return Entry(**row)
    except Exception as error:  # also of values of a wrong type
        raise CleanError(
            f"{path}: line {number} is damaged; delete {SUMMARY}, and the same command writes both again"
        ) from error


def summarise_entries(entries: Sequence[Entry]) -> dict[str, Any]:
    """Counts, and how far the pool has moved: a face that stayed has identity 1 and moved no colour.

    Returns:
        "drift" holds the share of faces replaced and, of the new pool against the old one, the mean identity and
        colour shift (R, G, B, 1/255) and the PSNR of the mean squared error of all faces, None where nothing
        changed; "quality" the pool's means before and after.
    """
    read = [entry for entry in entries if entry.seed is not None]
    taken = [entry for entry in read if entry.accepted]
    repeated = Counter(entry.sha256 for entry in read)
    shifts = np.array([entry.colour_shift for entry in taken], np.float64).reshape(-1, 3)
    identities = [entry.identity for entry in taken if entry.identity is not None]
    error = sum(10 ** (-entry.psnr / 10) for entry in taken if entry.psnr is not None) / max(1, len(read))
    known = not taken or len(identities) == len(taken)
    quality = {
        name: {
            "before": _mean([getattr(e, f"{name}_before") for e in read]),
            "after": _mean([getattr(e, f"{name}_after" if e.accepted else f"{name}_before") for e in read]),
        }
        for name in ("sharpness", "noise", "blockiness")
    }
    return {
        "num_faces": len(entries),
        "unreadable": len(entries) - len(read),
        "duplicates": sum(count - 1 for count in repeated.values()),
        "accepted": len(taken),
        "reasons": dict(sorted(Counter(entry.reason for entry in read).items())),
        "drift": {
            "share": len(taken) / max(1, len(read)),
            "identity": 1 - (len(taken) - sum(identities)) / max(1, len(read)) if known else None,
            "psnr": round(-10 * math.log10(error), 3) if error > 0 else None,
            "colour": (shifts.sum(axis=0) / max(1, len(read))).round(4).tolist(),
        },
        "quality": quality,
    }


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / max(1, len(values))


def card(summary: dict[str, Any], metadata: dict[str, Any]) -> str:
    """README.md of the data set: what it is and where it comes from."""
    drift = summary["drift"]
    identity = "not measured" if drift["identity"] is None else f"{drift['identity']:.4f}"
    reasons = "".join(f"| {reason} | {count} |\n" for reason, count in summary["reasons"].items())
    return f"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---

# Faces cleaned by an extrinsic iteration of IDM

Each face x of the source was restored, x* = f_theta(x); the data set holds x* if it passed the gate, else x.
`datasets.load_dataset("parquet", data_files="data/*.parquet")` reads it; `manifest.jsonl` states the decision on every
face and its reason. Rights and terms are those of the source.

| decision | faces |
|---|---|
{reasons}| unreadable, left out | {summary["unreadable"]} |

{summary["accepted"]} of {summary["num_faces"]} faces were replaced; {summary["duplicates"]} are duplicates of others.
Drift of the set: identity {identity}, colour {drift["colour"]} (R, G, B in 1/255).

```json
{json.dumps(metadata, indent=2, ensure_ascii=False)}
```
"""
