"""Ablations as data: the training runs that they need, and the tests of each run."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import yaml

from idm.config.load import dump_config, load_config
from idm.config.schema import IDMConfig

FOLDER = Path(__file__).parent
BASE = FOLDER / "base.yaml"
BASE_MINUTES = 6.0  # core-minutes of the base configuration, see configs/quickstart.yaml
SEEDS = (0, 1)


@dataclass(frozen=True)
class Ablation:
    """Settings of training ("arms") and of tests. The first arm with the first test is the base of all comparisons.

    Attributes:
        arms: overrides of the base configuration by label.
        tests: options of ``idm evaluate`` by label.
    """

    name: str
    title: str
    arms: dict[str, list[str]]
    tests: dict[str, list[str]]


@dataclass(frozen=True)
class Job:
    """A training run and all tests of it.

    Attributes:
        key: hash of the whole configuration without the folder, so that ablations share equal training runs.
        seed: seed of the training.
        overrides: settings that differ from the base configuration.
        num_steps, channels: of the training and of the network, which the budget scales.
        measured: names of ablation, arm and test, with the options of ``idm evaluate``.
    """

    key: str
    seed: int
    overrides: tuple[str, ...]
    num_steps: int
    channels: tuple[int, ...]
    measured: list[tuple[str, str, str, list[str]]]


def ablations(names: list[str] | None = None) -> list[Ablation]:
    """Read all ablations of this folder, or those of the given names, in the given order.

    Raises:
        ValueError: there is no ablation of a given name.
    """
    known = {path.stem: path for path in sorted(FOLDER.glob("*.yaml")) if path != BASE}
    unknown = [name for name in names or [] if name not in known]
    if unknown:
        raise ValueError(f"no ablation {', '.join(unknown)}; known: {', '.join(known)}")
    return [_read(known[name]) for name in dict.fromkeys(names or known)]


def _read(path: Path) -> Ablation:
    text = yaml.safe_load(path.read_text())
    return Ablation(path.stem, text["title"], text["arms"], text.get("tests", {"": []}))


def jobs(chosen: list[Ablation], budget: float | None, extra: list[str]) -> list[Job]:
    """Return all training runs, each once, in an order that depends only on the arguments.

    Args:
        budget: core-minutes for training the base configuration; the width of the network scales with it, and steps,
            warm-up and checkpoints with what remains. None keeps those of the base configuration.
        extra: overrides for every arm.
    """
    found: dict[str, Job] = {}
    for ablation in chosen:
        for arm, overrides in ablation.arms.items():
            for seed in SEEDS:
                settings = [f"seed={seed}", *_scaled(budget), *overrides, *extra]
                config = load_config(BASE, IDMConfig, settings)
                key = hashlib.sha256(dump_config(config).encode()).hexdigest()[:12]
                size = (config.train.num_steps, tuple(config.denoiser.channels))
                job = found.setdefault(key, Job(key, seed, tuple(settings), *size, []))
                job.measured.extend((ablation.name, arm, test, options) for test, options in ablation.tests.items())
    return list(found.values())


def _scaled(budget: float | None) -> list[str]:
    if budget is None:
        return []
    base, width = load_config(BASE, IDMConfig), _width(budget)
    train, scale = base.train, budget / BASE_MINUTES / width
    steps = max(2, round(train.num_steps * scale))
    channels = [round(width * channels) for channels in base.denoiser.channels]
    resized = [f"denoiser.channels={channels}", "denoiser.head_dim=32"] if width != 1 else []
    return [
        *resized,
        f"train.num_steps={steps}",
        f"train.warmup_steps={round(train.warmup_steps * scale)}",
        f"train.checkpoint_every={max(1, round(train.checkpoint_every * scale))}",
        f"validation.every={steps}",
    ]


def _width(budget: float) -> float:
    """Factor of the channels, 0.5, 1, 1.5 or 2: the cube root of the budget's, since a wider network needs more steps.

    A step of a network this small takes about in proportion to the channels, because the work is not in the products
    alone: with 1.5 times the channels it took 1.4 times as long.
    """
    return min(2.0, max(0.5, round(2 * (budget / BASE_MINUTES) ** (1 / 3)) / 2))
