"""Restore files; a file that cannot be restored is reported by name and does not affect the others.

PyAV is an optional extra and is imported only if there is a video.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from idm.apps.photo.job import Job, ProgressCallbacks, Report
from idm.apps.photo.photo_restorer import PhotoRestorer
from idm.apps.photo.plan import as_png, as_preview, nothing_beside, same_suffix
from idm.apps.photo.preview import draw_faces
from idm.apps.photo.settings import FileFormat, OutputSize, PhotoSettings
from idm.faces.detect import choose_faces
from idm.faces.geometry import roll_angle
from idm.io.encoding import RESULTS, Encoding
from idm.io.image_writer import write_image, write_whole
from idm.io.images import READ_SUFFIXES, ImageError, Picture, read_image, resize_image
from idm.io.photo_writer import KEPT_SUFFIXES, write_photo
from idm.io.photos import Photo, read_photo
from idm.io.ranges import chw_to_hwc, from_uint8, hwc_to_chw, to_uint8
from idm.restorers.protocol import Restorer

MIN_SIDE = 8


class FacesFailed(ImageError):
    """Faces of a photograph could not be restored; nothing was written."""


# ------------------------------------------------------------------------------------------- photographs


def restore_photos(
    restorer: PhotoRestorer,
    inputs: Sequence[Path],
    output: Path,
    settings: PhotoSettings,
    *,
    metadata: Mapping[str, Any] | None = None,
    file_format: FileFormat = "same",
    encoding: Encoding | None = None,
    preview: bool = False,
    skip_existing: bool = False,
    overwrite: bool = False,
    max_memory: int | None = None,
    progress: ProgressCallbacks | None = None,
) -> Report:
    """Restore photographs and videos, files or folders, into ``output``; folders keep their structure.

    JPEG, PNG and WebP files keep their format, or all become PNG; other formats become PNG. A file without a face to
    restore is written too, with the state "no face", "not chosen", or "kept" if all restored faces were rejected. It is
    copied byte for byte if its format stays and nothing changes. A file in which a face failed is not written and
    counts as failed. A failure does not affect other files. Files with the suffix of a video
    (:data:`idm.io.encoding.RESULTS`) are restored by :func:`idm.apps.photo.video.restore_video`.

    Args:
        metadata: further entries of ``status.json``, such as the model.
        encoding: of videos.
        max_memory: for a photograph or the frames of a video, in bytes; a file that needs more fails before it is
            decoded. By default :func:`idm.io.memory.default_budget`.
        preview: only write pictures that show the detected faces with their numbers and scores.

    Raises:
        ImageError: before any work: an input does not exist, holds no image, or would be overwritten; a file that no
            job wrote would be, without ``overwrite``; another job works in the folder; or no reference photograph
            shows one person alone.
        ImportError: before any work: there is a video, and PyAV is not installed.
        ValueError: before any work: the file format of a video cannot hold ``encoding``.
    """
    picture_suffix = as_preview if preview else as_png if file_format == "png" else same_suffix(KEPT_SUFFIXES)
    encoding = encoding or Encoding()
    reference = None if preview else restorer.reference(settings)
    settled = {
        **(metadata or {}),
        **asdict(settings),
        "reference_faces": None if reference is None else reference.summary(),
        "encoding": asdict(encoding),
    }
    job = Job(
        inputs,
        output,
        settings=settled,
        suffix=lambda path: RESULTS.get(path.suffix.lower()) or picture_suffix(path),
        suffixes=(*READ_SUFFIXES, *RESULTS),
        beside=_map_beside if settings.uncertainty and not preview else nothing_beside,
        status="preview.json" if preview else "status.json",
        skip_existing=skip_existing,
        overwrite=overwrite,
        max_memory=max_memory,
        progress=progress,
    )
    _check_videos([target for source, target in job.todo.items() if _is_video(source)], encoding)
    with job:
        for source in job:
            _restore_file(job, source, restorer, settings, encoding, preview)
    return job.report


def _restore_file(
    job: Job, source: Path, restorer: PhotoRestorer, settings: PhotoSettings, encoding: Encoding, preview: bool
) -> None:
    """Restore one file, or draw its faces; a failure is recorded."""
    start = time.monotonic()
    details: dict[str, Any] = {}
    try:
        if preview:
            state = _preview(job, source, restorer, settings, details)
        elif _is_video(source):
            state = _restore_video(job, source, restorer, settings, encoding, details)
        else:
            state = _restore(job, source, restorer, settings, details)
    except Exception as error:  # recorded with its traceback, shown, and makes the exit status 1
        job.failed(source, error, details)
    else:
        job.wrote(source, state, details | {"seconds": round(time.monotonic() - start, 3)})


def _restore(job: Job, source: Path, restorer: PhotoRestorer, settings: PhotoSettings, details: dict[str, Any]) -> str:
    """Write one photograph and return its state; the facts about it are added to ``details``."""
    photo = read_photo(source, max_bytes=job.max_memory, scale=settings.upscale)
    done = restorer.restore(photo, settings)
    job.report.longest_side = max(job.report.longest_side, *photo.pixels.shape[:2])
    reports = [asdict(face) for face in sorted([*done.faces, *done.left_alone], key=lambda face: face.number)]
    details |= {"faces_found": done.num_found, "faces": reports}
    broken = [f"face {face.number} {face.note}" for face in done.faces if face.state == "failed"]
    if broken:
        raise FacesFailed(f"{source}: {'; '.join(broken)}")
    target = job.make_folder(source)
    if done.uncertainty is not None:
        (beside,) = _map_beside(target)
        write_photo(beside, Photo(np.repeat(done.uncertainty[..., None], 3, axis=2), is_grey=True))
        details["uncertainty"] = str(beside)
    # last: a file that is there is complete
    if target.suffix == source.suffix and np.array_equal(done.photo.pixels, photo.pixels):
        write_whole(target, source.read_bytes())
    elif not_kept := [*photo.dropped, *write_photo(target, done.photo)]:
        details["not_kept"] = not_kept
    job.report.faces.update(face.state for face in done.left_alone)
    return _state(job, [face.state for face in done.faces], done.num_found)


def _map_beside(target: Path) -> tuple[Path, ...]:
    """The path of a photograph's uncertainty map; videos have none."""
    return () if _is_video(target) else (target.with_name(f"{target.stem}.uncertainty.png"),)


