"""Faces and how they are degraded."""

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from idm.config.schema.section import PositiveInt, Section, UnitInterval
from idm.degradation import AnyStep, PresetName
from idm.io.errors import InvalidInput

if TYPE_CHECKING:  # torch takes seconds to import, and a wrong setting is reported at once
    from idm.data.huggingface import StreamedFaces
    from idm.data.sources import FaceSource


def _rising(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError(f"the range [{limits[0]}, {limits[1]}] ends before it begins")
    return limits


LengthRange = tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]
QualityRange = tuple[Annotated[float, Field(ge=1, le=100)], Annotated[float, Field(ge=1, le=100)]]
FactorRange = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class Source(Section):
    """A source of faces: the settings of a class of :mod:`idm.data.sources`."""

    @abstractmethod
    def build(self, size: int, seed: int) -> "FaceSource | StreamedFaces":
        """The source, whose faces have ``size`` pixels per side; ``seed`` orders the faces of a stream.

        Raises:
            InvalidInput: there are no such faces.
        """

    def folder(self) -> Path | None:
        """The folder of the faces' files, None if they are stored otherwise."""
        return None

    def impossible_combinations(self) -> list[str]:
        """Settings that are valid by themselves but cannot work together."""
        return []


class SyntheticConfig(Source):
    """Procedural faces: no files needed."""

    name: Literal["synthetic"] = "synthetic"
    num_faces: PositiveInt = 4096
    """Number of faces."""
    seed: int = 0
    """Seed of the faces."""

    def build(self, size: int, seed: int) -> "FaceSource":
        from idm.data.sources import SyntheticFaces

        return SyntheticFaces(self.num_faces, self.seed, size)


class FolderConfig(Source):
    """A folder of aligned face images, searched recursively; ``metadata.jsonl`` or FFHQ's own
    ``ffhq-dataset-v2.json`` may give landmarks."""

    name: Literal["folder"] = "folder"
    path: Path
    """The folder."""

    def build(self, size: int, seed: int) -> "FaceSource":
        from idm.data.sources import FolderFaces

        return FolderFaces(self.path, size)

    def folder(self) -> Path:
        return self.path


class HuggingFaceConfig(Source):
    """Anything ``datasets.load_dataset`` reads: a hub id, or "parquet", "arrow", "webdataset", "imagefolder"
    with ``data_files``."""

    name: Literal["huggingface"] = "huggingface"
    path: str
    """First argument of `load_dataset`."""
    data_files: str | list[str] | None = None
    """File or files, globs included, for a format name as `path`."""
    split: str = "train"
    """Split of the data set."""
    image_column: str = "image"
    """Column of images."""
    landmarks_column: str | None = None
    """Column of five (x, y) points in pixels of the image: left eye, right eye, nose, left and right mouth corner
    as seen in the image."""
    id_column: str | None = None
    """Column of the faces' names; by default their numbers."""
    streaming: bool = False
    """Read without storing; needs ``num_faces``, the number of faces in an epoch."""
    num_faces: PositiveInt | None = None
    """Number of faces in an epoch; required with `streaming`, and only allowed there."""
    parts: PositiveInt = 1
    """Number of parts into which the files of a stream are divided. They provide eight faces each in turn, and every
    process and worker reads only the parts of its own faces. All parts are shown equally often, so they should have
    equally many files. The order of the faces in training depends on this number. A cleaning reads the same parts in
    their stored order, each in the processes that clean its faces."""

    def build(self, size: int, seed: int) -> "FaceSource | StreamedFaces":
        import datasets

        from idm.data.huggingface import HuggingFaceFaces, StreamedFaces

        try:
            dataset = datasets.load_dataset(
                self.path, data_files=self.data_files, split=self.split, streaming=self.streaming
            )
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            raise InvalidInput(f"data.source: {error}") from None
        if self.streaming:
            assert self.num_faces is not None  # checked with the configuration
            columns = self.image_column, self.landmarks_column
            return StreamedFaces(dataset, self.num_faces, *columns, size, seed, self.parts)
        return HuggingFaceFaces(dataset, self.image_column, self.landmarks_column, size, self.id_column)

    def impossible_combinations(self) -> list[str]:
        if self.streaming != (self.num_faces is not None):
            return ["num_faces: is needed with streaming, where no length is known, and only there"]
        if self.parts > 1 and not self.streaming:
            return ["parts: is for streaming only"]
        if self.num_faces is not None and self.parts > self.num_faces:
            return [f"parts: {self.parts}, but num_faces is {self.num_faces}"]
        return []


