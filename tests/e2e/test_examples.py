"""Every worked example of CONTRIBUTING.md that has code, performed in a copy of the repository."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COPIED = ("idm", "gan_baseline", "tests", "configs", "docs", "pyproject.toml", "train_idm.py")
PLACE = re.compile(r"^# (after|before|replace): (.+)\n", re.MULTILINE)


@dataclass(frozen=True)
class Example:
    """A worked example: blocks of edits, each headed by its file, and the commands that close it."""

    edits: tuple[tuple[str, str], ...]
    commands: str


def read_examples(text: str) -> dict[str, Example]:
    """The examples by title; sections without a shell block are prose."""
    examples = {}
    for section in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        blocks = re.findall(r"^```(\w+)\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
        heads = [block.partition("\n") for kind, block in blocks if kind != "sh"]
        edits = tuple((first.removeprefix("# "), rest) for first, _, rest in heads)
        commands = "".join(block for kind, block in blocks if kind == "sh")
        if commands:
            examples[section.partition("\n")[0]] = Example(edits, commands)
    return examples


def edited(text: str, edit: str) -> str:
    """A file's text after all insertions of a block; a block without a place is the whole new file.

    Raises:
        ValueError: a place's line is not in the file, or more than once.
    """
    first, *pieces = PLACE.split(edit)
    if not pieces:
        return text + first
    for where, beginning, lines in zip(pieces[::3], pieces[1::3], pieces[2::3], strict=True):
        found = list(re.finditer(rf"^[ \t]*{re.escape(beginning)}.*\n", text, flags=re.MULTILINE))
        if len(found) != 1:
            raise ValueError(f"{len(found)} lines begin with {beginning!r}")
        start, end = found[0].span()
        start, end = {"after": (end, end), "before": (start, start), "replace": (start, end)}[where]
        text = text[:start] + lines + text[end:]
    return text


EXAMPLES = read_examples((ROOT / "CONTRIBUTING.md").read_text())


def test_the_table_counts_the_files_of_every_example() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| (Add [^|]+) \| \d+ \| (\d+) \|$", text, flags=re.MULTILINE)
    assert rows
    assert {title: int(count) for title, count in rows} == {
        title: len({name for name, _ in example.edits}) for title, example in EXAMPLES.items()
    }


def test_an_edit_whose_line_is_not_there_is_refused() -> None:
    assert edited("a\nb\n", "# after: a\nx\n# before: b\ny\n") == "a\nx\ny\nb\n"
    assert edited("  a = 1\nb\n", "# replace: a =\nx\n") == "x\nb\n"
    for text in ("b\n", "a\na\n"):
        with pytest.raises(ValueError, match=r"\d lines begin with 'a'"):
            edited(text, "# after: a\nx\n")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the repository, for all examples, which share what Python compiles."""
    folder = tmp_path_factory.mktemp("repository")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def with_edits(copy: Path) -> Iterator[Callable[[Example], None]]:
    """Applies the edits of an example to the copy; after the test they are undone."""
    originals: dict[Path, str | None] = {}

    def apply(example: Example) -> None:
        for name, edit in example.edits:
            path = copy / name
            originals.setdefault(path, path.read_text() if path.exists() else None)
            path.write_text(edited(path.read_text() if path.exists() else "", edit))

    yield apply
    for path, text in originals.items():
        if text is None:
            path.unlink()
        else:
            path.write_text(text)


@pytest.mark.parametrize("title", EXAMPLES)
def test_a_worked_example_works(title: str, copy: Path, with_edits: Callable[[Example], None]) -> None:
    with_edits(EXAMPLES[title])
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTEST_ADDOPTS": "-n0"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", EXAMPLES[title].commands],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
