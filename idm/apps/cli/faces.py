"""The faces, clean and degraded, that a command line asks for."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from idm.apps.cli.options.measure import MeasureOptions
from idm.apps.cli.parse import parse_degradation, parse_source
from idm.config.assembly.data import build_mixture, evenly
from idm.config.schema import (
    AssetsConfig,
    DegradationConfig,
    LQConfig,
    MeasuredSourceConfig,
    PairsConfig,
    SyntheticConfig,
)
from idm.data.given import GivenFaces, GivenPairs, Pairs, read_pairs
from idm.data.huggingface import StreamedFaces
from idm.data.pairs import FrozenPairs
from idm.data.sources import FaceSource, FolderFaces, Part
from idm.degradation import Mixture, Recipe
from idm.degradation.steps import Resize
from idm.evaluation.sets import ORIGINAL, REAL, SetScores
from idm.evaluation.splits import COPY, Nearest, nearest_pairs, shared_faces
from idm.faces import recognition
from idm.io.atomic import sha256
from idm.io.errors import InvalidInput
from idm.io.find import find_images
from idm.io.machine import best_device
from idm.io.weights import find_weights, home

PRESET = "gfpgan"  # the default of --preset
AS_PUBLISHED = DegradationConfig(clean_probability=0.0)  # what --preset changes


@dataclass(frozen=True)
class Degraded:
    """Degraded faces, on which restorers are measured.

    Attributes:
        bicubic: the same pairs, brought back to size by bicubic interpolation; None if their degraded faces were given,
            or if no step of the degradation brings faces back to size.
        preset: what degraded them, as ``--preset`` names it, and
        degradation: its settings; None if the degraded faces were given.
    """

    pairs: Pairs
    bicubic: Pairs | None
    preset: str | None
    degradation: dict[str, Any] | None


def build_pairs(options: MeasureOptions, size: int) -> Degraded:
    """The pairs that ``--data`` names, as many as ``--num-images``: those of ``pairs:FOLDER`` and the degraded faces of
    ``lq:FOLDER`` as they are, else clean faces degraded by ``--preset``.

    Raises:
        ValueError: an option is out of range, or degraded faces are to be degraded.
    """
    wanted = options.num_images
    if wanted is not None and wanted < 1:
        raise InvalidInput(f"--num-images must be at least 1, got {wanted}")
    if not 0 <= options.seed < 2**63:
        raise InvalidInput(f"--seed must lie in 0..2^63 - 1, got {options.seed}")
    source = _parse(options.data, wanted, options.seed)
    if isinstance(source, PairsConfig | LQConfig):
        if options.preset is not None:
            raise InvalidInput(f"--preset: the faces of {options.data} are degraded already")
        return Degraded(_given(source, size, wanted), None, None, None)
    preset = options.preset or PRESET
    degradation = parse_degradation(preset, AS_PUBLISHED)
    recipe = build_mixture(degradation)
    bicubic = _with_bicubic(recipe)
    faces = _indexed(source, size, wanted, options.seed)
    return Degraded(
        FrozenPairs(faces, recipe, options.seed),
        None if bicubic is None else FrozenPairs(faces, bicubic, options.seed),
        preset,
        degradation.model_dump(mode="json"),
    )


def _with_bicubic(recipe: Recipe | Mixture) -> Recipe | Mixture | None:
    """The recipe with bicubic interpolation where it brings faces back to size; None if it has no such step."""
    recipes = recipe.recipes if isinstance(recipe, Mixture) else (recipe,)
    if not all(any(isinstance(step, Resize) for step in each.steps) for each in recipes):
        return None
    return recipe.change(Resize, interpolation="bicubic")


def _given(source: PairsConfig | LQConfig, size: int, wanted: int | None) -> Pairs:
    """Degraded faces of a folder, with or without originals."""
    if isinstance(source, LQConfig):
        return GivenFaces(some_faces(FolderFaces(source.path, size), wanted))
    pairs = read_pairs(source.path, size)
    return GivenPairs(some_faces(pairs.lq, wanted), some_faces(pairs.source, wanted))


def open_faces(data: str, size: int, wanted: int | None, seed: int, option: str = "--data") -> FaceSource:
    """The clean faces that an option names; ``wanted`` of them, spread evenly. ``synthetic`` stands for faces of
    ``seed``, by default 64."""
    return _indexed(_parse(data, wanted, seed, option), size, wanted, seed, option)


def _parse(data: str, wanted: int | None, seed: int, option: str = "--data") -> MeasuredSourceConfig:
    return parse_source(data, option, SyntheticConfig(num_faces=wanted or 64, seed=seed))


def _indexed(
    source: MeasuredSourceConfig, size: int, wanted: int | None, seed: int, option: str = "--data"
) -> FaceSource:
    faces = source.build(size, seed)
    if isinstance(faces, StreamedFaces):
        raise InvalidInput(f"{option}: the faces of a stream cannot be read again; use a source that can be indexed")
    return some_faces(faces, wanted, "--num-images" if option == "--data" else option)


@dataclass(frozen=True)
class SetReference:
    """The faces that set metrics compare with: the ``column`` of images, :data:`~idm.evaluation.sets.ORIGINAL` or
    :data:`~idm.evaluation.sets.REAL`, and the other ``real`` faces, if asked for."""

    column: str
    real: FaceSource | None

    @property
    def exists(self) -> bool:
        """Whether the reference has faces."""
        return self.column == ORIGINAL or self.real is not None

    def add_to(self, sets: SetScores) -> None:
        """Add the other real faces, all at once."""
        if self.real is not None and sets.has_metrics:
            for i in tqdm(range(len(self.real)), desc="real faces", unit="face", disable=not sys.stderr.isatty()):
                sets.add({REAL: self.real[i].image})


def open_reference(options: MeasureOptions, size: int, num_originals: int) -> SetReference:
    """The faces of ``--real``, and what ``--reference`` compares with: beside originals, as many real faces as there
    are originals; as the reference, all.

    Args:
        num_originals: 0 if there are none.

    Raises:
        InvalidInput: ``--reference`` names faces that are not given.
    """
    if options.reference == "originals" and not num_originals:
        raise InvalidInput(f"--reference originals: the faces of {options.data} have none")
    if options.reference == "real" and options.real is None:
        raise InvalidInput("--reference real: --real names the faces")
    column = REAL if options.reference == "real" or not num_originals else ORIGINAL
    if options.real is None:
        return SetReference(column, None)
    wanted = num_originals if column == ORIGINAL else None
    return SetReference(column, open_faces(options.real, size, wanted, options.seed + 1, "--real"))


def describe_reference(options: MeasureOptions, reference: SetReference) -> dict[str, Any]:
    """Return the description of a reference for the results."""
    real = None if reference.real is None else {"data": options.real, "num_images": len(reference.real)}
    return {"real": real, "set_reference": reference.column if reference.exists else None}


def some_faces(source: FaceSource, wanted: int | None, option: str = "--num-images") -> FaceSource:
    """Return the wanted number of faces of a source, spread evenly; None stands for all.

    Args:
        option: the option that asks for them, for errors.
    """
    if wanted is None:
        return source
    if not 1 <= wanted <= len(source):
        raise InvalidInput(f"{option}: {wanted} faces are needed, and there are {len(source)}")
    return Part(source, evenly(len(source), wanted))


def face_tags(data: str) -> dict[str, dict[str, str]]:
    """Source and group of faces by their keys, as the data's metadata.jsonl states them."""
    folder = parse_source(data).folder()
    if folder is None:
        return {}
    faces = FolderFaces(folder, 16)
    return {"source": faces.origins, "group": faces.groups}


