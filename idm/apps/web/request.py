"""The request of a user: settings by name, as the page and its HTTP interface send them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from idm.apps.photo.settings import PhotoSettings, Pick
from idm.diffusion.chain import Chain
from idm.io.errors import InvalidInput

MAX_SEED = 2**32 - 1
MAX_SAMPLES = 8
NO_CHAIN = Chain(num_steps=4)  # stands in for that of a restorer without one
MAX_REFERENCES = 8

MODEL_OPTIONS = ("restorer", "steps", "fidelity")
# The options of `idm restore` that a user of the page has, by their names in PhotoSettings. Others name files of the
# server, or concern the machine.
PHOTO_OPTIONS = (
    *("faces", "seed", "upscale", "change", "turn", "detail", "grain", "grayscale", "color_fix"),
    *("samples", "pick", "min_identity", "reference", "uncertainty"),
)
_PHOTO_SETTINGS = TypeAdapter(PhotoSettings)


@dataclass(frozen=True)
class RestoreRequest:
    """The settings of one user for one photograph; ``chain`` is ignored by restorers without a sampling chain."""

    restorer: str
    settings: PhotoSettings = field(default_factory=PhotoSettings)
    chain: Chain = NO_CHAIN

    def named(self) -> dict[str, Any]:
        """The settings by the names under which users give them; of the reference photographs, only the names."""
        values = {"restorer": self.restorer, "steps": self.chain.num_steps, "fidelity": self.chain.fidelity}
        values |= {name: getattr(self.settings, name) for name in PHOTO_OPTIONS}
        return values | {"reference": [path.name for path in self.reference] or None}

    @property
    def reference(self) -> tuple[Path, ...]:
        """The photographs of the person."""
        return tuple(Path(path) for path in self.settings.reference or ())


def most_steps(chain: Chain) -> int:
    """The most steps that are offered: the model's own number, and at least 4, so that fidelity has an effect. More
    steps take longer and usually give worse faces."""
    return max(chain.num_steps, 4)


def changed_chain(chain: Chain, values: Mapping[str, Any]) -> Chain:
    """A model's chain with the ``steps`` and ``fidelity`` among the values.

    Raises:
        ValueError: a value of a wrong type or out of range.
    """
    steps, fidelity, most = values.get("steps", chain.num_steps), values.get("fidelity"), most_steps(chain)
    if not (isinstance(steps, int | float) and 1 <= steps <= most and steps == int(steps)):
        raise InvalidInput(f"the number of steps must lie in 1..{most}, got {steps}")
    if not (fidelity is None or (isinstance(fidelity, int | float) and 0 <= fidelity <= 1)):
        raise InvalidInput(f"fidelity must lie in 0..1, got {fidelity}")
    return chain.changed(fidelity, num_steps=int(steps))


def refuse_unknown(values: Mapping[str, Any]) -> None:
    """Refuse settings that do not exist.

    Raises:
        ValueError: names the known settings.
    """
    there_are = (*MODEL_OPTIONS, *PHOTO_OPTIONS)
    unknown = [name for name in values if name not in there_are]
    if unknown:
        raise InvalidInput(f"there is no setting {', '.join(unknown)}; there are {', '.join(there_are)}")


def photo_settings(values: Mapping[str, Any], pick: Pick) -> PhotoSettings:
    """The settings of ``PHOTO_OPTIONS`` among the values; the others have their defaults, which for ``pick`` is given.

    Raises:
        ValueError: a value of a wrong type or out of range, or no face chosen.
    """
    given = {name: values[name] for name in PHOTO_OPTIONS if name in values}
    try:
        settings = _PHOTO_SETTINGS.validate_python({"pick": pick, **given})
    except ValidationError as error:
        problem = error.errors()[0]
        place = f"{problem['loc'][0]}: " if problem["loc"] else ""
        raise InvalidInput(f"{place}{problem['msg'].removeprefix('Value error, ')}") from None
    if not 0 <= settings.seed <= MAX_SEED:
        raise InvalidInput(f"the seed must lie in 0..{MAX_SEED}, got {settings.seed}")
    if settings.samples > MAX_SAMPLES:
        raise InvalidInput(f"at most {MAX_SAMPLES} samples of each face are drawn, got {settings.samples}")
    reference = settings.reference
    if reference is not None and (isinstance(reference, str) or not 1 <= len(reference) <= MAX_REFERENCES):
        raise InvalidInput(f"reference is a list of 1 to {MAX_REFERENCES} photographs")
    if not settings.faces:
        raise InvalidInput("choose at least one face")
    return settings
