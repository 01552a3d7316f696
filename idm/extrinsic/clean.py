"""The cleaning job: x* = f_theta(x) for all x ~ P_X, behind the gate, in shards.

The source is cut into shards of consecutive faces and each shard into fixed batches. A shard is finished when its file
and its record exist. Its content depends only on source, model and settings, not on the process that made it or on
interruptions. Processes on several machines share the output folder and need no other communication.
"""

import hashlib
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch

from idm.data.huggingface import StreamedFaces
from idm.data.sources import Face, FaceSource
from idm.evaluation.pixels import psnr
from idm.extrinsic.gate import Decision, Gate, decide
from idm.extrinsic.manifest import CARD, MANIFEST, SUMMARY
from idm.extrinsic.quality import Quality, measure
from idm.extrinsic.reading import ReadFace, build_reader, face_digests
from idm.extrinsic.shards import (
    DATA,
    RECORDS,
    CleanedFace,
    CleanError,
    Entry,
    is_finished,
    is_whole,
    read_record,
    record_path,
    shard_path,
    write_shard,
)
from idm.extrinsic.stream import count_parts
from idm.faces.recognition import IdentityNet, cosine_similarity
from idm.faces.template import ffhq_landmarks
from idm.io.atomic import CheckpointError, read_json, write_json
from idm.io.find import as_text
from idm.io.images import ImageError
from idm.io.machine import num_usable_cores
from idm.io.ranges import chw_to_hwc, from_uint8, hwc_to_chw, to_uint8
from idm.restorers.protocol import Restorer

METADATA = "clean.json"


@dataclass(frozen=True)
class CleanSettings:
    """Settings of a cleaning job. Together with source and model, they determine its result.

    Args:
        samples: x* drawn for each face, of which the accepted one with the best identity is used.
        batch_size: faces restored at once.
        shard_size: faces of a shard, the most that a kill can cost each process.
    """

    seed: int = 0
    samples: int = 1
    batch_size: int = 16
    shard_size: int = 256
    image_format: Literal["png", "jpg"] = "png"


