"""docs/metrics.md from the table of metrics: ``python docs/make_metrics.py``."""

from pathlib import Path

from idm.evaluation.metrics import METRICS

PAGE = Path(__file__).parent / "metrics.md"

HEAD = """# Metrics

`python docs/make_metrics.py` makes this page from the table that `idm evaluate`, `idm compare` and `idm report` read;
`idm evaluate --list-metrics` prints it.

A **pair** metric compares the restored face with its original, a **single** one looks at the restored face alone, a
**set** metric compares all restored faces with all originals, whichever belongs to which. Everything is measured on
images rounded to 8 bits, as they would be saved. Means have studentised bootstrap 95 % intervals; sets have none.
A metric whose weights are missing, or that is not defined for faces so small, is a gap in the table with its reason.
`idm weights` says where to get weights; nothing is downloaded.

| `--metrics` | column | kind | faces from | what it is |
|---|---|---|---|---|
"""


def render() -> str:
    rows = (
        f"| `{name}` | {metric.heading} | {metric.kind} | {metric.smallest} px | {metric.protocol} |\n"
        for name, metric in METRICS.items()
    )
    return HEAD + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(render())
    print(PAGE)
