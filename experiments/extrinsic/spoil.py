"""Training targets of which a known share is spoiled, as the poorer photographs of FFHQ are: soft, noisy, compressed.

``python experiments/extrinsic/spoil.py -o FOLDER --size 64 --seed 0 --share 0.3`` writes one folder of PNG files with
metadata.jsonl, which says of each face how it was spoiled ("none" for most).
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from idm.build.data import assets_folder
from idm.data.faces import FaceSource, FolderFaces
from idm.data.images import write_image
from idm.data.ranges import from_uint8, to_uint8
from idm.degradation import kernels, ops

Kind = Literal["none", "blur", "noise", "jpeg"]
KINDS: tuple[Kind, ...] = ("blur", "noise", "jpeg")
RANGES = {"blur": (0.6, 1.2), "noise": (6.0, 14.0), "jpeg": (20.0, 50.0)}
"""sigma in pixels of a 64 px face; sigma in 1/255; libjpeg's quality. Our own choice."""


@dataclass(frozen=True)
class Spoiling:
    kind: Kind
    strength: float


def draw_spoilings(num_faces: int, share: float, seed: int) -> list[Spoiling]:
    """Exactly ``round(share * num_faces)`` faces are spoiled, each in one way; a function of the arguments."""
    rng = np.random.default_rng([0x5B011, seed])
    chosen = set(rng.permutation(num_faces)[: round(share * num_faces)].tolist())
    spoilings = []
    for index in range(num_faces):
        kind = KINDS[rng.integers(len(KINDS))]
        strength = float(rng.uniform(*RANGES[kind]))
        spoilings.append(Spoiling(kind, strength) if index in chosen else Spoiling("none", 0.0))
    return spoilings


def spoil(image: np.ndarray, spoiling: Spoiling, rng: np.random.Generator) -> np.ndarray:
    """An 8-bit face, spoiled; blur scales with the face."""
    match spoiling.kind:
        case "none":
            return image
        case "blur":
            sigma = spoiling.strength * image.shape[0] / 64
            return to_uint8(ops.blur(from_uint8(image), kernels.gaussian_taps(sigma, max(1, round(4 * sigma)))))
        case "noise":
            return to_uint8(ops.add_gaussian_noise(from_uint8(image), spoiling.strength, rng))
        case "jpeg":
            return to_uint8(ops.jpeg(from_uint8(image), round(spoiling.strength)))


def write_spoiled(source: FaceSource, folder: Path, share: float, seed: int) -> None:
    """Write the set, unless it is there: metadata.jsonl comes last."""
    if (folder / "metadata.jsonl").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index, spoiling in enumerate(draw_spoilings(len(source), share, seed)):
        face = source[index]
        name = Path(face.key).with_suffix(".png").as_posix()
        image = spoil(face.image, spoiling, np.random.default_rng([0x5B012, seed, index]))
        write_image(folder / name, image)
        landmarks = {} if face.landmarks is None else {"landmarks": face.landmarks.round(3).tolist()}
        rows.append({"file_name": name, "spoiled": spoiling.kind, "strength": round(spoiling.strength, 4), **landmarks})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--split", default="train")
    arguments = parser.parse_args()
    source = FolderFaces(assets_folder() / "faces256" / arguments.split, arguments.size)
    write_spoiled(source, arguments.output, arguments.share, arguments.seed)


if __name__ == "__main__":
    main()
