"""The extrinsic iteration: cleaning jobs, pools and rounds from their sections."""

import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, assert_never

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from tqdm import tqdm

from idm.config.assembly.data import build_data
from idm.config.assembly.intrinsic import build_learner
from idm.config.assembly.run import MILDER, TrainingFaces, build_run, claim_folder
from idm.config.load import ConfigError
from idm.config.schema import CleaningConfig, IDMConfig
from idm.data.cache import Cached
from idm.data.huggingface import StreamedFaces
from idm.data.mixing import Pool, constant_share, linear_share
from idm.data.sources import FaceSource, FolderFaces, OnOriginals, Part
from idm.extrinsic.clean import Cleaning, CleanSettings
from idm.extrinsic.gate import Gate
from idm.extrinsic.job import run_job
from idm.extrinsic.manifest import read_manifest
from idm.extrinsic.rounds import Rounds, Stages
from idm.extrinsic.shards import POLL_SECONDS, cleaned_faces
from idm.faces.recognition import MOBILEFACENET_WEIGHTS, load_identity
from idm.io.atomic import write_json
from idm.io.images import ImageError
from idm.io.machine import inference_dtype, num_usable_cores
from idm.io.weights import find_weights
from idm.restorers.idm import IDM
from idm.restorers.saved import find_model, load_idm, read_denoiser_weights

REMEDY = f"All rounds must be trained alike: start them again in another output_dir with {MILDER}"


def build_state() -> PartialState:
    """The processes of a job that trains nothing."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())


def load_cleaner(model: Path | None) -> IDM:
    """The model at a path, where and in the precision in which this process cleans; None is the bundled one."""
    device = build_state().device
    return load_idm(model, device, inference_dtype(device))


def build_cleaning(
    source: FaceSource | StreamedFaces,
    described: dict[str, Any],
    model: IDM,
    output: Path,
    config: CleaningConfig,
    seed: int,
) -> Cleaning:
    """A cleaning job with a model; ``described`` stands for the source in the job's record."""
    if config.sampler is not None:
        try:
            model.chain = config.sampler.build()
        except ValueError as error:
            raise ConfigError(f"sampler: {error}") from None
    gate = None if config.gate is None else Gate(**config.gate.model_dump())
    compared = gate is not None and gate.min_identity is not None
    device, dtype = str(model.denoiser.device), model.denoiser.dtype
    return Cleaning(
        source,
        model,
        output,
        settings=CleanSettings(seed, config.samples, config.batch_size, config.shard_size, config.image_format),
        gate=gate,
        identity=load_identity(None, device, mirrored=False, dtype=dtype) if compared else None,
        metadata={"source": {**described, **_files_of(source)}, "model": model.metadata()},
    )


def _files_of(source: FaceSource | StreamedFaces) -> dict[str, str]:
    """A hash of the names and sizes of a folder's files: a replaced file makes it another source."""
    if isinstance(source, Cached | Part):
        return _files_of(source.source)
    if not isinstance(source, FolderFaces):
        return {}
    files = [(path.relative_to(source.folder).as_posix(), path.stat().st_size) for path in source.paths]
    return {"files": hashlib.sha256(json.dumps(files).encode()).hexdigest()}


def build_rounds(config: IDMConfig) -> Rounds:
    """All rounds of an extrinsic iteration, ready to fit."""
    extrinsic = config.extrinsic
    assert extrinsic is not None
    if extrinsic.gate is not None and extrinsic.gate.min_identity is not None:
        find_weights(MOBILEFACENET_WEIGHTS)  # missing, it would be noticed after the first training only
    if build_state().is_main_process:
        claim_folder(config)
    originals, val = build_data(config)
    readable = _readable(originals, config.output_dir)
    stages = Stages(partial(_train, config, originals, readable, val), partial(_clean, config, originals))
    return Rounds(config.output_dir, extrinsic.rounds, stages, extrinsic.max_validation_loss)