class Cleaning:
    """One process's view of a job.

    Args:
        metadata: "source" and "model" as JSON; a folder that was made with others is rejected.
        gate: None accepts every x*.
        identity: None if the gate does not need it.
    """

    def __init__(
        self,
        source: FaceSource | StreamedFaces,
        restorer: Restorer,
        output: Path,
        *,
        settings: CleanSettings,
        gate: Gate | None,
        identity: IdentityNet | None,
        metadata: dict[str, Any],
    ) -> None:
        self.source, self.restorer, self.output = source, restorer, output
        self.settings, self.gate, self.identity = settings, gate, identity
        num_faces = source.num_faces if isinstance(source, StreamedFaces) else len(source)
        self.metadata = {
            **metadata,
            "num_faces": num_faces,
            "image_size": restorer.image_size,
            "gate": None if gate is None else asdict(gate),
            "settings": asdict(settings),
        }
        starts = range(0, num_faces, settings.shard_size)
        self.sizes = [num_faces]  # of the parts of a stream, once they are counted
        self.ranges = [range(start, min(start + settings.shard_size, num_faces)) for start in starts]
        self.paths = [shard_path(output, number, len(self.ranges)) for number in range(len(self.ranges))]

    def claim(self) -> None:
        """Claim the output folder, or reject one that holds another job or lacks space; for the main process only.

        The files that it holds of this job are not read: see :meth:`verify`.

        Raises:
            CleanError: states what differs, or how much space is missing.
        """
        path = self.output / METADATA
        ours = [self.output / name for name in (CARD, MANIFEST, SUMMARY, RECORDS, "report")]
        others = [file for file in (*ours, *(self.output / DATA).glob("*")) if file.exists()]
        if not path.exists() and others:
            raise CleanError(f"{others[0]}: does not belong to this job; choose another output folder")
        if path.exists():
            before, now = _flat(_read_metadata(path)), _flat(self.metadata)
            changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
            if changed:
                raise CleanError(
                    f"{self.output}: holds the result of a job with another {', '.join(changed)}; "
                    "choose another output folder, or delete this one to start again"
                )
        try:
            (self.output / DATA).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CleanError(f"{self.output}: cannot be made ({error.strerror})") from error
        for draft in (self.output / DATA).glob(".unfinished-*"):
            draft.unlink()
        self._require_space()
        write_json(path, self.metadata)

    def count_stream(self, rank: int, world: int) -> None:
        """Count the faces in the parts of a streamed source; each of the ``world`` processes counts some of the parts.

        Raises:
            CleanError: the stream has too few faces.
        """
        if isinstance(self.source, StreamedFaces):
            self.sizes = count_parts(self.source, self.output / RECORDS, rank, world)

    def verify(self) -> None:
        """Treat damaged finished shards as missing, and reject a source that has changed since; for the main process
        only.

        Raises:
            CleanError: the source has changed, or there is no space for the missing shards.
        """
        for shard in self.paths:
            if not is_whole(shard):
                record_path(shard).unlink(missing_ok=True)
        finished = [number for number, path in enumerate(self.paths) if is_finished(path)]
        found = face_digests(self.source, self.sizes, (index for number in finished for index in self.ranges[number]))
        for number in finished:
            origin = hashlib.sha256("".join(islice(found, len(self.ranges[number]))).encode()).hexdigest()
            if origin != read_record(self.paths[number])["source_sha256"]:
                raise CleanError(
                    f"{self.paths[number]}: was made from other faces than the source has now; restore the source, or "
                    "choose another output folder"
                )
        self._require_space()

    def todo(self) -> list[int]:
        """Numbers of the missing shards."""
        return [number for number, path in enumerate(self.paths) if not is_finished(path)]

    def run(self, shards: Sequence[int], on_batch: Callable[[int], None]) -> None:
        """Make some shards, in their order; ``on_batch`` is called with the number of finished faces.

        Threads read the next faces and write the previous shard while this one is restored.
        """
        read = build_reader(self.source, self.sizes, must_be_alignable=self.identity is not None)
        indices = [index for number in shards for index in self.ranges[number]]
        num_readers = 1 if isinstance(self.source, StreamedFaces) else min(8, num_usable_cores())
        with ThreadPoolExecutor(num_readers) as readers, ThreadPoolExecutor(1) as writer:
            coming = _ahead(readers, read, indices, 2 * self.settings.batch_size)
            written: Future[None] | None = None
            for number in shards:
                origin = hashlib.sha256()
                faces, unreadable = self._restore(islice(coming, len(self.ranges[number])), on_batch, origin)
                if written is not None:
                    written.result()
                path, format = self.paths[number], self.settings.image_format
                written = writer.submit(write_shard, path, faces, unreadable, format, origin.hexdigest())
            if written is not None:
                written.result()

    def _restore(
        self, coming: Iterable[tuple[int, Future[ReadFace]]], on_batch: Callable[[int], None], origin: "hashlib._Hash"
    ) -> tuple[list[CleanedFace], list[Entry]]:
        """A shard's faces, batch by batch, and those that cannot be read; ``origin`` hashes their source."""
        faces: list[CleanedFace] = []
        unreadable: list[Entry] = []

        def readable() -> Iterator[tuple[int, Face]]:
            for index, coming_face in coming:
                digest, face = coming_face.result()
                origin.update(digest.encode())
                if isinstance(face, ImageError):
                    unreadable.append(Entry(f"{index:08d}", index, None, None, False, as_text(str(face))))
                    on_batch(1)
                else:
                    yield index, face

        rest = readable()
        while batch := list(islice(rest, self.settings.batch_size)):
            faces += self._clean(batch)
            on_batch(len(batch))
        return faces, unreadable

    # ---------------------------------------------------------------------------------------- one batch

    def _clean(self, batch: Sequence[tuple[int, Face]]) -> Iterator[CleanedFace]:
        x_d = torch.stack([hwc_to_chw(from_uint8(face.image)) for _, face in batch])
        before = [measure(face.image) for _, face in batch]
        embedded = self._embed([face.image for _, face in batch], batch)
        samples = []
        for sample in range(self.settings.samples):
            seeds = [face_seed(self.settings.seed, index, sample) for index, _ in batch]
            restored = self.restorer.restore(x_d, seeds)
            images = [chw_to_hwc(image) for image in to_uint8(restored.cpu())]
            if embedded is None:
                identities: list[float | None] = [None] * len(batch)
            else:
                again = self._embed(images, batch)
                assert again is not None
                identities = [round(float(value), 4) for value in cosine_similarity(embedded, again)]
            samples.append(list(zip(seeds, images, identities, strict=True)))
        for i, (index, face) in enumerate(batch):
            candidates = [self._candidate(index, face, before[i], *drawn[i]) for drawn in samples]
            yield max(candidates, key=_merit)

    def _candidate(
        self, index: int, face: Face, before: Quality, seed: int, restored: np.ndarray, identity: float | None
    ) -> CleanedFace:
        after = measure(restored)
        decision: Decision = decide(self.gate, before, after, identity)
        distance = psnr(from_uint8(restored), from_uint8(face.image))
        shift = np.subtract(cv2.mean(restored), cv2.mean(face.image))[:3]  # numpy's mean is fifty times slower
        entry = Entry(
            id=as_text(face.key),
            index=index,
            sha256=pixel_hash(face.image),
            seed=seed,
            accepted=decision.accepted,
            reason=decision.reason,
            identity=identity,
            psnr=None if np.array_equal(restored, face.image) else round(distance, 3),
            colour_shift=[round(float(value), 3) for value in shift],
            **{f"{name}_before": round(value, 4) for name, value in asdict(before).items()},
            **{f"{name}_after": round(value, 4) for name, value in asdict(after).items()},
        )
        return CleanedFace(restored if decision.accepted else face.image, face.landmarks, entry)

    def _embed(self, images: Sequence[np.ndarray], batch: Sequence[tuple[int, Face]]) -> np.ndarray | None:
        if self.identity is None:
            return None
        template = ffhq_landmarks(self.restorer.image_size)  # aligned faces have theirs there
        landmarks = [template if face.landmarks is None else face.landmarks for _, face in batch]
        return self.identity.embed([from_uint8(image) for image in images], landmarks)

    # ------------------------------------------------------------------------------------------ the rest

    def _require_space(self) -> None:
        """An 8-bit picture as PNG is hardly ever larger than its pixels, as JPEG of quality 95 than half of them."""
        share = 1.0 if self.settings.image_format == "png" else 0.5
        faces = sum(len(self.ranges[number]) for number in self.todo())
        needed = round(faces * 3 * self.restorer.image_size**2 * share)
        free = shutil.disk_usage(self.output).free
        if needed > free:
            raise CleanError(
                f"{self.output}: {faces} faces may need {needed / 1e9:.2f} GB, but only {free / 1e9:.2f} GB are free; "
                "make room, or choose another output folder"
            )


