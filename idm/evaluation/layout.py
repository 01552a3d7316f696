"""One table as Markdown, as LaTeX and as CSV, from the same content."""

import argparse
import csv
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Table = tuple[list[str], list[list[str]]]  # header, rows
Number = tuple[str, str, Mapping[str, Any]]  # row, metric, {"mean", "low", "high", "n"}

MAX_COLUMNS = 6  # beside the labels: of means with intervals, a page holds no more

GAP = "–"

DIFFERENCES = (
    "Paired differences over the same faces, with studentised bootstrap 95 % intervals from ten faces on; an interval "
    "without 0 supports a difference."
)

BEGIN, END = "<!-- begin: table.py -->\n", "<!-- end: table.py -->\n"  # around the tables of a page

_TEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
    | {"↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\rightarrow$", "−": "$-$", "–": "--", "×": r"$\times$"}
)


@dataclass(frozen=True)
class Content:
    """The content of a table.

    Attributes:
        table: a row for each method; each cell is a mean, with its interval behind it if there is one.
        interval: how the intervals were computed.
        differences: a row for every two restorers; None if there are none.
        notes: what each column is, and where the numbers come from.
        numbers: all numbers of both tables in full precision.
    """

    table: Table
    interval: str
    differences: Table | None
    notes: list[str]
    numbers: list[Number]


def markdown(content: Content) -> str:
    """The table, the differences if there are any, and the notes as Markdown."""
    lines = [*markdown_table(content.table), "", content.interval, ""]
    if content.differences is not None:
        lines += [DIFFERENCES, "", *markdown_table(content.differences, num_labels=2), ""]
    return "\n".join([*lines, *(f"- {note}" for note in content.notes)]) + "\n"


def markdown_table(table: Table, num_labels: int = 1) -> list[str]:
    """The lines of a table in Markdown, of its :func:`parts` one after another."""
    lines = []
    for header, rows in parts(table, num_labels):
        head = "| " + " | ".join(header).lstrip() + " |"
        lines += ["", head, "|---" * len(header) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
    return lines[1:]


def parts(table: Table, num_labels: int = 1) -> list[Table]:
    """A wide table as several of about the same width, each with at most :data:`MAX_COLUMNS` columns beside the labels.

    A part leaves out rows that have numbers only in other parts.

    Args:
        num_labels: the number of columns that label a row.
    """
    header, rows = table
    if len(header) - num_labels <= MAX_COLUMNS:
        return [table]
    number = -(-(len(header) - num_labels) // MAX_COLUMNS)
    found = []
    for columns in np.array_split(np.arange(num_labels, len(header)), number):
        start, end = columns[0], columns[-1] + 1
        shown = [row for row in rows if _has_number(row[start:end]) or not _has_number(row[num_labels:])]
        found.append(
            (header[:num_labels] + header[start:end], [row[:num_labels] + row[start:end] for row in shown or rows])
        )
    return found


def _has_number(cells: list[str]) -> bool:
    return any(cell not in ("", GAP) for cell in cells)


def tex(title: str, made_by: str, content: Content, note: str = "") -> str:
    """LaTeX ``table`` environments, which need the package booktabs; the notes are comments below them."""
    lines = [f"% {made_by}", r"% Needs \usepackage{booktabs}.", *_tex_table(title, content.table, content.interval)]
    if content.differences is not None:
        lines += _tex_table(f"{title}: paired differences", content.differences, DIFFERENCES, num_labels=2)
    lines += [f"% {' '.join(line.split())}" for line in (*content.notes, note) if line]
    return "\n".join(lines) + "\n"


def _tex_table(title: str, table: Table, below: str, num_labels: int = 1) -> list[str]:
    lines = [r"\begin{table}", r"  \centering", rf"  \caption{{{_escaped(title)}}}"]
    for header, rows in parts(table, num_labels):
        lines += [
            rf"  \begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            r"    \toprule",
            f"    {' & '.join(map(_escaped, header))} \\\\",
            r"    \midrule",
            *(f"    {' & '.join(map(_tex_cell, row))} \\\\" for row in rows),
            r"    \bottomrule",
            r"  \end{tabular}\par\medskip",
        ]
    lines[-1] = lines[-1].removesuffix(r"\par\medskip")
    return [*lines, rf"  \par\footnotesize {_escaped(below)}", r"\end{table}"]


def _tex_cell(cell: str) -> str:
    """A cell whose interval, if there is one, is set smaller."""
    mean, bracket, interval = cell.partition(" [")
    if not re.fullmatch(r"-?[\d.]+, -?[\d.]+\]", interval):
        return _escaped(cell)
    return rf"{_escaped(mean)} {{\scriptsize {_escaped(bracket.strip() + interval)}}}"


def _escaped(text: str) -> str:
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", text.translate(_TEX))


def csv_text(content: Content) -> str:
    """A line for each number: the row's label, the metric, mean, ends of the interval and number of faces."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    columns = ("mean", "low", "high", "n")
    writer.writerow(["row", "metric", *columns])
    writer.writerows(
        [row, metric, *(value.get(column) for column in columns)] for row, metric, value in content.numbers
    )
    return text.getvalue()


def update_tables(description: str | None, page: Path, tables: Callable[[], str]) -> None:
    """The command of a script whose tables stand in a page between :data:`BEGIN` and :data:`END`: it prints the tables,
    ``--write`` puts them into the page, and ``--check`` exits with status 1 if those of the page are stale."""
    parser = argparse.ArgumentParser(description=description)
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--write", action="store_true", help=f"put the tables into {page.name}")
    action.add_argument("--check", action="store_true", help="exit with status 1 if the tables are stale")
    arguments = parser.parse_args()
    before, _, rest = page.read_text().partition(BEGIN)
    text = before + BEGIN + tables() + END + rest.partition(END)[2]
    if arguments.write:
        page.write_text(text)
    elif arguments.check:
        raise SystemExit(0 if text == page.read_text() else f"{page.name} is stale: run table.py --write")
    else:
        print(tables())
