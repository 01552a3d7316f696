"""The parameters of a synthetic face.

Lengths are in face units (see `canvas`), shares in [0, 1], colours sRGB in [0, 1].
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64

from idm.data.portrait.canvas import Colour, Point

SceneKind = Literal["studio", "lights", "room", "garden"]
Neckline = Literal["crew", "v", "shirt", "high"]
Glasses = Literal["none", "round", "square", "thin"]
HairStyle = Literal[
    "bald", "buzz", "short", "quiff", "curly", "bob", "fringe", "long", "wavy", "bun", "scarf"
]  # fmt: skip


@dataclass(frozen=True)
class Person:
    """What the other traits depend on."""

    masculine: float
    age: float  # 0: about 18 years, 1: about 80
    tone: float  # 0 fair, 1 deep
    makeup: float


@dataclass(frozen=True)
class Frame:
    landmarks: tuple[Point, ...]  # the five, in face coordinates
    pose: Float64[np.ndarray, "2 3"]  # face coordinates -> pixels of a 512 px picture, from its border
    yaw: float  # -1 turned to the left of the picture, 1 to the right


@dataclass(frozen=True)
class Colours:
    skin: Colour
    hair: Colour
    iris: Colour
    lips: Colour
    cloth: Colour
    frame: Colour  # of the glasses
    scarf: Colour
    earrings: Colour


@dataclass(frozen=True)
class Light:
    towards: tuple[float, float, float]  # unit vector from the face to the light; z points to the viewer
    ambient: float
    warmth: float  # -1 cool, 1 warm


@dataclass(frozen=True)
class Scene:
    kind: SceneKind
    near: Colour
    far: Colour
    accent: Colour
    neckline: Neckline


@dataclass(frozen=True)
class Skull:
    cheek: float  # half width at the cheekbones
    jaw: float  # half width at the corners of the jaw
    chin: float  # half width of the chin
    chin_y: float
    crown_y: float
    neck: float  # half width


@dataclass(frozen=True)
class Eyes:
    width: float  # half width
    upper: float  # height of the upper lid over the pupil
    lower: float
    tilt: float  # rise of the outer corner
    lid: float  # visible height of the upper lid under its crease
    gaze: float  # shift of the opening against the pupil, towards the right of the picture
    iris: float  # radius


@dataclass(frozen=True)
class Brows:
    y: float  # above the eye
    thick: float
    arch: float
    tilt: float


@dataclass(frozen=True)
class Nose:
    width: float  # half width at the wings
    bridge: float  # half width
    height: float  # towards the viewer


@dataclass(frozen=True)
class Mouth:
    upper: float  # height of the upper lip
    lower: float
    smile: float  # how far the middle hangs under the corners
    gap: float  # how far the lips are apart; 0 closed


@dataclass(frozen=True)
class Hair:
    style: HairStyle
    part: float  # where the hair is parted, from the middle to the right
    volume: float  # about 1
    recede: float  # how far the hairline has moved back
    wave: float
    beard: float  # 0 none, 1 long
    moustache: bool
    stubble: float


@dataclass(frozen=True)
class Extras:
    glasses: Glasses
    freckles: float
    wrinkles: float
    blush: float
    earrings: bool


@dataclass(frozen=True)
class Traits:
    """Everything that tells one synthetic face from another."""

    person: Person
    frame: Frame
    colours: Colours
    light: Light
    scene: Scene
    skull: Skull
    eyes: Eyes
    brows: Brows
    nose: Nose
    mouth: Mouth
    hair: Hair
    extras: Extras