def _readable(originals: FaceSource | StreamedFaces, folder: Path) -> FaceSource | StreamedFaces:
    """The faces that can be read, for round 0; the others, found once, are named in ``unreadable.json``."""
    if isinstance(originals, StreamedFaces):
        return originals
    path, state = folder / "unreadable.json", build_state()
    if state.is_main_process and not path.exists():
        with ThreadPoolExecutor(num_usable_cores()) as threads:  # decoders release the interpreter's lock
            faults = threads.map(partial(_fault, originals), range(len(originals)))
            shown = tqdm(faults, "looking for unreadable faces", len(originals), mininterval=10, unit="face")
            unreadable = {index: fault for index, fault in enumerate(shown) if fault is not None}
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, unreadable)
    while not path.exists():  # which may take longer than a barrier waits
        time.sleep(POLL_SECONDS)
    left_out = {int(index) for index in json.loads(path.read_text())}
    return Part(originals, [i for i in range(len(originals)) if i not in left_out]) if left_out else originals


def _fault(source: FaceSource, index: int) -> str | None:
    """Return the reason why a face cannot be read; None if it can."""
    try:
        source[index]
    except ImageError as error:
        return str(error)
    return None


def _train(
    config: IDMConfig,
    originals: FaceSource | StreamedFaces,
    readable: FaceSource | StreamedFaces,
    val: FaceSource,
    number: int,
) -> dict[str, Any]:
    assert config.extrinsic is not None
    changes: dict[str, Any] = {"output_dir": config.output_dir / f"round_{number}"}
    if number == 0:
        changes["extrinsic"] = None  # a training like any other, and as such in its config.yaml
    here = config.model_copy(update=changes)
    result = here.output_dir / "metrics.json"
    if result.exists() and json.loads(result.read_text())["step"] == config.train.num_steps:
        claim_folder(here)  # the same run
    else:
        initial = None
        if number > 0 and config.extrinsic.init == "previous":
            before = find_model(config.output_dir / f"round_{number - 1}")
            initial, _ = read_denoiser_weights(before / "denoiser")
        pool = readable if number == 0 else build_pool(config, originals, number)
        build_run(here, partial(build_learner, here, initial=initial), (pool, val), remedy=REMEDY).fit()
    return {"metrics": json.loads(result.read_text())["metrics"]}


def _clean(config: IDMConfig, originals: FaceSource | StreamedFaces, number: int) -> dict[str, Any]:
    assert config.extrinsic is not None
    folder = config.output_dir
    described = {**config.data.source.model_dump(mode="json"), "image_size": config.data.image_size}
    model, output = load_cleaner(folder / f"round_{number}"), folder / f"clean_{number}"
    return run_job(build_cleaning(originals, described, model, output, config.extrinsic, config.seed), build_state())


def build_pool(config: IDMConfig, originals: FaceSource | StreamedFaces, number: int) -> TrainingFaces:
    """The training data of a later round: the faces of the cleaning before it, beside those that they replace."""
    assert config.extrinsic is not None
    replacement = config.extrinsic.replacement
    folder = config.output_dir / f"clean_{number - 1}"
    new: FaceSource = cleaned_faces(folder, config.data.image_size)
    if config.data.cache:
        new = Cached(new, config.data.image_size)
    if replacement.name == "at_once" and config.extrinsic.condition_on == "cleaned":
        return new
    assert not isinstance(originals, StreamedFaces)  # checked with the configuration
    readable = [entry.index for entry in read_manifest(folder) if entry.seed is not None]
    x: FaceSource = Part(originals, readable)
    old, on_original = x, config.extrinsic.condition_on == "original"
    if on_original:
        new = OnOriginals(new, x)
    if replacement.name == "at_once":
        return new
    match replacement.name:
        case "mixed":
            shares = replacement.shares
            share = constant_share(shares[min(number, len(shares)) - 1])
        case "gradual":
            if number > 1:
                old = cleaned_faces(config.output_dir / f"clean_{number - 2}", config.data.image_size)
                old = OnOriginals(old, x) if on_original else old
            share = linear_share(max(1, round(replacement.over * config.train.num_steps)))
        case _:
            assert_never(replacement.name)
    return Pool(old, new, share, config.train.batch_size, config.seed)
