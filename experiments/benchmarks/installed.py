"""Measure the size of an installation: MiB and number of distributions of the base and of each extra.

``python experiments/benchmarks/installed.py``

The script follows the requirements of the installed distributions, starting with those of ``pyproject.toml``, and adds
the sizes of the files that they recorded. Packages that are not installed are listed and do not count.
"""

import tomllib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def closure(requirements: Sequence[str]) -> tuple[set[str], set[str]]:
    """Return the distributions that the requirements need, directly or indirectly, as (installed, missing)."""
    there: set[str] = set()
    missing: set[str] = set()
    waiting, seen = [(Requirement(text), "") for text in requirements], set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        if name == PROJECT["name"]:
            waiting += [(Requirement(text), "") for own in requirement.extras for text in EXTRAS[own]]
            continue
        for own in {"", *requirement.extras} - {extra for known, extra in seen if known == name}:
            seen.add((name, own))
            try:
                stated = distribution(name).requires or []
            except PackageNotFoundError:
                missing.add(name)
                continue
            there.add(name)
            waiting += [(Requirement(text), own) for text in stated]
    return there, missing


def mebibytes(names: set[str]) -> float:
    """Return the size of all files of the distributions in MiB."""
    paths = [Path(str(file.locate())) for name in names for file in distribution(name).files or ()]
    return sum(path.stat().st_size for path in paths if path.exists()) / 2**20


def main() -> None:
    base, missing = closure(PROJECT["dependencies"])
    torch, _ = closure(["torch"])
    print("| | MiB | distributions | not installed here |\n|---|---|---|---|")
    print(f"| base | {mebibytes(base):.0f} | {len(base)} | {', '.join(sorted(missing))} |")
    print(f"| of which torch | {mebibytes(torch):.0f} | {len(torch)} | |")
    for name in EXTRAS:
        more, missing = closure(EXTRAS[name])
        more -= base
        print(f"| `{name}` adds | {mebibytes(more):.0f} | {len(more)} | {', '.join(sorted(missing))} |")


if __name__ == "__main__":
    main()
