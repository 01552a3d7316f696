"""Restore photographs and folders from Python, with the settings of the command line."""

import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8, UInt16
from PIL import Image

from idm.apps.photo.files import restore_photos
from idm.apps.photo.job import Report
from idm.apps.photo.photo_restorer import PhotoRestorer, RestoredPhoto
from idm.apps.photo.settings import PhotoSettings
from idm.faces.detector.load import load_detector
from idm.faces.recognition import find_identity
from idm.io.machine import best_device, inference_dtype
from idm.io.photos import Photo, read_photo, to_photo
from idm.restorers.load import load_restorer

Pixels = UInt8[np.ndarray, "h w 3"] | UInt16[np.ndarray, "h w 3"]


@cache
def load_photo_restorer(
    model: str | Path | None = None, device: str | None = None, weights_dir: str | Path | None = None
) -> PhotoRestorer:
    """Load everything that photographs are restored with; the same arguments give the same object.

    Args:
        model: see :func:`~idm.restorers.load.load_restorer`; None is the bundled model.
        device: such as "cpu" or "cuda:0"; None is the best available.
        weights_dir: folder of the weights of the detector and the identity network; by default searched as
            :func:`idm.io.weights.find_weights` says. Without those of the identity network, with a warning,
            identities are not measured.

    Raises:
        FileNotFoundError: weights are missing; says where to get them.
        ModelError, ThirdPartyModelError: the model cannot be loaded.

    Example:
        >>> restorer = idm.load_photo_restorer("idm-faces-128", device="cpu")
        >>> result = idm.restore_photo("photo.jpg", restorer=restorer)
    """
    where = torch.device(device) if device else best_device()
    folder = Path(weights_dir) if weights_dir else None
    loaded = load_restorer(model, where, inference_dtype(where))
    identity = find_identity(folder, str(where), _warn)
    return PhotoRestorer(loaded.restorer, load_detector(weights=folder, device=str(where)), identity)


def _warn(error: FileNotFoundError) -> None:
    warnings.warn(f"identities are not measured. {error}", stacklevel=4)


def restore_photo(
    image: str | Path | Image.Image | Pixels,
    settings: PhotoSettings | None = None,
    *,
    restorer: PhotoRestorer | None = None,
) -> RestoredPhoto:
    """Restore the faces of one photograph.

    Args:
        image: a file, a PIL image, or RGB levels (h, w, 3), uint8 or uint16.
        settings: by default every face is restored as far as it improves, and nothing else changes.
        restorer: from :func:`load_photo_restorer`; None loads the bundled model, once.

    Returns:
        ``.photo.pixels`` are the levels of the result, ``.image`` is a PIL image of 8 bits, and
        :func:`idm.io.photo_writer.write_photo` writes ``.photo`` with its metadata. ``.faces`` has a report for each
        chosen face, ``.left_alone`` for each other face, with the reason.

    Raises:
        ImageError: the file cannot be read, or has several pages or frames.
        ValueError: settings that do not fit this photograph, such as the number of a missing face.
        FileNotFoundError, ModelError: as :func:`load_photo_restorer`.

    Example:
        >>> result = idm.restore_photo("photo.jpg", idm.PhotoSettings(faces="largest"))
        >>> result.image.save("restored.png")
        >>> [face.number for face in result.faces]
        [0]
    """
    if isinstance(image, str | Path):
        photo = read_photo(Path(image))
    else:
        photo = to_photo(image) if isinstance(image, Image.Image) else Photo(image)
    return (restorer or load_photo_restorer()).restore(photo, settings or PhotoSettings())


def restore_folder(
    inputs: str | Path | Sequence[str | Path],
    output: str | Path,
    settings: PhotoSettings | None = None,
    *,
    restorer: PhotoRestorer | None = None,
    skip_existing: bool = False,
) -> Report:
    """Restore photographs and videos, files or folders, into ``output``, as ``idm restore`` does;
    ``output/status.json`` has an entry for each.

    Args:
        settings, restorer: as in :func:`restore_photo`.
        skip_existing: skip files whose result exists and was made from the same bytes and settings.

    Returns:
        The written, skipped and failed files, counted by state. A failed file does not affect the others.

    Raises:
        ImageError, ImportError, ValueError: as :func:`idm.apps.photo.files.restore_photos`.

    Example:
        >>> report = idm.restore_folder("photos", "restored", idm.PhotoSettings(faces="largest"))
        >>> sorted(path.name for path in Path("restored").iterdir())
        ['photo.jpg', 'status.json']
    """
    paths = [Path(inputs)] if isinstance(inputs, str | Path) else [Path(path) for path in inputs]
    return restore_photos(
        restorer or load_photo_restorer(), paths, Path(output), settings or PhotoSettings(), skip_existing=skip_existing
    )
