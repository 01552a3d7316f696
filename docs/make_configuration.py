"""Write docs/configuration.md from the schemas of IDM and of the baseline: ``python docs/make_configuration.py``.

Names, types, bounds and defaults come from pydantic. Meanings come from the string below a field; where there
is none, from the "Args:" of the function that takes the setting; where that has none, from ``MEANINGS`` here.
A field without any meaning is an error.
"""

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

import gan_baseline.schema
from gan_baseline.discriminators import StyleGAN2Discriminator
from gan_baseline.gfpgan import GFPGAN
from idm.config import schema
from idm.diffusion.chain import Chain
from idm.extrinsic.gate import Gate
from idm.models.unet import Architecture

TARGET = Path(__file__).with_name("configuration.md")

HEAD = """# Configuration

<!-- Written by `python docs/make_configuration.py` from the schemas of idm and gan_baseline. Do not edit. -->

A run is one YAML file, such as [configs/quickstart.yaml](../configs/quickstart.yaml). Any value can be
changed on the command line:

```sh
accelerate launch train_idm.py --config configs/quickstart.yaml train.batch_size=8 data.source.seed=3
```

The value of an override is YAML. Where there is a choice, `name` selects it and decides which other keys
exist: `sampler.name=unipc` drops the keys of the sampler that stood there. An unknown key, a value outside
its bounds or a combination that cannot work is an error before anything starts; all faults are shown at
once, with their paths. The resolved configuration is saved as `config.yaml` in the run's folder.
"""

BASELINE = """# The GFP-GAN baseline

The settings of `python -m gan_baseline.train`, such as [configs/gan_faces64.yaml](../configs/gan_faces64.yaml).
Sections that are not listed here are those above. Defaults are the published ones, where there are such.
"""

# Where else settings are described: the function or class that takes them.
DESCRIBED_BY = {"DenoiserConfig": Architecture, "ChainConfig": Chain, "GateConfig": Gate} | {
    "GeneratorConfig": GFPGAN,
    "DiscriminatorConfig": StyleGAN2Discriminator,
}

MEANINGS = {
    "name": "Selects this choice.",
    "SyntheticConfig.num_faces": "How many faces there are.",
    "SyntheticConfig.seed": "Another seed gives other faces.",
    "FolderConfig.path": "The folder.",
    "HuggingFaceConfig.path": "First argument of `load_dataset`.",
    "HuggingFaceConfig.data_files": "File or files, globs included, for a format name as `path`.",
    "HuggingFaceConfig.split": "Split of the data set.",
    "HuggingFaceConfig.image_column": "Column of images.",
    "HuggingFaceConfig.landmarks_column": (
        "Column of five (x, y) points in pixels of the image: left eye, right eye, nose, left and right "
        "mouth corner as seen in the image."
    ),
    "HuggingFaceConfig.num_faces": "Faces that make an epoch; with `streaming` only, and then required.",
    "AssetsConfig.split": "Folder below `faces256`.",
    "DataConfig.val_source": "The faces to validate on.",
    "DataConfig.flip_probability": "Share of training faces that are mirrored.",
    "DegradationConfig.preset": "Ranges and probabilities of each step; see `PRESETS` in `idm.degradation`.",
    "DegradationConfig.blur_sigma": "Gaussian blur, range of sigma. The preset's if not given; so below.",
    "DegradationConfig.down": "Range of the factor by which the face is shrunk; below 1 enlarges.",
    "DegradationConfig.noise_sigma": "Gaussian noise, range of sigma, in units of 1/255.",
    "DegradationConfig.jpeg_quality": "Range of the JPEG quality, within 1 to 100.",
    "LinearConfig.beta_start": "The first beta.",
    "LinearConfig.beta_end": "The last beta.",
    "LinearConfig.num_steps": "T, the number of noise levels.",
    "CosineConfig.num_steps": "T, the number of noise levels.",
    "CosineConfig.offset": "The offset s of their eq. 17.",
    "ObjectiveConfig.prediction": "What f_theta gives: the noise, the clean face, or v.",
    "ObjectiveConfig.p": "Exponent of the loss: 1 absolute, 2 squared difference.",
    "ObjectiveConfig.min_snr_clamp": "Clamp of min-SNR weights (arXiv 2303.09556); null for equal weights.",
    "IDMTrainConfig.learning_rate": "Peak learning rate of AdamW.",
    "IDMTrainConfig.warmup_steps": "Steps over which the learning rate rises from zero.",
    "IDMTrainConfig.betas": "AdamW's betas.",
    "IDMTrainConfig.weight_decay": "AdamW's weight decay.",
    "IDMTrainConfig.max_grad_norm": "Gradients with a larger norm are scaled down to it.",
    "TrainConfig.ema_decay": (
        "Decay of the average of the weights, which is what is validated and published. It rises to this "
        "value as (1 + step) / (10 + step), with step counted from 0, and is 0 in the first step."
    ),
    "IDMTrainConfig.gradient_checkpointing": "Recompute activations when going back: less memory, more time.",
    "IDMTrainConfig.compile": "Compile the network with `torch.compile`.",
    "TrainConfig.log_every": "Steps between lines of the log.",
    "TrainConfig.checkpoint_every": "Steps between checkpoints.",
    "ValidationConfig.every": "Steps between validations.",
    "ValidationConfig.num_images": "Faces to validate on.",
    "RunConfig.output_dir": "The run's folder. A run started again in the same folder goes on where it was.",
    "RunConfig.seed": "Seed of the initial weights, the order of the faces, the degradations and the noise.",
    "RunConfig.data": "Faces.",
    "RunConfig.degradation": "How a clean face becomes a degraded one.",
    "IDMConfig.denoiser": "The network.",
    "IDMConfig.schedule": "Noise levels.",
    "IDMConfig.objective": "The loss.",
    "IDMConfig.sampler": "The chain that restores a face, in validation and in the published model.",
    "IDMConfig.train": "Optimisation, logging and checkpoints.",
    "GANConfig.generator": "The network that restores.",
    "GANConfig.discriminator": "The network that judges whole faces; those of eyes and mouth have no settings.",
    "GANConfig.losses": "What is learnt from, and how much.",
    "GANConfig.train": "Optimisation, logging and checkpoints.",
    "GANTrainConfig.ema_decay": "As for IDM. The published decay is constant.",
    "CleaningConfig.gate": "What x* must keep and gain to take the place of x.",
    "ExtrinsicConfig.rounds": "Cleanings, each followed by a training on what was cleaned.",
    "ExtrinsicConfig.replacement": "How P_X* takes the place of P_X.",
    "RunConfig.validation": "Held-out faces with frozen degradations.",
}


