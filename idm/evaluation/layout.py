"""One table as Markdown, as LaTeX and as CSV, from the same content."""

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Table = tuple[list[str], list[list[str]]]  # header, rows
Number = tuple[str, str, Mapping[str, Any]]  # row, metric, {"mean", "low", "high", "n"}

DIFFERENCES = "Paired differences over the same faces; an interval without 0 supports a difference."

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
    lines = [*markdown_table(*content.table), "", content.interval, ""]
    if content.differences is not None:
        lines += [DIFFERENCES, "", *markdown_table(*content.differences), ""]
    return "\n".join([*lines, *(f"- {note}" for note in content.notes)]) + "\n"


def markdown_table(header: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a Markdown table."""
    head = "| " + " | ".join(header).lstrip() + " |"
    return [head, "|---" * len(header) + "|", *(f"| {' | '.join(row)} |" for row in rows)]


def tex(title: str, made_by: str, content: Content, note: str = "") -> str:
    """LaTeX ``table`` environments, which need the package booktabs; the notes are comments below them."""
    lines = [f"% {made_by}", r"% Needs \usepackage{booktabs}.", *_tex_table(title, content.table, content.interval)]
    if content.differences is not None:
        lines += _tex_table(f"{title}: paired differences", content.differences, DIFFERENCES)
    lines += [f"% {' '.join(line.split())}" for line in (*content.notes, note) if line]
    return "\n".join(lines) + "\n"


def _tex_table(title: str, table: Table, below: str) -> list[str]:
    header, rows = table
    return [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_escaped(title)}}}",
        rf"  \begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        r"    \toprule",
        f"    {' & '.join(map(_escaped, header))} \\\\",
        r"    \midrule",
        *(f"    {' & '.join(map(_tex_cell, row))} \\\\" for row in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        rf"  \par\footnotesize {_escaped(below)}",
        r"\end{table}",
    ]


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