def check_splits(data: str, training_data: str | None = None) -> dict[str, Any] | None:
    """Compare the evaluated faces with those that models are trained on: by their bytes and, where the identity
    network's weights are, by their embeddings.

    Args:
        training_data: given as ``data``; by default the training split of the assets, for another split of them.

    Returns:
        The numbers of "train", "evaluated" and "shared" faces and the two most "nearest" ones, as of
        :class:`~idm.evaluation.splits.Nearest`, or None without the weights. None if nothing was to be compared.

    Raises:
        InvalidInput: a face is in both sets, or one of them is no folder of files.
    """
    source, named = parse_source(data), training_data or "assets:train"
    training = parse_source(named, "--training-data")
    if training_data is None and (not isinstance(source, AssetsConfig) or source == training):
        return None
    train, evaluated = training.folder(), source.folder()
    if train is None or evaluated is None:
        raise InvalidInput(f"--training-data: {data} and {named} must be folders of faces, whose files are compared")
    if training_data is None and not train.is_dir():
        return None
    if shared := shared_faces(train, evaluated):
        raise InvalidInput(
            f"{data}: {len(shared)} of its faces are in {named}, too, byte for byte; first {shared[0][1]}"
        )
    nearest = _nearest(train, evaluated)
    if nearest is not None and nearest.cosine > COPY:
        raise InvalidInput(
            f"{data}: {nearest.evaluated} is {nearest.train} of {named} in another file: their embeddings have a "
            f"cosine of {nearest.cosine:.3f}, above {COPY}"
        )
    return {
        "train": len(find_images([train])),
        "evaluated": len(find_images([evaluated])),
        "shared": 0,
        "nearest": None if nearest is None else nearest.summary(),
    }


def _nearest(train: Path, evaluated: Path) -> Nearest | None:
    try:
        weights = find_weights(recognition.MOBILEFACENET_WEIGHTS)
    except FileNotFoundError:
        return None
    network = recognition.load_identity(weights, str(best_device()))
    return nearest_pairs(train, evaluated, network, home() / "embeddings", sha256(weights))[0]