def _state(job: Job, faces: Sequence[str], num_found: int) -> str:
    """A file's state from those of its chosen faces, which are counted."""
    job.report.faces.update(faces)
    if faces:
        return "restored" if "restored" in faces else "kept"
    return "not chosen" if num_found else "no face"


def _preview(job: Job, source: Path, restorer: PhotoRestorer, settings: PhotoSettings, details: dict[str, Any]) -> str:
    if _is_video(source):
        raise ImageError(f"{source}: --preview is for photographs; status.json numbers the faces of a video")
    photo = read_photo(source, max_bytes=job.max_memory)
    job.report.longest_side = max(job.report.longest_side, *photo.pixels.shape[:2])
    found = restorer.find(photo.pixels, settings)
    chosen = choose_faces(found, settings.min_face, settings.faces)
    faces = [
        {
            "number": number,
            "box": face.box.round(2).tolist(),
            "score": round(face.score, 4),
            "turned": round(roll_angle(face.landmarks)),
        }
        for number, face in enumerate(found)
    ]
    details |= {"faces_found": len(found), "faces_chosen": chosen, "faces": faces}
    write_image(job.make_folder(source), draw_faces(photo.pixels, found, chosen))
    return "previewed" if found else "no face"


def _is_video(source: Path) -> bool:
    return source.suffix.lower() in RESULTS


def _check_videos(targets: Sequence[Path], encoding: Encoding) -> None:
    if targets:
        from idm.io.video.write import find_encoder

        for target in targets:
            find_encoder(encoding, target.suffix)


