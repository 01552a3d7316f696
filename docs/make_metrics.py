"""Write docs/metrics.md from the table of metrics: ``python docs/make_metrics.py``."""

from pathlib import Path

from idm.evaluation.metrics import METRICS

PAGE = Path(__file__).parent / "metrics.md"

HEAD = """# Metrics

`python docs/make_metrics.py` writes this page from the table that `idm evaluate`, `idm compare` and `idm report` read.
`idm evaluate --list-metrics` prints the same table.

A **pair** metric compares each restored face with its original. A **single** metric needs only the restored face. A
**set** metric compares the set of all restored faces with the set of all originals, or with other real faces
(`--reference real`). All metrics are computed on images rounded to 8 bits, as they would be saved. Means have
studentised bootstrap 95 % intervals; set metrics have no interval.

A metric needs the files of the column *weights*, and `lpips`, `lmd` and the metrics of pyiqa need the extra `metrics`.
`idm weights fetch FILE ...` downloads files; no metric does. [Photographs](guides/photographs.md#detection) states
where they are searched, and [licences](licences.md#weights) states their terms. If weights are missing, or the faces
are smaller than the minimum, the metric is a gap in the table with the reason.

| `--metrics` | column | kind | minimum size | weights | protocol |
|---|---|---|---|---|---|
"""


def render() -> str:
    """Return the whole page as Markdown."""
    rows = (
        f"| `{name}` | {metric.heading} | {metric.kind} | {metric.smallest} px | "
        f"{', '.join(f'`{file}`' for file in metric.weights) or 'none'} | {metric.protocol} |\n"
        for name, metric in METRICS.items()
    )
    return HEAD + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(render())
    print(PAGE)
