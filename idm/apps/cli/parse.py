"""Parse ``--data`` and ``--preset`` into the sections ``data.source`` and ``degradation`` of a configuration.

Both options take short names, the section itself as YAML, and the path of a configuration that has the section.
"""

from pathlib import Path

from pydantic import BaseModel

from idm.config.load import ConfigError, parse_value, read_yaml, validate
from idm.config.schema import DegradationConfig, MeasuredSourceConfig, SyntheticConfig

_SYNTHETIC = SyntheticConfig()


class _Data(BaseModel):
    source: MeasuredSourceConfig


class _WithSource(BaseModel):
    data: _Data


class _WithDegradation(BaseModel):
    degradation: DegradationConfig = DegradationConfig()


def parse_source(text: str, option: str = "--data", synthetic: SyntheticConfig = _SYNTHETIC) -> MeasuredSourceConfig:
    """The faces that ``--data`` names.

    | text | faces |
    |---|---|
    | `FOLDER` | a folder of faces |
    | `assets`, `assets:SPLIT` | a split of the assets, by default train |
    | `synthetic`, `synthetic:N` | procedural faces |
    | `pairs:FOLDER` | degraded faces in `FOLDER/lq` with their originals in `FOLDER/hq` |
    | `lq:FOLDER` | degraded faces without originals |
    | `{name: ...}` | a section `data.source` as YAML |
    | `FILE.yaml` | the section `data.source` of a configuration |

    Args:
        option: the option's name, for errors.
        synthetic: the faces that ``synthetic`` stands for.

    Raises:
        ConfigError: the section is invalid, or the file cannot be read.
    """
    if _is_file(text):
        option, raw = text, read_yaml(Path(text))
    else:
        raw = {"data": {"source": _source_section(text, option, synthetic)}}
    source = validate(_WithSource, raw, option).data.source
    if faults := source.impossible_combinations():
        raise ConfigError("\n".join(f"{option}: data.source.{fault}" for fault in faults))
    return source


def _source_section(text: str, option: str, synthetic: SyntheticConfig) -> object:
    if text.startswith("{"):
        return parse_value(text, option)
    name, colon, detail = text.partition(":")
    match name:
        case "assets":
            return {"name": name, "split": detail or "train"}
        case "synthetic" if not detail or detail.isdigit():
            return synthetic.model_dump() | ({"num_faces": int(detail)} if detail else {})
        case "pairs" | "lq" if colon:
            return {"name": name, "path": detail}
    return {"name": "folder", "path": text}


def parse_degradation(text: str, own: DegradationConfig) -> DegradationConfig:
    """The degradation that ``--preset`` names.

    | text | degradation |
    |---|---|
    | `NAME` | the command's own with another preset |
    | `clean` | the command's own, of no face |
    | `{...}` | the command's own with the changes of a section `degradation` as YAML |
    | `FILE.yaml` | the section `degradation` of a configuration |

    Args:
        own: the command's own degradation.

    Raises:
        ConfigError: the section is invalid, or the file cannot be read.
    """
    if _is_file(text):
        return validate(_WithDegradation, read_yaml(Path(text)), text).degradation
    if text.startswith("{"):
        changes = parse_value(text, "--preset")
    else:
        changes = {"clean_probability": 1.0} if text == "clean" else {"preset": text}
    raw = {"degradation": own.model_dump(mode="json") | changes}
    return validate(_WithDegradation, raw, "--preset").degradation


def _is_file(text: str) -> bool:
    return text.endswith((".yaml", ".yml"))
