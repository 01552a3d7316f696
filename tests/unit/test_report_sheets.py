"""Which faces a cleaning job's report shows, and what its page says."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from idm.extrinsic.manifest import summarise_entries
from idm.extrinsic.report import choose_examples, write_report
from idm.extrinsic.shards import Entry
from idm.io.images import read_image


def entry(index: int, reason: str, psnr: float) -> Entry:
    quality = {f"{name}_{when}": 1.0 for name in ("sharpness", "noise", "blockiness") for when in ("before", "after")}
    return Entry(f"<{index}>", index, str(index), 7, reason == "better", reason, 0.9, psnr, [1.0, 0.0, 0.0], **quality)


ENTRIES = [
    entry(0, "better", 40.0),
    entry(1, "better", 25.0),
    entry(2, "identity", 10.0),
    entry(3, "no better", 50.0),
    Entry("4", 4, None, None, False, "cut short"),
]


def test_the_most_changed_come_first_and_good_enough_faces_are_not_called_rejected() -> None:
    chosen = choose_examples(ENTRIES, 12, seed=0)
    assert [e.index for e in chosen["most changed"]] == [1, 0]
    assert [e.index for e in chosen["rejected"]] == [2]
    assert [e.index for e in chosen["random"]] == [0, 1, 2, 3]
    assert len(choose_examples(ENTRIES, 2, seed=0)["random"]) == 2


def test_the_page_shows_the_sheets_and_escapes_names(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(vars(e)) + "\n" for e in ENTRIES))
    (tmp_path / "summary.json").write_text(json.dumps(summarise_entries(ENTRIES)))

    def pictures(entries: Sequence[Entry]) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)) for _ in entries]

    page = write_report(tmp_path, pictures)
    text = page.read_text()
    assert "&lt;1&gt;" in text
    assert "2 of 5 faces were replaced" in text
    for name in ("most_changed.png", "rejected.png", "random.png"):
        assert name in text
        assert read_image(page.parent / name).rgb.shape[2] == 3


def test_the_drift_is_that_of_the_pool() -> None:
    drift = summarise_entries(ENTRIES)["drift"]
    assert drift["share"] == 0.5
    assert drift["identity"] == 1 - 2 * (1 - 0.9) / 4
    assert drift["psnr"] == round(-10 * math.log10((1e-4 + 10**-2.5) / 4), 3)  # of all faces, not of the changed
    assert drift["colour"] == [0.5, 0.0, 0.0]
