"""A labelled table of pictures as one picture."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from idm.io.errors import InvalidInput


def image_grid(
    rows: Sequence[Sequence[UInt8[np.ndarray, "_ _ 3"]]], labels: Sequence[str]
) -> UInt8[np.ndarray, "_ _ 3"]:
    """A labelled table of pictures on white, such as degraded | restored | original, one row per face.

    All pictures have one size and are copied pixel by pixel; ``labels`` are written above the columns.

    Raises:
        ValueError: no pictures, a row and ``labels`` differ in length, or pictures differ in size.
    """
    if not rows or not labels:
        raise InvalidInput("a grid needs at least one row and one column")
    if any(len(row) != len(labels) for row in rows):
        raise InvalidInput(f"every row needs {len(labels)} pictures, got {[len(row) for row in rows]}")
    sizes = {picture.shape[:2] for row in rows for picture in row}
    if len(sizes) != 1:
        raise InvalidInput(f"all pictures of a grid need one size, got {sorted(sizes)}: use resize_image")
    ((height, width),) = sizes

    gap = max(3, width // 48)
    margin = 2 * gap
    font = _label_font(labels, width)
    top = margin + round(1.8 * font.size)
    grid_width = 2 * margin + len(labels) * (width + gap) - gap
    grid_height = top + len(rows) * (height + gap) - gap + margin
    canvas = Image.new("RGB", (grid_width, grid_height), "white")
    draw = ImageDraw.Draw(canvas)
    for column, label in enumerate(labels):
        left = margin + column * (width + gap)
        draw.text((left + width / 2, (margin + top) / 2), label, fill=(64, 64, 64), font=font, anchor="mm")
        for row, pictures in enumerate(rows):
            canvas.paste(Image.fromarray(pictures[column]), (left, top + row * (height + gap)))
    return np.array(canvas)


def _label_font(labels: Sequence[str], width: int) -> ImageFont.FreeTypeFont:
    """PIL's built-in font, about a fourteenth of a picture high, smaller if a label would not fit."""
    for size in range(min(max(width // 14, 10), 32), 5, -1):
        font = ImageFont.load_default(size)
        if max(font.getlength(label) for label in labels) <= width:
            break
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