def main() -> None:
    TARGET.write_text(render())
    print(f"wrote {TARGET}")


def render() -> str:
    """The whole page."""
    known = {f"{owner.__name__}.{field}" for owner in sections() for field in owner.model_fields}
    stale = sorted(set(MEANINGS) - known - {"name"})
    if stale:
        sys.exit(f"{Path(__file__).name}: MEANINGS of fields that do not exist: {', '.join(stale)}")
    ours = list(_tree(schema.IDMConfig, ""))
    baselines = [part for part in _tree(gan_baseline.schema.GANConfig, "") if part not in ours]
    parts = [HEAD, *(_section(*part) for part in ours), BASELINE, *(_section(*part) for part in baselines)]
    return "\n".join(parts)


def sections() -> list[type[BaseModel]]:
    """All section classes, base classes included."""
    members = [*inspect.getmembers(schema, inspect.isclass), *inspect.getmembers(gan_baseline.schema, inspect.isclass)]
    return [member for _, member in members if issubclass(member, schema.Section)]


def _tree(section: type[BaseModel], path: str) -> Iterator[tuple[type[BaseModel], str]]:
    """Sections below each other as in a YAML file, each class once."""
    yield section, path
    seen = {section}
    for name, field in section.model_fields.items():
        for inner in _choices(field.annotation):
            if inner not in seen:
                seen.add(inner)
                yield from _tree(inner, f"{path}.{name}" if path else name)


def _choices(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _choices(argument)


def _section(section: type[BaseModel], path: str) -> str:
    tag = section.model_fields.get("name")
    title = f"`{path}`" if path else "The run"
    if tag is not None and not tag.is_required():
        title += f" with `name: {tag.default}`"
    lines = [f"## {title}", ""]
    if section.__doc__:
        lines += [_markdown(section.__doc__), ""]
    lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in sorted(section.model_fields.items(), key=lambda item: item[0] != "name"):
        cells = (f"`{name}`", _type(field), _default(field), _meaning(section, name))
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
    """A type in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _describe(arguments[0]) + _bounds(arguments[1:])
    if origin is Literal:
        return " or ".join(f"`{_yaml(value)}`" for value in arguments)
    if origin in (Union, UnionType):
        if all(isinstance(part, type) and issubclass(part, BaseModel) for part in arguments):
            return "one of " + ", ".join(f"`{part.model_fields['name'].default}`" for part in arguments)
        return " or ".join(_describe(part) for part in arguments)
    if origin is dict:
        return f"mapping of {_describe(arguments[0])} to {_describe(arguments[1])}"
    if origin is list:
        return f"list of {_describe(arguments[0])}"
    if origin is tuple and arguments[1:] == (...,):
        return f"list of {_describe(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(_describe(part) for part in arguments)}]"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return _NAMES[annotation]


def _bounds(metadata: Any) -> str:
    """Such as " >= 1", from pydantic's constraints."""
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
    """A value as it is written in a configuration file."""
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


def _meaning(section: type[BaseModel], name: str) -> str:
    for owner in section.__mro__:
        if owner is schema.Section or not issubclass(owner, schema.Section):
            continue
        if name in owner.__annotations__:
            text = (
                _attribute_docs(owner).get(name)
                or _arguments(DESCRIBED_BY.get(owner.__name__)).get(name)
                or MEANINGS.get(f"{owner.__name__}.{name}")
                or MEANINGS.get(name)
            )
            if text is None:
                sys.exit(
                    f"{owner.__name__}.{name} has no meaning: write a string below it in "
                    f"the schema, or add it to MEANINGS in docs/{Path(__file__).name}"
                )
            return _markdown(text)
    raise AssertionError(f"{section.__name__} has no field {name}")


def _attribute_docs(owner: type) -> dict[str, str]:
    """The strings that stand below the fields of a class."""
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
    """The entries of the "Args:" part of a docstring."""
    doc = inspect.getdoc(described_by) if described_by is not None else None
    if doc is None or "Args:\n" not in doc:
        return {}
    part = re.split(r"\n\n(?=\S)", doc.partition("Args:\n")[2])[0]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", part, flags=re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text) for name, text in entries}


def _markdown(text: str) -> str:
    """A docstring in one line of markdown."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", re.sub(r"\s+", " ", text).strip())
    text = text.replace("``", "`")
    text = text[:1].upper() + text[1:] if not text.startswith("`") else text
    return text if text.endswith((".", ":")) else text + "."


if __name__ == "__main__":
    main()
