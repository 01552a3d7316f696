"""The bare head of a synthetic face: a relief of soft hills, lit from one side, and the marks of its skin."""

import cv2
import numpy as np

from idm.data.synthetic_canvas import Canvas, Colour, Outline, Picture, Plane, bump, length, mix, outline, rgb, rise
from idm.data.synthetic_traits import Light, Skull, Traits

# The skin is smooth: it is lit on a grid of face coordinates with this step, then enlarged.
STEP = 2.0
LEFT, TOP, COLUMNS, ROWS = -176.0, -272.0, 177, 242

Axis = Plane  # a row or a column of coordinates; both together span the grid


def head_outline(skull: Skull, yaw: float) -> Outline:
    """Crown, temples, cheekbones, jaw and chin."""
    half = [
        (0, skull.crown_y), (68, skull.crown_y + 14), (114, skull.crown_y + 62), (skull.cheek - 4, -104),
        (skull.cheek + 1, -45), (skull.cheek - 4, 5), (0.68 * skull.cheek + 0.32 * skull.jaw - 2, 58),
        (skull.jaw, 106), (0.5 * (skull.jaw + skull.chin), 38 + 0.6 * skull.chin_y),
        (skull.chin, skull.chin_y - 5), (0, skull.chin_y + 1),
    ]  # fmt: skip
    turn = -9 * yaw  # the features stay in the middle, so a turned head shows more of its near side
    return outline([(x + turn, y) for x, y in half], [(x - turn, y) for x, y in half], smooth=5)


def paint_head(canvas: Canvas, traits: Traits, border: Outline, offset: float) -> None:
    """The lit skin of the head, without features."""
    skin = np.ascontiguousarray(_skin(traits, border, offset).transpose(1, 2, 0))
    onto_grid = np.array([[STEP, 0, LEFT], [0, STEP, TOP], [0, 0, 1]])
    h, w = canvas.x.shape
    large = cv2.warpAffine(
        skin, canvas.to_pixel @ onto_grid, (w, h), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    canvas.paint(canvas.cover(canvas.radius - border.at(canvas.angle), 1.5), np.moveaxis(large, 2, 0))


def lit_skin(shade: Plane, skin: Colour) -> Picture:
    """Skin under more or less light: as it is translucent, its shadows turn red and its lights pale."""
    dark, bright = skin * rgb(0.40, 0.27, 0.24), mix(skin, rgb(1, 0.97, 0.93), 0.36)
    low, high = np.clip(shade / 0.62, 0, 1), np.clip((shade - 0.62) / 0.38, 0, 1.2)
    return np.stack([d + (s - d) * low + (b - s) * high for d, s, b in zip(dark, skin, bright, strict=True)])


def _skin(traits: Traits, border: Outline, offset: float) -> Picture:
    x = np.linspace(LEFT, LEFT + STEP * (COLUMNS - 1), COLUMNS, dtype=np.float32)[None]
    y = np.linspace(TOP, TOP + STEP * (ROWS - 1), ROWS, dtype=np.float32)[:, None]
    ratio = length(x, y) / border.at(np.arctan2(x, -y))
    shade, mirror = _light(_relief(x, y, traits, ratio), traits.light)
    hidden = _occlusion(x, y, traits, ratio)
    colours = lit_skin(shade * (1 - hidden), traits.colours.skin)
    tip = traits.frame.landmarks[2]
    red = 0.22 * bump(x, y, (tip[0], tip[1] + 2), (22, 18)) + 0.08 * bump(x, y, (0, 150), (40, 22))
    for side in (-1, 1):
        red += 0.30 * traits.extras.blush * bump(x, y, (80 * side, 28), (34, 26))
    for column, row, size, strength in traits.extras.blotches:
        red += strength * bump(x, y, (column, row), (size, 0.8 * size))
    for plane, loss in zip(colours, (0.06, 0.31, 0.26), strict=True):
        plane *= 1 - loss * red
        plane += (0.06 + 0.09 * traits.person.tone) * mirror * (1 - hidden)
    del offset
    return colours
