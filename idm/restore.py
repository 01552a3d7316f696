"""Restoring files: every face that can be restored is, every one that cannot is named."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from idm.data.images import ImageError, Picture, find_images, read_image, resize_image, write_image
from idm.data.ranges import chw_to_hwc, from_uint8, hwc_to_chw, to_uint8
from idm.restorer import Restorer

MIN_SIDE = 8


@dataclass
class Report:
    """What became of a job's files."""

    written: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: list[ImageError] = field(default_factory=list)


def restore_files(
    restorer: Restorer,
    inputs: Sequence[Path],
    output: Path,
    *,
    seed: int = 0,
    batch_size: int = 8,
    output_size: Literal["model", "input"] = "model",
    skip_existing: bool = False,
    on_file: Callable[[Path, ImageError | None], None] | None = None,
) -> Report:
    """Restore aligned faces, files or folders, into PNG files under ``output``; folders keep their structure.

    A face is resized to the restorer's size; the result has that size, or with ``output_size="input"`` the
    file's own. Transparency and colour profile are kept. Every file is drawn with the same ``seed``, so that its
    result does not depend on what else is in the job.

    Raises:
        ImageError: before any work: an input does not exist, holds no image, or would be overwritten.
    """
    report = Report()
    todo = plan(inputs, output)
    if skip_existing:
        report.skipped = [target for target in todo.values() if target.exists()]
        todo = {source: target for source, target in todo.items() if not target.exists()}

    def done(source: Path, error: ImageError | None) -> None:
        if error is None:
            report.written.append(todo[source])
        else:
            report.failed.append(error)
        if on_file is not None:
            on_file(source, error)

    for batch in _read(list(todo), batch_size, done):
        size = restorer.image_size
        lq = torch.stack([hwc_to_chw(from_uint8(resize_image(p.rgb, (size, size)))) for _, p in batch])
        restored = restorer.restore(lq, [seed] * len(batch))
        for (source, picture), image in zip(batch, to_uint8(restored.cpu()), strict=True):
            try:
                _write(todo[source], chw_to_hwc(image), picture, output_size)
            except ImageError as error:
                done(source, error)
            else:
                done(source, None)
    return report


def plan(inputs: Sequence[Path], output: Path) -> dict[Path, Path]:
    """Which file each input becomes: its path within the folder it was found in, as PNG."""
    targets: dict[Path, Path] = {}
    for given in inputs:
        for source in find_images([given]):
            inside = source.relative_to(given) if given.is_dir() else Path(source.name)
            target = output / inside.with_suffix(".png")
            if target in targets.values():  # a.jpg beside a.png
                target = output / inside.with_name(f"{inside.stem}_{inside.suffix[1:]}.png")
            if target in targets.values():
                raise ImageError(f"{source}: another input would be written to {target} too; restore it by itself")
            targets[source] = target
    overwritten = {source.resolve() for source in targets} & {target.resolve() for target in targets.values()}
    if overwritten:
        raise ImageError(f"{min(overwritten)}: would be overwritten; choose another output folder")
    return targets


def _read(
    sources: Sequence[Path], batch_size: int, done: Callable[[Path, ImageError | None], None]
) -> Iterator[list[tuple[Path, Picture]]]:
    """Batches of readable faces; the others are reported as failed."""
    batch: list[tuple[Path, Picture]] = []
    for source in sources:
        try:
            batch.append((source, _read_face(source)))
        except ImageError as error:
            done(source, error)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _read_face(path: Path) -> Picture:
    picture = read_image(path)
    height, width = picture.rgb.shape[:2]
    if height != width:
        raise ImageError(f"{path}: is {width}x{height}; an aligned face is square: align and crop it first")
    if height < MIN_SIDE:
        raise ImageError(f"{path}: is {width}x{height}; a face needs at least {MIN_SIDE}x{MIN_SIDE} pixels")
    return picture


def _write(path: Path, face: np.ndarray, picture: Picture, output_size: Literal["model", "input"]) -> None:
    if output_size == "input":
        height, width = picture.rgb.shape[:2]
        face = resize_image(face, (height, width))
    alpha = picture.alpha
    if alpha is not None:
        alpha = resize_image(np.repeat(alpha[..., None], 3, axis=2), face.shape[:2])[..., 0]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"{path}: its folder cannot be made ({error.strerror})") from error
    write_image(path, face, alpha=alpha, icc_profile=picture.icc_profile)