def _restore_video(
    job: Job,
    source: Path,
    restorer: PhotoRestorer,
    settings: PhotoSettings,
    encoding: Encoding,
    details: dict[str, Any],
) -> str:
    from idm.apps.photo.video import restore_video

    target = job.make_folder(source)
    on_frames = partial(job.progress.on_frames, source)
    details |= restore_video(
        restorer,
        source,
        target,
        settings,
        encoding,
        metadata=job.settings,
        max_memory=job.max_memory,
        on_frames=on_frames,
    )
    people = details["people"]
    chosen = [person for person in people if person["num_restored"] or person["num_kept"]]
    return _state(job, ["restored" if person["num_restored"] else "kept" for person in chosen], len(people))


# ------------------------------------------------------------------------------------------- aligned faces


def restore_files(
    restorer: Restorer,
    inputs: Sequence[Path],
    output: Path,
    *,
    seed: int = 0,
    batch_size: int = 8,
    output_size: OutputSize = "model",
    metadata: Mapping[str, Any] | None = None,
    skip_existing: bool = False,
    overwrite: bool = False,
    max_memory: int | None = None,
    progress: ProgressCallbacks | None = None,
) -> Report:
    """Restore aligned faces, files or folders, into PNG files under ``output``; folders keep their structure.

    A face is resized to the restorer's size; the result has that size, or with ``output_size="input"`` the file's own.
    Transparency and colour profile are kept. Every file is restored with the same ``seed``, so that its result does not
    depend on the other files of the job.

    Raises:
        ImageError: before any work: an input does not exist, holds no image, or would be overwritten; a file that no
            job wrote would be, without ``overwrite``; or another job works in the folder.
    """
    settings = {**(metadata or {}), "aligned": True, "seed": seed, "output_size": output_size}
    job = Job(
        inputs,
        output,
        settings=settings,
        skip_existing=skip_existing,
        overwrite=overwrite,
        max_memory=max_memory,
        progress=progress,
    )
    with job:
        for batch in _read_batches(job, batch_size):
            size = restorer.image_size
            lq = torch.stack([hwc_to_chw(from_uint8(resize_image(p.rgb, (size, size)))) for _, p in batch])
            restored = restorer.restore(lq, [seed] * len(batch))
            for (source, picture), image in zip(batch, to_uint8(restored.cpu()), strict=True):
                try:
                    _write_face(job.make_folder(source), chw_to_hwc(image), picture, output_size)
                except ImageError as error:
                    job.failed(source, error)
                else:
                    job.wrote(source)
    return job.report


def _read_batches(job: Job, batch_size: int) -> Iterator[list[tuple[Path, Picture]]]:
    """Batches of readable faces; the others are reported as failed."""
    batch: list[tuple[Path, Picture]] = []
    for source in job:
        try:
            batch.append((source, _read_face(source, job.max_memory)))
        except ImageError as error:
            job.failed(source, error)
        if len(batch) == batch_size or sum(picture.rgb.nbytes for _, picture in batch) > job.max_memory // 4:
            yield batch
            batch = []
    if batch:
        yield batch


def _read_face(path: Path, max_bytes: int) -> Picture:
    picture = read_image(path, max_bytes)
    height, width = picture.rgb.shape[:2]
    if height != width:
        raise ImageError(f"{path}: is {width}x{height}; an aligned face is square: align and crop it first")
    if height < MIN_SIDE:
        raise ImageError(f"{path}: is {width}x{height}; a face needs at least {MIN_SIDE}x{MIN_SIDE} pixels")
    return picture


def _write_face(path: Path, face: np.ndarray, picture: Picture, output_size: OutputSize) -> None:
    if output_size == "input":
        height, width = picture.rgb.shape[:2]
        face = resize_image(face, (height, width))
    alpha = picture.alpha
    if alpha is not None:
        alpha = resize_image(np.repeat(alpha[..., None], 3, axis=2), face.shape[:2])[..., 0]
    write_image(path, face, alpha=alpha, icc_profile=picture.icc_profile)