def _ahead(
    threads: Executor, read: Callable[[int], ReadFace], indices: Iterable[int], depth: int
) -> Iterator[tuple[int, Future[ReadFace]]]:
    """Faces in their order; up to ``depth`` are read ahead."""
    pending: deque[tuple[int, Future[ReadFace]]] = deque()
    for index in indices:
        pending.append((index, threads.submit(read, index)))
        if len(pending) > depth:
            yield pending.popleft()
    yield from pending


def _merit(face: CleanedFace) -> tuple[bool, float]:
    """Accepted before rejected, then the better identity; without one the first sample."""
    return face.entry.accepted, face.entry.identity or 0.0


def face_seed(seed: int, index: int, sample: int) -> int:
    """A 63-bit seed for one sample of one face."""
    words = np.random.SeedSequence([0x636C65616E, seed, index, sample]).generate_state(1, np.uint64)
    return int(words[0] >> 1)


def pixel_hash(image: np.ndarray) -> str:
    """The sha256 of the pixels of an image."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def _read_metadata(path: Path) -> dict[str, Any]:
    try:
        metadata = read_json(path)
    except (CheckpointError, OSError):
        metadata = None
    if not isinstance(metadata, dict):
        raise CleanError(f"{path}: is damaged; delete the folder and clean again, or choose another output folder")
    return metadata


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for key, item in value.items() for k, v in _flat(item, f"{prefix}.{key}" if prefix else key).items()}
