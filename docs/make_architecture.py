"""Draw docs/pictures/architecture.svg from the imports: ``python docs/make_architecture.py``.

The rows are the layers of the first import contract in pyproject.toml. An arrow leads from a package to a package that
it imports. An import that a chain of other arrows implies is not drawn.
"""

import tomllib
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "pictures" / "architecture.svg"

WIDTH, ROW, MARGIN = 760, 84, 24
BOX_WIDTH, BOX_HEIGHT = 168, 40
Place = tuple[float, float]

ROLES = {
    "apps": "commands, photos, web page",
    "config.assembly": "settings -> objects",
    "training": "steps, runs, checkpoints",
    "extrinsic": "cleaning, gate, rounds",
    "config.load": "YAML and overrides",
    "config.schema": "checked settings",
    "evaluation": "metrics, tables",
    "restorers": "pipeline, saved models",
    "data": "sources, pairs",
    "faces": "detection, alignment",
    "degradation": "clean -> degraded",
    "diffusion": "schedule, samplers",
    "models": "denoiser, critics",
    "io": "files, machine",
}


def layers() -> list[list[str]]:
    """Return the packages of each row, highest row first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    contract = next(one for one in contracts if one.get("containers") == ["idm"])
    return [layer.split(" | ") for layer in contract["layers"]]


def imports(packages: list[str]) -> dict[str, set[str]]:
    """Return the packages that each package imports."""
    graph = grimp.build_graph("idm", cache_dir=None)
    modules = {package: _modules(graph, package) for package in packages}
    found = {}
    for package, own in modules.items():
        imported = set().union(*(graph.find_modules_directly_imported_by(module) for module in own))
        found[package] = {other for other in packages if other != package and imported & modules[other]}
    return found


def _modules(graph: grimp.ImportGraph, package: str) -> set[str]:
    return {f"idm.{package}", *graph.find_descendants(f"idm.{package}")}


def reduced(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """Remove the edges that a longer path implies. The graph must be acyclic."""

    def reachable(start: str) -> set[str]:
        return edges[start].union(*(reachable(one) for one in edges[start]))

    return {
        package: {one for one in direct if not any(one in reachable(other) for other in direct - {one})}
        for package, direct in edges.items()
    }


def places(rows: list[list[str]]) -> dict[str, Place]:
    """Return the centre of each box. Rows with one box are staggered, so that arrows pass beside boxes; the box of the
    last row is below a gap between the three boxes above it."""
    centres: dict[str, Place] = {}
    step = BOX_WIDTH + 60
    for number, row in enumerate(rows):
        y = MARGIN + BOX_HEIGHT / 2 + number * ROW
        for place, package in enumerate(row):
            x = WIDTH / 2 + (place - (len(row) - 1) / 2) * step
            stagger = step / 2 if number == len(rows) - 1 else (-step / 2, step / 2, 0)[number % 3]
            centres[package] = (x + (stagger if len(row) == 1 else 0), y)
    return centres


def arrow(start: Place, end: Place) -> str:
    """Draw an arrow from the lower edge of one box to the upper edge of another."""
    (x, y), (to_x, to_y) = start, end
    top, bottom = y + BOX_HEIGHT / 2, to_y - BOX_HEIGHT / 2 - 4
    bend = (bottom - top) / 2
    return f'<path d="M{x:g},{top:g} C{x:g},{top + bend:g} {to_x:g},{bottom - bend:g} {to_x:g},{bottom:g}"/>'


def box(package: str, centre: Place) -> str:
    """Draw a package: its name, and below it what it is for."""
    x, y = centre
    corner = f'x="{x - BOX_WIDTH / 2:g}" y="{y - BOX_HEIGHT / 2:g}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6"'
    return (
        f'<rect {corner}/><text x="{x:g}" y="{y - 3:g}" class="name">idm.{package}</text>'
        f'<text x="{x:g}" y="{y + 12:g}">{ROLES[package].replace("->", "&#8594;")}</text>'
    )


STYLE = """<style>
rect { fill: #e8f0fe; stroke: #3f51b5; }
text { font: 10px sans-serif; text-anchor: middle; fill: #333; }
.name { font: bold 12px monospace; fill: #111; }
path { fill: none; stroke: #607d8b; stroke-width: 1.3; marker-end: url(#head); }
</style>
<marker id="head" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<polygon points="0,0 8,4 0,8" fill="#607d8b"/></marker>"""


def render() -> str:
    """Return the picture as SVG."""
    rows = layers()
    centres = places(rows)
    edges = reduced(imports(list(centres)))
    arrows = [arrow(centres[one], centres[other]) for one in centres for other in sorted(edges[one])]
    boxes = [box(package, centre) for package, centre in centres.items()]
    height = 2 * MARGIN + BOX_HEIGHT + (len(rows) - 1) * ROW
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}">'
    background = f'<rect x="0" y="0" width="{WIDTH}" height="{height}" style="fill: #fff; stroke: none"/>'
    return "\n".join([head, STYLE, background, *arrows, *boxes, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(render())
    print(PICTURE)
