"""Spoil a known share of training targets, like the poorer photographs of FFHQ: soft, noisy, compressed.

``python experiments/extrinsic/spoil.py -o FOLDER --size 64 --seed 0 --share 0.3`` writes a folder of PNG files with
metadata.jsonl, which states how each face was spoiled ("none" for most).
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from idm.data.sources import FaceSource, FolderFaces, assets_folder
from idm.degradation import kernels, operations
from idm.io.image_writer import write_image
from idm.io.ranges import from_uint8, to_uint8

Kind = Literal["none", "blur", "noise", "jpeg", "mixed"]
CHANCES: dict[Kind, float] = {"blur": 0.4, "noise": 0.2, "jpeg": 0.2, "mixed": 0.2}
"""Probabilities of the kinds for a spoiled face; most poor portraits are soft. These and the ranges are our choice."""
RANGES: dict[Kind, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "blur": ((0.6, 1.2), (0.0, 0.0), (100.0, 100.0)),
    "noise": ((0.0, 0.0), (4.0, 10.0), (100.0, 100.0)),
    "jpeg": ((0.0, 0.0), (0.0, 0.0), (20.0, 50.0)),
    "mixed": ((0.4, 0.9), (1.0, 5.0), (50.0, 90.0)),
}
"""Sigma of blur in pixels of a 64 px face, sigma of noise in 1/255, JPEG quality; 0, 0 and 100 skip the step."""


@dataclass(frozen=True)
class Spoiling:
    """The strengths of blur, noise and JPEG for one face, applied in this order; :data:`RANGES` has the units."""

    kind: Kind
    blur: float = 0.0
    noise: float = 0.0
    jpeg: float = 100.0


def draw_spoilings(num_faces: int, share: float, seed: int) -> list[Spoiling]:
    """Draw the spoiling of every face, as a function of the arguments; ``round(share * num_faces)`` faces are
    spoiled."""
    rng = np.random.default_rng([0x5B011, seed])
    chosen = set(rng.permutation(num_faces)[: round(share * num_faces)].tolist())
    spoilings = []
    for index in range(num_faces):
        kind: Kind = rng.choice(list(CHANCES), p=list(CHANCES.values()))
        strengths = (float(rng.uniform(*ends)) for ends in RANGES[kind])
        spoilings.append(Spoiling(kind, *strengths) if index in chosen else Spoiling("none"))
    return spoilings


def spoil(image: np.ndarray, spoiling: Spoiling, rng: np.random.Generator) -> np.ndarray:
    """Spoil an 8-bit face; the blur scales with its size."""
    face = from_uint8(image)
    if spoiling.blur > 0:
        sigma = spoiling.blur * image.shape[0] / 64
        face = operations.blur(face, kernels.gaussian_taps(sigma, max(1, round(4 * sigma))))
    if spoiling.noise > 0:
        face = operations.add_gaussian_noise(face, spoiling.noise, rng)
    if spoiling.jpeg < 100:
        face = operations.jpeg(face, round(spoiling.jpeg))
    return to_uint8(face)


def write_spoiled(source: FaceSource, folder: Path, share: float, seed: int) -> None:
    """Write the set unless it is complete; metadata.jsonl is written last."""
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
        done = {key: round(value, 4) for key, value in asdict(spoiling).items() if key != "kind"}
        rows.append({"file_name": name, "spoiled": spoiling.kind, **done, **landmarks})
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
