"""Do the documents still speak of what is there? Functions, tests, files, settings, links."""

import ast
import importlib
import importlib.util
import inspect
import re
import sys
import tomllib
from functools import cache, cached_property
from pathlib import Path
from types import FunctionType, ModuleType

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").glob("*.md")),
    *sorted((ROOT / "experiments").rglob("*.md")),
]
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


def prose(path: Path) -> str:
    """A document without its code blocks."""
    return re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)


# Equations


def rows_of_equations() -> list[list[str]]:
    """The cells of every row of the tables with the columns paper, equation, function, test."""
    rows, inside = [], False
    for line in (ROOT / "docs" / "equations.md").read_text().splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells == ["paper", "equation", "function", "test"]:
            inside = True
        elif not cells:
            inside = False
        elif inside and not set(cells[0]) <= {"-"}:
            rows.append(cells)
    return rows


EQUATIONS = rows_of_equations()


@cache
def definitions(path: Path) -> frozenset[str]:
    """Names of a module's functions and classes, and of what its classes define, as Class.name."""
    names: set[str] = set()

    def collect(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                collect(node.body, f"{prefix}{node.name}.")

    collect(ast.parse(path.read_text()).body, "")
    return frozenset(names)


def missing(reference: str) -> str | None:
    """What is wrong with "package.module:name" or "tests/file.py::name"; None if it exists."""
    module, is_test, name = reference.partition("::")
    if is_test:
        path = ROOT / module
    else:
        module, _, name = reference.partition(":")
        spec = importlib.util.find_spec(module) if importlib.util.find_spec(module.partition(".")[0]) else None
        if spec is None or spec.origin is None:
            return f"there is no module {module}"
        path = Path(spec.origin)
    if not path.is_file():
        return f"there is no file {module}"
    return None if name in definitions(path) else f"{module} has no {name}"


def test_there_are_equations() -> None:
    assert len(EQUATIONS) > 20
    assert all(len(row) == 4 for row in EQUATIONS)


@pytest.mark.parametrize("row", EQUATIONS, ids=lambda row: f"{row[0]}: {row[1]}"[:60])
def test_every_equation_names_functions_and_tests_that_exist(row: list[str]) -> None:
    for cell, pattern in ((row[2], r"[\w.]+:[\w.]+"), (row[3], r"tests/[\w/]+\.py::test_\w+")):
        references = re.findall(r"`([^`]*)`", cell)
        assert references, f"no reference in {cell!r}"
        assert all(re.fullmatch(pattern, reference) for reference in references), references
        assert [fault for reference in references if (fault := missing(reference))] == []


def test_a_name_that_does_not_exist_is_found() -> None:
    assert missing("idm.diffusion.process:add_noise") is None
    assert missing("idm.diffusion.process:add_nose") == "idm.diffusion.process has no add_nose"
    assert missing("idm.diffusion.schedulers:LangevinScheduler.stop")
    assert missing("idm.diffusion.nowhere:add_noise") == "there is no module idm.diffusion.nowhere"
    assert missing("nowhere.at.all:add_noise") == "there is no module nowhere.at.all"
    assert missing("tests/unit/test_docs.py::test_there_are_equations") is None
    assert missing("tests/unit/test_docs.py::test_that_is_not_there")
    assert missing("tests/unit/test_nothing.py::test_there_are_equations")


# Files and settings


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_relative_link_leads_to_a_file(document: Path) -> None:
    text = prose(document)
    targets = re.findall(r"\]\(<?([^)>\s]+)>?(?:\s+\"[^\"]*\")?\)", text)
    targets += re.findall(r"(?:src|href)=\"([^\"]+)\"", text)
    relative = [target for target in targets if not re.match(r"[a-z][a-z0-9+.-]*:|#|//", target)]
    broken = [target for target in relative if not (document.parent / target.partition("#")[0]).exists()]
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_file_that_is_named_in_passing_exists(document: Path) -> None:
    named = re.findall(r"`((?:idm|gan_baseline|tests|configs|docs|experiments)/[\w./-]*)`", prose(document))
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_setting_that_is_named_in_passing_exists(document: Path) -> None:
    known = settings()
    sections = "|".join(sorted({path.partition(".")[0] for path in known if "." in path}))
    named = re.findall(rf"`((?:{sections})(?:\.[a-z_]+)+)(?:=[^`]*)?`", prose(document))
    assert [name for name in named if name not in known] == []


def settings() -> set[str]:
    """All dotted keys of a configuration, whatever its choices."""
    from gan_baseline.schema import GANConfig
    from idm.config.schema import IDMConfig

    page = load(ROOT / "docs" / "make_configuration.py")
    known: set[str] = set()
    for schema in (IDMConfig, GANConfig):
        for section, path in page._tree(schema, ""):
            known |= {f"{path}.{name}" if path else name for name in page.fields_of(section)}
    return known


def test_every_dependency_has_its_licence_listed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    packages = {re.split(r"[\s\[<>=!~;]", requirement)[0] for requirement in listed}
    page = (ROOT / "docs" / "licences.md").read_text()
    packages.remove(project["name"])  # an extra that brings others
    assert {package for package in packages if f"\n| {package} |" not in page} == set()


def test_every_weights_file_has_its_terms_listed() -> None:
    from idm.io.known_weights import KNOWN

    page = (ROOT / "docs" / "licences.md").read_text()
    assert [name for name in KNOWN if f"`{name}`" not in page] == []


# Generated pages, and the site


def load(path: Path) -> ModuleType:
    """A module that is in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_settings_is_up_to_date() -> None:
    committed = (ROOT / "docs" / "configuration.md").read_text()
    assert committed == load(ROOT / "docs" / "make_configuration.py").render(), "run: python docs/make_configuration.py"


def test_the_architecture_picture_is_up_to_date() -> None:
    committed = (ROOT / "docs" / "pictures" / "architecture.svg").read_text()
    assert committed == load(ROOT / "docs" / "make_architecture.py").render(), "run: python docs/make_architecture.py"


def test_an_arrow_of_the_architecture_is_left_out_only_where_others_imply_it() -> None:
    page = load(ROOT / "docs" / "make_architecture.py")
    assert page.reduced({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": {"b"}, "b": {"c"}, "c": set()}


def test_the_site_lists_every_page_of_the_documentation() -> None:
    pages = set(re.findall(r"[\w/]+\.md", (ROOT / "mkdocs.yml").read_text()))
    docs = ROOT / "docs"
    assert {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")} <= pages


# Docstrings and API pages


MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("idm", "gan_baseline")
    for path in (ROOT / package).rglob("*.py")
    if not path.name.startswith("__")
)


def test_every_module_is_on_an_api_page_or_listed_as_internal() -> None:
    pages = ROOT / "docs" / "api"
    shown = [name for page in pages.glob("*.md") for name in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE)]
    _, _, listed = (pages / "index.md").read_text().partition("## Internal modules")
    internal = re.findall(r"`((?:idm|gan_baseline)[.\w]+)`", listed)
    assert len(shown) == len({*shown, *internal}) - len(internal)
    assert {name for name in internal if not any(f"{module}.".startswith(f"{name}.") for module in MODULES)} == set()
    hidden = tuple(f"{name}." for name in internal)
    assert [module for module in MODULES if module not in shown and not f"{module}.".startswith(hidden)] == []


def test_every_public_method_has_a_docstring_or_a_base_that_has_one() -> None:
    """ruff demands those of modules, classes and functions."""
    undocumented = [
        f"{module}.{name}.{attribute}"
        for module in MODULES
        for name, kind in vars(importlib.import_module(module)).items()
        if isinstance(kind, type) and kind.__module__ == module and not name.startswith("_")
        for attribute, value in vars(kind).items()
        if isinstance(value, FunctionType | classmethod | staticmethod | property | cached_property)
        if not attribute.startswith("_") and attribute not in getattr(kind, "__dataclass_fields__", ())
        if not inspect.getdoc(getattr(kind, attribute))
    ]
    assert undocumented == []


# Machine-readable files


def test_the_citation_has_the_version_and_licence_of_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert f"## [{project['version']}]" in (ROOT / "CHANGELOG.md").read_text()


# Seeded faults


@pytest.mark.parametrize(
    "fault", load(ROOT / "tests" / "faults.py").FAULTS, ids=lambda fault: f"{fault.file}: {fault.name}"
)
def test_every_seeded_fault_still_fits_the_code(fault) -> None:
    assert (ROOT / fault.file).read_text().count(fault.old) == 1
    file, _, test = fault.test.partition("::")
    assert f"def {test}(" in (ROOT / file).read_text()