class AssetsConfig(Source):
    """The aligned faces under the folder named by the environment variable IDM_ASSETS."""

    name: Literal["assets"] = "assets"
    split: Literal["train", "val", "test"] = "train"
    """Folder below `faces256`."""

    def build(self, size: int, seed: int) -> "FaceSource":
        from idm.data.sources import FolderFaces

        return FolderFaces(self.folder(), size)

    def folder(self) -> Path:
        from idm.data.sources import assets_folder

        return assets_folder() / "faces256" / self.split


SourceConfig = Annotated[SyntheticConfig | FolderConfig | HuggingFaceConfig | AssetsConfig, Field(discriminator="name")]


class PairsConfig(Source):
    """Degraded faces with their originals, which are measured as they are; the originals are its clean faces."""

    name: Literal["pairs"] = "pairs"
    path: Path
    """Folder with the degraded faces in `lq` and originals of the same names in `hq`."""

    def build(self, size: int, seed: int) -> "FaceSource":
        from idm.data.sources import FolderFaces

        return FolderFaces(self.folder(), size)

    def folder(self) -> Path:
        return self.path / "hq"


class LQConfig(Source):
    """Degraded faces without originals, which are measured as they are."""

    name: Literal["lq"] = "lq"
    path: Path
    """The folder."""

    def build(self, size: int, seed: int) -> "FaceSource":
        raise InvalidInput(f"lq:{self.path}: clean faces are needed")

    def folder(self) -> Path:
        return self.path


# What models are measured on; training takes clean faces only.
MeasuredSourceConfig = Annotated[SourceConfig | PairsConfig | LQConfig, Field(discriminator="name")]


class DataConfig(Section):
    """The faces to train and validate on, and how they are read."""

    source: SourceConfig
    """P_X: the faces to train on. Without ``val_source`` its last ``validation.num_images`` faces are held out."""
    val_source: SourceConfig | None = None
    """The faces to validate on."""
    image_size: Annotated[int, Field(ge=16)]
    """Side in pixels to which the aligned faces are resized."""
    flip_probability: UnitInterval = 0.5
    """Share of training faces that are mirrored."""
    max_shift: Annotated[int, Field(ge=0)] = 0
    """Faces are moved by up to this many whole pixels in each direction, so that a pixel's place within a patch
    varies."""
    grey_probability: UnitInterval = 0.0
    """Share of faces that are grey, degraded and clean, so that the model keeps black-and-white portraits grey."""
    balance_groups: bool = False
    """Show faces of rare groups (``group`` in ``metadata.jsonl``) up to three times in an epoch."""
    cache: bool = True
    """Keep decoded, resized faces in memory (image_size^2 * 3 bytes each). The workers of a process share them."""
    num_workers: Annotated[int, Field(ge=0)] = 0
    """Processes that prepare batches; 0 prepares them in the training process."""


class DegradationConfig(Section):
    """A published preset, and what to change in it. Lengths are in pixels of a 512 px face."""

    preset: PresetName = "gfpgan"
    """Published recipe; see `idm.degradation.presets`."""
    clean_probability: UnitInterval = 0.03
    """Share of faces that stay undegraded, so that the model keeps clean faces clean."""
    skip_probability: UnitInterval = 0.0
    """Probability of skipping a step, drawn separately for blur, downscaling, noise and JPEG."""
    bicubic_probability: UnitInterval = 0.0
    """Share of faces that are resized to full size with bicubic instead of bilinear interpolation."""
    half_size_probability: UnitInterval = 0.0
    """Share of faces that are degraded at half their size and then enlarged, as small faces in photographs are."""
    mixture: dict[PresetName, UnitInterval] = {}
    """Shares of the training faces that other presets degrade; ``preset`` degrades the rest."""
    steps: list[Annotated[AnyStep, Field(discriminator="name")]] | None = None
    """Steps that replace the preset's."""
    blur_sigma: Annotated[LengthRange, AfterValidator(_rising)] | None = None
    """Range of the sigma of Gaussian blur; replaces the preset's, as do the fields below."""
    down: Annotated[FactorRange, AfterValidator(_rising)] | None = None
    """Range of the factor by which the face is shrunk; below 1 enlarges."""
    noise_sigma: Annotated[LengthRange, AfterValidator(_rising)] | None = None
    """Gaussian noise, range of sigma, in units of 1/255."""
    jpeg_quality: Annotated[QualityRange, AfterValidator(_rising)] | None = None
    """Range of the JPEG quality, within 1 to 100."""
