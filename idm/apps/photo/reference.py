"""Photographs of the person who is restored, whom the result must resemble."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from idm.apps.photo.album import PHOTO_LIMITS, detect_and_align
from idm.faces.detect import Detector
from idm.faces.recognition import IdentityNet
from idm.io.find import as_text, find_images
from idm.io.images import ImageError, ImageLimits, image_error

_SIZE = 256  # of the aligned faces, more than the identity network sees
_MIN_FACE = 40.0  # pixels; of smaller faces the embedding says little (our choice)


@dataclass(frozen=True, eq=False)
class Reference:
    """A person's face in the features of the identity network.

    Attributes:
        embedding: the mean of the photographs' unit vectors, a unit vector itself.
        num_faces: how many faces it is the mean of.
        left_out: photographs that do not count, with the reason.
    """

    embedding: Float32[np.ndarray, " d"]
    num_faces: int
    left_out: dict[str, str]

    def summary(self) -> dict[str, Any]:
        """The entry of a status file, as JSON."""
        digest = hashlib.sha256(self.embedding.tobytes()).hexdigest()
        return {"num_faces": self.num_faces, "embedding_sha256": digest, "left_out": self.left_out}


def read_reference(
    album: Sequence[Path], detector: Detector, identity: IdentityNet, limits: ImageLimits = PHOTO_LIMITS
) -> Reference:
    """The person of an album: photographs, and folders of photographs.

    A photograph counts if it holds one face. A photograph with several faces does not show which face is the person's.

    Raises:
        ImageError: there is no such file or folder, or no photograph counts.
    """
    left_out: dict[Path, str] = {}
    faces = []
    paths = find_images(album)
    for path in paths:
        for found in detect_and_align([path], detector, _SIZE, _MIN_FACE, left_out, limits):
            if len(found) == 1:
                faces += found
            else:
                left_out[path] = f"{len(found)} faces" if found else f"no face of {_MIN_FACE:g} pixels or more"
    reasons = {as_text(str(path)): as_text(why) for path, why in left_out.items()}
    if not faces:
        first = next(iter(reasons.values()))
        problem = f"no photograph here shows one person alone ({len(paths)} looked at; the first: {first})"
        raise image_error(album[0], problem, "name photographs of the person whose face is restored")
    mean = identity.embed([face.image for face in faces], [face.landmarks for face in faces]).mean(axis=0)
    length = float(np.linalg.norm(mean))
    if length < 1e-6:
        raise ImageError(f"{album[0]}: the faces have no mean direction; they are not of one person")
    return Reference(mean / np.float32(length), len(faces), reasons)
