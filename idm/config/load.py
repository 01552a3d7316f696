"""YAML and ``section.key=value`` -> a checked configuration, or one error that lists every fault with its path."""

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import yaml
from pydantic import BaseModel, ValidationError

from idm.config.schema import RunConfig
from idm.io.errors import InvalidInput

Schema = TypeVar("Schema", bound=BaseModel)
Config = TypeVar("Config", bound=RunConfig)


class ConfigError(InvalidInput):
    """A configuration is invalid; the message lists all faults, one a line."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's scalars: 1e-4 is a number, and only true and false are truth values, so that
    ``mixed_precision: no`` is a word."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


class _Dumper(yaml.SafeDumper):
    """Quotes exactly what :class:`_Loader` would not read back as text."""


_Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def load_config(path: Path, schema: type[Config], overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply overrides like ``train.batch_size=8``, check everything.

    The key ``base`` at the top of a file names another file, relative to its folder, that the file changes: mappings
    are merged, and all other values replace those of the base. An override's value is YAML. In a file with a base as
    in an override, setting a section's ``name`` to another choice drops the fields of the old one.

    Raises:
        ConfigError: listing every unknown key, wrong value and impossible combination, or naming the file that cannot
            be read, with the files whose ``base`` leads to it.
    """
    raw = read_yaml(path)
    for override in overrides:
        apply_override(raw, override)
    config = validate(schema, raw, str(path))
    faults = config.impossible_combinations()
    if faults:
        raise ConfigError("\n".join(f"{path}: {fault}" for fault in faults))
    return config


def read_yaml(path: Path, derived: Sequence[Path] = ()) -> dict[str, Any]:
    """The sections of a file, merged into those of its base, unchecked. ``derived``: the files whose ``base`` led here.

    Raises:
        ConfigError: a file cannot be read, or holds no sections.
    """
    where = "".join(f"{file}: base: " for file in derived) + str(path)
    if path.resolve() in (file.resolve() for file in derived):
        raise ConfigError(f"{where}: is a cycle")
    try:
        raw = yaml.load(path.read_text(), Loader=_Loader)
    except OSError as error:
        raise ConfigError(f"{where}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: is not a text file ({error})") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: is not YAML: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: must hold sections such as 'data:' and 'train:'")
    if "base" not in raw:
        return raw
    base = raw.pop("base")
    if not isinstance(base, str) or not base:
        raise ConfigError(f"{where}: base: must be the path of a YAML file, got {base!r}")
    return _merge(read_yaml(path.parent / base, (*derived, path)), raw)


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes``; a section of another ``name`` replaces that of the base."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and value.get("name", old.get("name")) == old.get("name"):
            value = _merge(old, value)
        merged[key] = value
    return merged


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Set one dotted key of ``raw`` in place."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r}: expected section.key=value")
    value = parse_value(text, f"override {override!r}")
    *sections, last = key.split(".")
    node = raw
    for section in sections:
        node = node.setdefault(section, {})
        if not isinstance(node, dict):
            raise ConfigError(f"override {override!r}: {section} is a value, not a section")
    if last == "name" and node.get("name") != value:
        node.clear()
    node[last] = value


def parse_value(text: str, where: str) -> Any:
    """The YAML value that a command line gives as text.

    Raises:
        ConfigError: it is not YAML; the message begins with ``where``.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        raise ConfigError(f"{where}: the value is not YAML") from None


def validate(schema: type[Schema], raw: dict[str, Any], where: str) -> Schema:
    """Check ``raw`` against a schema, strictly. All faults come in one ConfigError, with paths and suggestions."""
    try:  # through JSON: there a list may stand for a tuple and a string for a path, and nothing else is lax
        return schema.model_validate_json(json.dumps(raw, default=str))
    except ValidationError as error:
        lines = [f"{where}: {_describe(schema, fault)}" for fault in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def _describe(schema: type[BaseModel], fault: Any) -> str:
    keys = _without_tags(schema, fault["loc"])
    path = ".".join(map(str, keys))
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _fields_at(schema, fault["loc"][:-1])
        close = difflib.get_close_matches(str(keys[-1]), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(sorted(known))}"
        return f"{path}: unknown key; {hint}"
    if fault["type"] == "missing":
        return f"{path}: is required"
    if fault["type"].startswith("union_tag"):
        return f"{path}.name: must be one of {', '.join(map(repr, _tags_at(schema, keys)))}"
    return f"{path}: {fault['msg']}, got {fault['input']!r}"


def _sections(annotation: Any) -> Iterable[type]:
    """The section classes that an annotation admits: models, and the dataclasses of degradation steps."""
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or is_dataclass(annotation)):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections(argument)


def _fields(section: type) -> dict[str, Any]:
    """Annotations of a section's fields by name."""
    if issubclass(section, BaseModel):
        return {name: field.annotation for name, field in section.model_fields.items()}
    hints = get_type_hints(section)
    return {name: hints[name] for name in vars(section)["__dataclass_fields__"]}


def _tag(section: type) -> str | None:
    annotation = _fields(section).get("name")
    return get_args(annotation)[0] if annotation else None


def _walk(schema: type[BaseModel], loc: Sequence[Any]) -> tuple[type | None, list[Any]]:
    """Follow a pydantic location; gives the section it ends in and the location without union tags."""
    section: type | None = schema
    choices: list[type] = []
    keys: list[Any] = []
    for part in loc:
        tagged = [choice for choice in choices if _tag(choice) == part]
        if tagged and section is None:
            section = tagged[0]
            continue
        keys.append(part)
        if isinstance(part, int):  # a place in a list
            continue
        annotation = _fields(section).get(part) if section else None
        choices = list(_sections(annotation))
        section = choices[0] if len(choices) == 1 else None
    return section, keys


def _tags_at(schema: type[BaseModel], keys: Sequence[Any]) -> list[str]:
    """The possible names of a choice."""
    names = [key for key in keys if not isinstance(key, int)]
    parent, _ = _walk(schema, names[:-1])
    assert parent is not None
    return [tag for choice in _sections(_fields(parent)[names[-1]]) if (tag := _tag(choice))]


def _without_tags(schema: type[BaseModel], loc: Sequence[Any]) -> list[Any]:
    return _walk(schema, loc)[1]


def _fields_at(schema: type[BaseModel], loc: Sequence[Any]) -> list[str]:
    section = _walk(schema, loc)[0]
    return list(_fields(section)) if section else []


def dump_config(config: BaseModel) -> str:
    """The resolved configuration as YAML that :func:`load_config` reads back."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False)
