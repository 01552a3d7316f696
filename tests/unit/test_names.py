"""One name, one meaning: what the packages define, and the words that no identifier may be."""

import ast
import io
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("idm", "gan_baseline")
FOLDERS = (*PACKAGES, "docs", "examples", "experiments", "tests")

# Public functions and classes that several modules define, and why they mean the same.
SHARED = {
    "ConvBlock": "a block of convolutions, as each network defines its own",
    "ResidualBlock": "a residual block, as each network defines its own",
    "build_adversary": "the same step of building a run, for IDM and for GFP-GAN",
    "build_features": "the same step of building a run, for IDM and for GFP-GAN",
    "build_learner": "the same step of building a run, for IDM and for GFP-GAN",
    "main": "the entry point of a program",
    "ssim": "structural similarity, as a loss on tensors and as a metric on images",
}

# Words that say that something is spoken of or looked at, but not what it is.
FORBIDDEN = {
    "about": "metadata, summary, settings",
    "look": "theme, config, preview",
    "said": "message, response, output",
    "told": "message, report, status",
}


def public_definitions() -> dict[str, set[str]]:
    """The modules that define each public function or class at their top level."""
    modules: dict[str, set[str]] = defaultdict(set)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                    modules[node.name].add(str(path.relative_to(ROOT)))
    return modules


def forbidden(source: str) -> Iterator[str]:
    """Identifiers of a program that are forbidden words, with their line; strings and comments may hold the words."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and token.string.lower().strip("_") in FORBIDDEN:
            yield f"line {token.start[0]}: {token.string}"


def test_no_name_has_two_definitions() -> None:
    several = {name: sorted(modules) for name, modules in public_definitions().items() if len(modules) > 1}
    assert {name: modules for name, modules in several.items() if name not in SHARED} == {}


def test_the_list_of_shared_names_is_not_longer_than_needed() -> None:
    modules = public_definitions()
    assert [name for name in SHARED if len(modules[name]) < 2] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_identifier_is_a_forbidden_word(folder: str) -> None:
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths
    assert [f"{path.relative_to(ROOT)}, {found}" for path in paths for found in forbidden(path.read_text())] == []


def test_a_forbidden_word_is_found_wherever_it_names_something() -> None:
    assert list(forbidden("def told(said):\n    return said.about\n")) == [
        "line 1: told",
        "line 1: said",
        "line 2: said",
        "line 2: about",
    ]
    assert list(forbidden("_ABOUT = f(look=1)\n")) == ["line 1: _ABOUT", "line 1: look"]
    assert list(forbidden('"about"  # as said\ntold_twice = 1\n')) == []
