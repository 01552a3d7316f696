"""``idm clean``: restore a whole data set behind the gate."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from idm.apps.cli.faces import some_faces
from idm.apps.cli.options.models import CleanOptions
from idm.apps.cli.parse import parse_source
from idm.config.assembly.extrinsic import build_cleaning, build_state, load_cleaner
from idm.config.load import apply_override, validate
from idm.config.schema import CleaningConfig
from idm.data.huggingface import StreamedFaces
from idm.extrinsic.clean import Cleaning
from idm.extrinsic.job import run_job
from idm.extrinsic.report import write_report
from idm.extrinsic.shards import Entry, read_images
from idm.io.errors import InvalidInput
from idm.io.images import decode_image
from idm.io.machine import keep_freed_memory, share_cores
from idm.io.ranges import chw_to_hwc, from_uint8, hwc_to_chw, to_uint8


def clean_command(options: CleanOptions) -> int:
    """``idm clean``: 0 if the data set was cleaned; unreadable faces are listed."""
    keep_freed_memory()
    state = build_state()
    if state.device.type == "cpu":
        share_cores(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    raw: dict[str, Any] = {}
    for setting in options.settings:
        apply_override(raw, setting)
    config = validate(CleaningConfig, raw, "idm clean")
    if options.seed < 0:
        raise InvalidInput(f"--seed: must be 0 or above, got {options.seed}")
    described = parse_source(options.data)
    model = load_cleaner(options.model)
    source = described.build(model.image_size, options.seed)
    if options.report and isinstance(source, StreamedFaces):
        raise InvalidInput("--report: the faces of a stream cannot be read again; use a source that can be indexed")
    metadata = {**described.model_dump(mode="json"), "num_images": options.num_images}
    if options.num_images is not None:
        if isinstance(source, StreamedFaces):
            raise InvalidInput("--num-images: a stream has its own num_faces")
        source = some_faces(source, options.num_images)
    job = build_cleaning(source, metadata, model, options.output, config, options.seed)
    summary = run_job(job, state)
    if not state.is_main_process:
        return 0
    if options.report:
        print(f"report: {write_report(options.output, lambda entries: _pictures(job, entries))}")
    reasons = ", ".join(f"{count} {reason}" for reason, count in summary["reasons"].items())
    print(f"{summary['num_faces']} faces: {summary['accepted']} replaced ({reasons})")
    print(f"{summary['unreadable']} unreadable, {summary['duplicates']} duplicates -> {options.output}")
    return 0


def _pictures(job: Cleaning, entries: Sequence[Entry]) -> list[tuple[np.ndarray, np.ndarray]]:
    """x and x* of some faces; x* of accepted faces is read from the shards, x* of rejected faces is sampled again."""
    assert not isinstance(job.source, StreamedFaces)  # checked before the work
    wanted = {entry.index for entry in entries if entry.accepted}
    shards = {index // job.settings.shard_size for index in wanted}
    kept = {i: data for number in shards for i, data in read_images(job.paths[number]) if i in wanted}
    pictures = []
    for entry in entries:
        x = job.source[entry.index].image
        if entry.accepted:
            pictures.append((x, decode_image(kept[entry.index], entry.id).rgb))
        else:
            assert entry.seed is not None
            restored = job.restorer.restore(hwc_to_chw(from_uint8(x))[None], [entry.seed])
            pictures.append((x, chw_to_hwc(to_uint8(restored.cpu())[0])))
    return pictures
