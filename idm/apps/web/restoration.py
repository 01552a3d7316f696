"""The restored faces of a photograph, among whose variants a user chooses, and the store of all users' results."""

import copy
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from idm.apps.photo.face import FaceRestoration
from idm.apps.web.request import RestoreRequest
from idm.faces.detect import DetectedFace
from idm.io.errors import InvalidInput

MAX_VARIANTS = 8  # of each face
REJECTED = "it was rejected"


@dataclass(frozen=True, eq=False)
class Variant:
    """One restoration of a face, drawn with ``seed``."""

    seed: int
    face: FaceRestoration


@dataclass(frozen=True, eq=False)
class Restoration:
    """The variants of a photograph's restored faces, and those in use.

    Args:
        found: all detected faces.
        variants: by the face's number, its restorations in the order in which they were drawn.
        choice: by the face's number, the position of the variant in use, or None for the face as given; the first
            variant where the number is missing.
    """

    request: RestoreRequest
    found: tuple[DetectedFace, ...]
    variants: Mapping[int, tuple[Variant, ...]]
    choice: Mapping[int, int | None]

    def faces(self) -> list[FaceRestoration]:
        """The faces in use, by number. A rejected face is not used, and its report says so."""
        faces = []
        for number, variants in self.variants.items():
            position = self.choice.get(number, 0)
            face = copy.copy(variants[position or 0].face)
            if position is None:
                face.refusal = REJECTED
            faces.append(face)
        return faces

    def use(self, number: int, position: int | None) -> "Restoration":
        """Return the restoration with another variant of a face in use, or with None the face as given.

        Raises:
            ValueError: no such face, or no such variant.
        """
        variants = self._variants(number)
        if position is not None and position not in range(len(variants)):
            raise InvalidInput(f"face {number} has no variant {position}; it has {len(variants)}")
        return replace(self, choice={**self.choice, number: position})

    def check_room(self, number: int) -> None:
        """Refuse to draw more variants than are kept.

        Raises:
            ValueError: no such face, or it has ``MAX_VARIANTS``.
        """
        if len(self._variants(number)) >= MAX_VARIANTS:
            raise InvalidInput(f"face {number} has {MAX_VARIANTS} variants, the most that are kept")

    def with_variant(self, number: int, variant: Variant) -> "Restoration":
        """Return the restoration with one more variant of a face, which is in use."""
        variants = (*self._variants(number), variant)
        return replace(self, variants={**self.variants, number: variants}).use(number, len(variants) - 1)

    def _variants(self, number: int) -> tuple[Variant, ...]:
        if number not in self.variants:
            raise InvalidInput(f"there is no restored face {number}")
        return self.variants[number]

    @property
    def num_bytes(self) -> int:
        """The size of the pictures in memory."""
        faces = [variant.face for variants in self.variants.values() for variant in variants]
        return sum(array.nbytes for face in faces for array in vars(face).values() if isinstance(array, np.ndarray))


@dataclass(frozen=True, eq=False)
class StoredResult:
    """A restoration with its photograph, the folder of its pictures, and the files in it that users download."""

    restoration: Restoration
    source: Path
    folder: Path
    files: tuple[Path, ...]


class ResultStore:
    """The results of all users, by names that cannot be guessed.

    Args:
        max_bytes: of all results in memory; beyond it, those that were used longest ago are dropped.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._stored: OrderedDict[str, StoredResult] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, stored: StoredResult, name: str = "") -> str:
        """Store a result under a name, by default a new one, and return the name."""
        name = name or secrets.token_urlsafe(16)
        with self._lock:
            self._stored[name] = stored
            self._stored.move_to_end(name)
            while len(self._stored) > 1 and self._num_bytes() > self.max_bytes:
                self._stored.popitem(last=False)
        return name

    def _num_bytes(self) -> int:
        return sum(stored.restoration.num_bytes for stored in self._stored.values())

    def get(self, name: str) -> StoredResult:
        """Return the result of this name.

        Raises:
            ValueError: the result was removed.
        """
        with self._lock:
            if name not in self._stored:
                raise InvalidInput("this result was removed; restore the photograph again")
            self._stored.move_to_end(name)
            return self._stored[name]
