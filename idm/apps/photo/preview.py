"""Draw the detected faces into a copy of a photograph."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image, ImageDraw, ImageFont

from idm.faces.align import to_unit
from idm.faces.detect import DetectedFace, shrink
from idm.io.ranges import to_uint8

MAX_SIDE = 1600
_CHOSEN, _LEFT_ALONE = "#00e000", "#ff8000"


def draw_faces(
    pixels: Integer[np.ndarray, "h w 3"], faces: Sequence[DetectedFace], chosen: Sequence[int]
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """A copy, at most ``MAX_SIDE`` pixels large, with each face's box and number: chosen ones are green, the others
    orange."""
    small = to_uint8(to_unit(shrink(pixels, MAX_SIDE)))
    factors = np.array([small.shape[1] / pixels.shape[1], small.shape[0] / pixels.shape[0]])
    image = Image.fromarray(small)
    draw = ImageDraw.Draw(image)
    thickness = max(1, round(max(image.size) / 400))
    for number, face in enumerate(faces):
        colour = _CHOSEN if number in chosen else _LEFT_ALONE
        left, top, right, bottom = ((face.box.reshape(2, 2) + 0.5) * factors - 0.5).flatten()
        draw.rectangle((left, top, right, bottom), outline=colour, width=thickness)
        # to be read in a small copy of the picture, but not over other faces
        size = min(max(10, round(0.4 * (bottom - top))), 14 * thickness)
        _label(draw, str(number), (left, top - thickness), size, colour)
    return np.array(image)


def _label(draw: ImageDraw.ImageDraw, text: str, corner: tuple[float, float], size: int, colour: str) -> None:
    """Draw a label on black above a corner, or below it if there is no room above."""
    font = ImageFont.load_default(size)
    anchor = "ls" if corner[1] > size else "lt"
    place = (corner[0], max(0.0, corner[1]))
    left, top, right, bottom = draw.textbbox(place, text, font=font, anchor=anchor)
    draw.rectangle((left - 2, top - 2, right + 2, bottom + 2), fill="black")
    draw.text(place, text, fill=colour, font=font, anchor=anchor)
