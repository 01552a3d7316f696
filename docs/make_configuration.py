"""Write docs/configuration.md from the schemas of IDM and of the baseline: ``python docs/make_configuration.py``.

Names, types, bounds and defaults come from pydantic, and from the dataclasses of degradation steps. The description of
a field is the string below it, or else its entry under "Args:" in the function that takes the setting. A field without
a description is an error.
"""

import ast
import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

import gan_baseline.schema
from gan_baseline.gfpgan import GFPGAN
from idm.config import schema
from idm.diffusion.chain import Chain
from idm.extrinsic.gate import Gate
from idm.models.architecture import Architecture
from idm.models.critics import StyleGAN2Discriminator

TARGET = Path(__file__).with_name("configuration.md")

HEAD = """# Configuration

<!-- Written by `python docs/make_configuration.py` from the schemas of idm and gan_baseline. Do not edit. -->

A YAML file such as [configs/quickstart.yaml](../configs/quickstart.yaml) configures a run. Any value can be overridden
on the command line:

```sh
accelerate launch train_idm.py --config configs/quickstart.yaml train.batch_size=8 data.source.seed=3
```

The value of an override is YAML. In a section with several choices, `name` selects one of them and determines which
other keys exist: `sampler.name=unipc` selects another sampler and drops the keys of the previous one. Unknown keys,
values out of bounds and impossible combinations are rejected before anything starts. All errors are reported at once,
with their paths. The resolved configuration is saved as `config.yaml` in the run's folder.

A file may start with `base: other.yaml`, a path relative to its own folder. It then states only what it changes:
mappings are merged with those of the base, and all other values, lists included, replace them. A section with another
`name` replaces the whole section. A base may have a base itself. Overrides are applied last.
"""

BASELINE = """# The GFP-GAN baseline

These are the settings of `python -m gan_baseline.train`; [configs/gan_faces64.yaml](../configs/gan_faces64.yaml) is an
example. Sections that are not listed here are the same as above. Where a setting is published, the published value is
the default.
"""

# Sections whose settings are described by the function or class that takes them.
DESCRIBED_BY = {"DenoiserConfig": Architecture, "ChainConfig": Chain, "GateConfig": Gate} | {
    "GeneratorConfig": GFPGAN,
    "DiscriminatorConfig": StyleGAN2Discriminator,
}


def main() -> None:
    """Write the page."""
    TARGET.write_text(render())
    print(f"wrote {TARGET}")


def render() -> str:
    """Return the whole page as Markdown."""
    ours = list(_tree(schema.IDMConfig, ""))
    baselines = [part for part in _tree(gan_baseline.schema.GANConfig, "") if part not in ours]
    parts = [HEAD, *(_section(*part) for part in ours), BASELINE, *(_section(*part) for part in baselines)]
    return "\n".join(parts)


def fields_of(section: type) -> dict[str, FieldInfo]:
    """Return the fields of a pydantic section or of a dataclass by name."""
    if issubclass(section, BaseModel):
        return dict(section.model_fields)
    hints = get_type_hints(section, include_extras=True)
    return {
        field.name: FieldInfo(annotation=hints[field.name])
        if field.default is dataclasses.MISSING
        else FieldInfo(annotation=hints[field.name], default=field.default)
        for field in dataclasses.fields(section)
    }


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and (issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation))


def _tree(section: type, path: str) -> Iterator[tuple[type, str]]:
    """Yield all sections with their paths, in the order of a YAML file and each class once."""
    yield section, path
    seen = {section}
    for name, field in fields_of(section).items():
        for inner in _choices(field.annotation):
            if inner not in seen:
                seen.add(inner)
                yield from _tree(inner, f"{path}.{name}" if path else name)


def _choices(annotation: Any) -> Iterator[type]:
    if _is_section(annotation):
        yield annotation
    for argument in get_args(annotation):
        yield from _choices(argument)


def _section(section: type, path: str) -> str:
    tag = fields_of(section).get("name")
    title = f"`{path}`" if path else "The run"
    if tag is not None and not tag.is_required():
        title += f" with `name: {tag.default}`"
    lines = [f"## {title}", ""]
    if section.__doc__:
        lines += [_markdown(section.__doc__), ""]
    lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
    limits = getattr(section, "limits", {})
    for name, field in sorted(fields_of(section).items(), key=lambda item: item[0] != "name"):
        within = " within [{:.4g}, {:.4g}]".format(*limits[name]) if name in limits else ""
        cells = (f"`{name}`", _type(field) + within, _default(field), _meaning(section, name))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, ""])


