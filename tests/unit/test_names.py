"""One name, one meaning: what the packages define, and the words and phrases that no identifier may hold."""

import ast
import io
import re
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

# Words that no part of an identifier may be, and what to write instead.
FORBIDDEN = {
    "about": "metadata, summary, settings",
    "clip": "video",
    "clips": "videos",
    "look": "theme, config, preview",
    "said": "message, response, output",
    "say": "format, report",
    "says": "message, response, output",
    "tells": "message, report, status",
    "told": "message, report, status",
}
LEGITIMATE = {
    *("clip", "clip_grad_norm_", "clip_sample"),  # to limit values, as NumPy, PyTorch and diffusers call it
    *("CLIP", "CLIP_WEIGHTS", "_import_clip", "clip_file", "clip_model", "clip_path"),  # the network
}

# Phrases that no name of a test may hold, and what to write instead.
PHRASES = {
    r"go(es)?_on": "resumes, continues",
    r"said|told|says?|tells?": "is reported, is refused, records, receives",
    r"(is|are|of|was)_no": "is not, are not",
    r"(?<!of_another_)clips?(?!_iqa)": "video",
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
    """Identifiers of a program with a forbidden word or phrase, with their line; strings and comments may hold them."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and is_forbidden(token.string):
            yield f"line {token.start[0]}: {token.string}"


def is_forbidden(name: str) -> bool:
    if name.startswith("test_"):
        return any(re.search(rf"_({phrase})(_|$)", name) for phrase in PHRASES)
    return name not in LEGITIMATE and not FORBIDDEN.keys().isdisjoint(name.lower().split("_"))


def test_no_name_has_two_definitions() -> None:
    several = {name: sorted(modules) for name, modules in public_definitions().items() if len(modules) > 1}
    assert {name: modules for name, modules in several.items() if name not in SHARED} == {}


def test_the_list_of_shared_names_is_not_longer_than_needed() -> None:
    modules = public_definitions()
    assert [name for name in SHARED if len(modules[name]) < 2] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_identifier_holds_a_forbidden_word_or_phrase(folder: str) -> None:
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
    assert list(forbidden("def _is_clip(_told_of): ...\n")) == ["line 1: _is_clip", "line 1: _told_of"]
    assert list(forbidden('"about"  # as said\nabouts = np.clip(x)\n')) == []


@pytest.mark.parametrize(
    "name",
    [
        "test_a_run_goes_on_after_a_kill",
        "test_the_run_can_go_on",
        "test_a_full_disk_is_told",
        "test_a_fault_is_said_to_be_one",
        "test_a_file_that_is_no_picture_is_refused",
        "test_a_clip_of_two_frames",
    ],
)
def test_a_forbidden_phrase_in_the_name_of_a_test_is_found(name: str) -> None:
    assert list(forbidden(f"def {name}(): ...\n")) == [f"line 1: {name}"]


def test_a_plain_name_of_a_test_is_not_forbidden() -> None:
    names = ("test_gradients_are_clipped", "test_clip_iqa_is_measured", "test_a_scale_about_the_centre", "test_is_not")
    assert not any(map(is_forbidden, names))
