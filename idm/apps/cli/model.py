"""The restorer that a command line names, and the device that it runs on."""

import sys
from collections.abc import Sequence
from dataclasses import replace

import torch

from idm.apps.cli.options.shared import MachineOptions, ModelOptions
from idm.faces.detector.retinaface import has_facexlib
from idm.io.errors import InvalidInput
from idm.io.machine import best_device, inference_dtype, keep_freed_memory, share_cores
from idm.restorers.idm import IDM
from idm.restorers.load import Loaded, describe, load_restorer, load_with_steps, split_steps
from idm.restorers.names import DEFAULT_NAME, PUBLISHED


def print_identity_note(error: FileNotFoundError) -> None:
    """Print the hint on a machine without the identity network's weights."""
    print(
        "note: identities are not measured; `idm weights fetch` brings MobileFaceNet, which measures them.",
        file=sys.stderr,
    )


def builtin_note() -> str:
    """The hint on a machine without RetinaFace, printed once."""
    fetch, install = "`idm weights fetch`", "`pip install 'idm-face-restoration[retinaface]'`"
    commands = fetch if has_facexlib() else f"{install} and {fetch}"
    return f"note: faces are found by the built-in detector. RetinaFace finds more; to use it, run {commands}."


def load(options: ModelOptions) -> Loaded:
    """The restorer named by ``--model``, with the settings of its chain and its backend if it is an IDM."""
    backend = options.backend
    device, dtype = prepare_machine(options) if backend == "torch" else _prepare_cpu(options)
    loaded = load_restorer(options.model, device, dtype if backend == "torch" else torch.float32)
    if not isinstance(loaded.restorer, IDM):
        if any(value is not None for value in options.chain_changes.values()):
            raise InvalidInput(
                f"{options.model}: has no sampling chain; --sampler, --steps, --fidelity and the like are for IDM"
            )
        if backend != "torch":
            raise InvalidInput(f"{options.model}: runs with torch only; --backend {backend} is for IDM")
        return loaded
    idm = loaded.restorer
    own = idm.chain.num_steps
    try:
        idm.chain = idm.chain.changed(**options.chain_changes)
    except ValueError as error:
        raise InvalidInput(str(error)) from None
    _warn_of_steps(options.steps, own)
    idm.use_backend(backend, dtype)
    return Loaded(idm, describe(idm))


def _warn_of_steps(num_steps: int | None, own: int) -> None:
    """Print a note if a chain has more steps than the model was made for."""
    if num_steps is not None and num_steps > own:
        made_for = "1 step" if own == 1 else f"{own} steps"
        print(
            f"note: this model is made for {made_for}; {num_steps} take longer and usually give worse faces",
            file=sys.stderr,
        )


def load_labelled(
    given: Sequence[str],
    machine: tuple[torch.device, torch.dtype],
    taken: Sequence[str] = (),
    absent: dict[str, str] | None = None,
) -> dict[str, Loaded]:
    """Load the restorers that the arguments of ``idm compare`` name, and return them by label.

    Args:
        given: arguments LABEL=PATH, or a name that ``--restorer`` takes, which is its own label. Both may end with the
            number of steps of an IDM's chain, as in idm@1.
        machine: device and precision.
        taken: labels that are already in use.
        absent: if given, named restorers whose weights are missing do not raise an error as long as there are others;
            this dictionary receives their weights files by label.

    Raises:
        FileNotFoundError: a named restorer's weights are missing; says where to put them.
        ValueError: a label is missing, given twice or in ``taken``; or there is no path.
    """
    loaded: dict[str, Loaded] = {}
    missing: FileNotFoundError | None = None
    for one in given:
        label, equals, path = one.partition("=")
        if label in (*loaded, *(absent or ()), *taken, ""):
            raise InvalidInput(f"{one!r}: every restorer needs its own label, as in gfpgan=runs/gan_faces64")
        names = (DEFAULT_NAME, *PUBLISHED)
        if not path and (equals or split_steps(label)[0] not in names):
            raise InvalidInput(
                f"{one!r}: give label and path, as in gfpgan=runs/gan_faces64, or one of {', '.join(names)}"
            )
        name = path if equals else label
        try:
            loaded[label] = load_with_steps(name, *machine)
        except FileNotFoundError as error:
            if absent is None or name not in PUBLISHED:
                raise
            absent[label], missing = PUBLISHED[name], error
    if not loaded and missing is not None:
        raise missing
    return loaded


def prepare_machine(options: MachineOptions) -> tuple[torch.device, torch.dtype]:
    """The device and precision that the command line names; sets up memory and cores for them."""
    keep_freed_memory()
    device = choose_device(options.device)
    if device.type == "cpu":
        share_cores(1)
    if options.batch_size < 1:
        raise InvalidInput(f"--batch-size must be at least 1, got {options.batch_size}")
    return device, {"fp32": torch.float32, "bf16": torch.bfloat16, "auto": inference_dtype(device)}[options.precision]


def _prepare_cpu(options: ModelOptions) -> tuple[torch.device, torch.dtype]:
    """Device and precision for a backend that computes on the CPU only. The default of ONNX Runtime is float32."""
    if options.device not in (None, "cpu"):
        raise InvalidInput(f"--backend {options.backend} computes on the CPU, not on --device {options.device}")
    device, dtype = prepare_machine(replace(options, device="cpu"))
    automatic = options.precision == "auto" and options.backend == "onnxruntime"
    return device, torch.float32 if automatic else dtype


def choose_device(name: str | None) -> torch.device:
    """The device of ``--device``; the default is the best one of this machine.

    Raises:
        ValueError: the device cannot be used.
    """
    if name is None:
        return best_device()
    try:
        return torch.empty(0, device=name).device
    except RuntimeError as error:
        raise InvalidInput(f"--device: {name!r} cannot be used here ({str(error).splitlines()[0]})") from None