# ------------------------------------------------------------------------------------------------ types


_NAMES = {
    int: "integer",
    float: "number",
    bool: "true or false",
    str: "text",
    Path: "path",
    NoneType: "null",
}


def _type(field: FieldInfo) -> str:
    return _describe(field.annotation) + _bounds(field.metadata)


def _describe(annotation: Any) -> str:
    """Describe a type in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _describe(arguments[0]) + _bounds(arguments[1:])
    if origin is Literal:
        return " or ".join(f"`{_yaml(value)}`" for value in arguments)
    if origin in (Union, UnionType):
        if all(_is_section(part) for part in arguments):
            return "one of " + ", ".join(f"`{fields_of(part)['name'].default}`" for part in arguments)
        return " or ".join(_describe(part) for part in arguments)
    if origin is dict:
        return f"mapping of {_describe(arguments[0])} to {_describe(arguments[1])}"
    if origin is list:
        return f"list of {_describe(arguments[0])}"
    if origin is tuple and arguments[1:] == (...,):
        return f"list of {_describe(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(_describe(part) for part in arguments)}]"
    if _is_section(annotation):
        return "section"
    return _NAMES[annotation]


def _bounds(metadata: Any) -> str:
    """Describe pydantic's constraints, for example as " >= 1"."""
    flat = [c for m in metadata for c in (m.metadata if isinstance(m, FieldInfo) else [m])]
    texts = []
    for constraint in flat:
        match constraint:
            case annotated_types.Ge(ge=bound):
                texts.append(f">= {bound}")
            case annotated_types.Gt(gt=bound):
                texts.append(f"> {bound}")
            case annotated_types.Le(le=bound):
                texts.append(f"<= {bound}")
            case annotated_types.Lt(lt=bound):
                texts.append(f"< {bound}")
            case annotated_types.MinLen(min_length=length):
                texts.append(f"(at least {length})")
    return " " + " and ".join(texts) if texts else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    assert field.default is not PydanticUndefined
    if isinstance(field.default, BaseModel):
        tag = type(field.default).model_fields.get("name")
        return f"`{field.default.name}`, its defaults" if tag else "its defaults"
    return f"`{_yaml(field.default)}`"


def _yaml(value: Any) -> str:
    """Format a value as in a configuration file."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case list() | tuple():
            return f"[{', '.join(_yaml(item) for item in value)}]"
        case "no":
            return '"no"'  # plain, YAML reads it as false
        case _:
            return f"{value}"


# --------------------------------------------------------------------------------------------- meanings


def _meaning(section: type, name: str) -> str:
    if name == "name":
        return "Selects this choice."
    for owner in section.__mro__:
        if name in vars(owner).get("__annotations__", {}):
            described = _arguments(DESCRIBED_BY.get(owner.__name__)) | _attribute_docs(owner)
            if name not in described:
                sys.exit(f"{owner.__name__}.{name} has no description: write a string below it in the schema")
            return _markdown(described[name])
    raise AssertionError(f"{section.__name__} has no field {name}")


def _attribute_docs(owner: type) -> dict[str, str]:
    """Return the strings below the fields of a class by field name."""
    (tree,) = ast.parse(inspect.getsource(owner)).body
    assert isinstance(tree, ast.ClassDef)
    docs = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            match below:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    docs[field.target.id] = text
    return docs


def _arguments(described_by: Any) -> dict[str, str]:
    """Return the entries of the "Args:" section of a docstring by argument name."""
    doc = inspect.getdoc(described_by) if described_by is not None else None
    if doc is None or "Args:\n" not in doc:
        return {}
    part = re.split(r"\n\n(?=\S)", doc.partition("Args:\n")[2])[0]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", part, flags=re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text) for name, text in entries}


def _markdown(text: str) -> str:
    """Convert a docstring to one line of Markdown."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", re.sub(r"\s+", " ", text).strip())
    text = text.replace("``", "`")
    text = text[:1].upper() + text[1:] if not text.startswith("`") else text
    return text if text.endswith((".", ":")) else text + "."


if __name__ == "__main__":
    main()
