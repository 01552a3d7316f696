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
        measured: names of ablation, arm and test, with the options of ``idm evaluate``.
    """

    key: str
    seed: int
    overrides: tuple[str, ...]
    num_steps: int
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
        budget: core-minutes for training the base configuration; steps, warm-up and checkpoints scale with it. None
            keeps the steps of the base configuration.
        extra: overrides for every arm.
    """
    found: dict[str, Job] = {}
    for ablation in chosen:
        for arm, overrides in ablation.arms.items():
            for seed in SEEDS:
                settings = [f"seed={seed}", *_scaled(budget), *overrides, *extra]
                config = load_config(BASE, IDMConfig, settings)
                key = hashlib.sha256(dump_config(config).encode()).hexdigest()[:12]
                job = found.setdefault(key, Job(key, seed, tuple(settings), config.train.num_steps, []))
                job.measured.extend((ablation.name, arm, test, options) for test, options in ablation.tests.items())
    return list(found.values())


def _scaled(budget: float | None) -> list[str]:
    if budget is None:
        return []
    train, scale = load_config(BASE, IDMConfig).train, budget / BASE_MINUTES
    steps = max(2, round(train.num_steps * scale))
    return [
        f"train.num_steps={steps}",
        f"train.warmup_steps={round(train.warmup_steps * scale)}",
        f"train.checkpoint_every={max(1, round(train.checkpoint_every * scale))}",
        f"validation.every={steps}",
    ]
