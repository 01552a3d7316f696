"""``idm clean``: restore a whole data set behind the gate."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import BaseModel

from idm.apps.cli.options.models import CleanOptions
from idm.config.assembly.data import evenly
from idm.config.assembly.extrinsic import build_cleaning, build_state
from idm.config.load import ConfigError, apply_override, load_config, validate
from idm.config.schema import CleaningConfig, IDMConfig, SourceConfig
from idm.data.sources import FaceSource, Part, StreamedFaces
from idm.extrinsic.clean import Cleaning
from idm.extrinsic.job import run_job
from idm.extrinsic.report import write_report
from idm.extrinsic.shards import Entry, read_images
from idm.io.errors import InvalidInput
from idm.io.images import decode_image
from idm.io.machine import keep_freed_memory, share_cores
from idm.io.ranges import chw_to_hwc, from_uint8, hwc_to_chw, to_uint8
from idm.restorers.saved import find_model, read_architecture


class _Source(BaseModel):
    source: SourceConfig


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
    model = find_model(options.model)
    size = read_architecture(model / "denoiser").image_size
    described = parse_source(options.data)
    source = described.build(size, options.seed)
    if options.report and isinstance(source, StreamedFaces):
        raise InvalidInput("--report: the faces of a stream cannot be read again; use a source that can be indexed")
    metadata = {**described.model_dump(mode="json"), "num_images": options.num_images}
    if options.num_images is not None:
        source = _part(source, options.num_images)
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


def parse_source(text: str) -> SourceConfig:
    """What ``--data`` names: assets:SPLIT, synthetic[:N], a configuration file, a ``data.source`` as YAML, or a
    folder.

    Raises:
        ConfigError: it is none of them.
    """
    if text.endswith((".yaml", ".yml")):
        return load_config(Path(text), IDMConfig).data.source
    name, _, detail = text.partition(":")
    if text.startswith("{"):
        try:
            raw = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--data: is not YAML: {error}") from None
    elif name == "assets":
        raw = {"name": "assets", "split": detail or "train"}
    elif name == "synthetic" and (not detail or detail.isdigit()):
        raw = {"name": "synthetic", **({"num_faces": int(detail)} if detail else {})}
    else:
        raw = {"name": "folder", "path": text}
    return validate(_Source, {"source": raw}, "--data").source


def _part(source: FaceSource | StreamedFaces, num_images: int) -> FaceSource:
    if isinstance(source, StreamedFaces):
        raise InvalidInput("--num-images: a stream has its own num_faces")
    if not 1 <= num_images <= len(source):
        raise InvalidInput(f"--num-images: {num_images} of the {len(source)} faces there are")
    return Part(source, evenly(len(source), num_images))


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
