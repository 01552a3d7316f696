"""Plots of a report as SVG, which takes its colours from the page."""

from collections.abc import Sequence
from html import escape
from math import log10

Point = tuple[str, float, float]  # label, x, y

NUM_BINS = 24
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 520.0, 320.0, 60.0, 90.0, 30.0, 45.0


def scatter_plot(points: Sequence[Point], x_title: str, y_title: str, title: str, *, log_x: bool = False) -> str:
    """An SVG of labelled points on linear axes, or with the logarithm of x."""
    if log_x:
        points = [(label, log10(x), y) for label, x, y in points]
    x_range, y_range = _span([x for _, x, _ in points]), _span([y for _, _, y in points])
    marks = ""
    for label, x, y in points:
        px, py = _place(x, x_range, LEFT, WIDTH - RIGHT), _place(y, y_range, HEIGHT - BOTTOM, TOP)
        marks += f"<circle cx='{px:.1f}' cy='{py:.1f}' r='4' fill='#37c'/>"
        marks += f"<text x='{px + 7:.1f}' y='{py + 4:.1f}'>{escape(label)}</text>"
    x_ends = (10 ** x_range[0], 10 ** x_range[1]) if log_x else x_range
    return _frame(marks, x_ends, y_range, x_title, y_title, title)


def histogram(values: Sequence[float], title: str) -> str:
    """An SVG of the distribution of values, with a line at 0."""
    x_range = _span([*values, 0.0])
    low, high = x_range
    counts = [0] * NUM_BINS
    for value in values:
        counts[min(NUM_BINS - 1, int((value - low) / (high - low) * NUM_BINS))] += 1
    y_range = (0.0, float(max(counts)))
    step = (WIDTH - LEFT - RIGHT) / NUM_BINS
    bars = ""
    for i, count in enumerate(counts):
        top = _place(float(count), y_range, HEIGHT - BOTTOM, TOP)
        size = f"width='{step - 1:.1f}' height='{HEIGHT - BOTTOM - top:.1f}'"
        bars += f"<rect x='{LEFT + i * step:.1f}' y='{top:.1f}' {size} fill='#37c'/>"
    zero = _place(0.0, x_range, LEFT, WIDTH - RIGHT)
    bars += f"<line x1='{zero:.1f}' x2='{zero:.1f}' y1='{TOP}' y2='{HEIGHT - BOTTOM}' stroke='#c33'/>"
    return _frame(bars, x_range, y_range, "difference", "faces", title)


def _frame(
    content: str, x_range: tuple[float, float], y_range: tuple[float, float], x_title: str, y_title: str, title: str
) -> str:
    """Axes with their ends around a plot's content."""
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    axes = f"<path d='M{LEFT} {TOP}V{bottom}H{right}' fill='none' stroke='currentColor'/>"
    texts = [
        (LEFT, bottom + 16, "start", f"{x_range[0]:.3g}"),
        (right, bottom + 16, "end", f"{x_range[1]:.3g}"),
        ((LEFT + right) / 2, bottom + 34, "middle", x_title),
        (LEFT - 5, bottom, "end", f"{y_range[0]:.3g}"),
        (LEFT - 5, TOP + 10, "end", f"{y_range[1]:.3g}"),
        (LEFT, TOP - 12, "start", f"{title} ({y_title})"),
    ]
    labels = "".join(
        f"<text x='{x}' y='{y}' text-anchor='{place}'>{escape(text)}</text>" for x, y, place, text in texts
    )
    size = f"viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}'"
    return f"<svg {size} role='img' aria-label='{escape(title)}'>{axes}{content}{labels}</svg>"


def _span(values: Sequence[float]) -> tuple[float, float]:
    """The range of values with a margin, never empty."""
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 0.5
    return low - margin, high + margin


def _place(value: float, span: tuple[float, float], start: float, end: float) -> float:
    return start + (value - span[0]) / (span[1] - span[0]) * (end - start)
