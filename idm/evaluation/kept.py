"""Measured faces on the disk until a comparison is done, so that a killed one resumes and several processes share the
work."""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from idm.data.pairs import Pair
from idm.io.atomic import write_bytes


@dataclass(frozen=True)
class KeptFace:
    """A face, 8-bit RGB, the seconds of its restoration, and its scores by metric."""

    image: UInt8[np.ndarray, "s s 3"]
    seconds: float
    scores: dict[str, float]


class KeptFaces:
    """One method's faces, with a file for each sample of each face, written atomically.

    Args:
        root: of all methods; it is made with the first face.
        key: everything that determines the faces: settings, weights, commit. Faces of another key are ignored.
    """

    def __init__(self, root: Path, key: Mapping[str, object]) -> None:
        text = json.dumps(key, sort_keys=True, default=str)
        self._folder = root / hashlib.sha256(text.encode()).hexdigest()[:16]

    def load(self, pair: Pair, sample: int = 0) -> KeptFace | None:
        """The stored faces of a pair; None if there are none, or if they are of other pixels."""
        path = self._path(pair, sample)
        if not path.is_file():
            return None
        with np.load(path) as file:
            if str(file["pair"]) != _digest(pair):
                return None
            scores = dict(zip(file["names"].tolist(), file["values"].tolist(), strict=True))
            return KeptFace(file["image"], float(file["seconds"]), scores)

    def save(self, pair: Pair, face: KeptFace, sample: int = 0) -> None:
        """Store the restored face of a pair, in one step. CheckpointError where it cannot be written."""
        content = io.BytesIO()
        np.savez(
            content,
            pair=_digest(pair),
            image=face.image,
            seconds=face.seconds,
            names=np.array(list(face.scores), dtype=np.str_),
            values=np.array(list(face.scores.values()), dtype=np.float64),
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        write_bytes(self._path(pair, sample), content.getvalue())

    def _path(self, pair: Pair, sample: int) -> Path:
        return self._folder / f"{pair.position:08d}_{sample}.npz"


def _digest(pair: Pair) -> str:
    return hashlib.sha256(pair.lq.tobytes() + pair.hq.tobytes()).hexdigest()
