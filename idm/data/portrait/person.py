"""Who is in the picture: how the parameters of a synthetic face are drawn."""

import numpy as np

from idm.data.portrait.canvas import Colour, Scalar, mix, rgb
from idm.data.portrait.traits import (
    Brows,
    Colours,
    Extras,
    Eyes,
    Frame,
    Glasses,
    Hair,
    HairStyle,
    Light,
    Mouth,
    Neckline,
    Nose,
    Person,
    Scene,
    SceneKind,
    Skull,
    Traits,
)

# Left eye, right eye, nose tip, left and right mouth corner as seen in a 512 px picture: the template of
# five points to which GFP-GAN's helper (facexlib 0.3.0) aligns; pixel centres at integers.
TEMPLATE_512 = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.19360],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ]
)
ORIGIN_512 = np.array([256.7, 290.0])  # of face coordinates, in pixels from the top left border

_MASCULINE_CUTS: tuple[HairStyle, ...] = (
    "bald", "buzz", "buzz", "short", "short", "quiff", "quiff", "curly", "wavy"
)  # fmt: skip
_FEMININE_CUTS: tuple[HairStyle, ...] = (
    "bob", "fringe", "long", "long", "wavy", "wavy", "bun", "curly", "scarf", "short"
)  # fmt: skip
_SKIN = (
    rgb(0.94, 0.79, 0.71),
    rgb(0.90, 0.72, 0.61),
    rgb(0.83, 0.63, 0.50),
    rgb(0.72, 0.51, 0.38),
    rgb(0.56, 0.37, 0.27),
    rgb(0.39, 0.25, 0.19),
)
_DARK_HAIR = (rgb(0.09, 0.08, 0.08), rgb(0.14, 0.10, 0.09), rgb(0.22, 0.14, 0.10))
_FAIR_HAIR = (
    rgb(0.31, 0.19, 0.12),
    rgb(0.42, 0.27, 0.16),
    rgb(0.58, 0.41, 0.24),
    rgb(0.74, 0.58, 0.37),
    rgb(0.50, 0.22, 0.11),
)
_DARK_IRIS = (rgb(0.20, 0.11, 0.07), rgb(0.29, 0.17, 0.09), rgb(0.36, 0.23, 0.12))
_FAIR_IRIS = (rgb(0.33, 0.49, 0.64), rgb(0.36, 0.47, 0.34), rgb(0.46, 0.37, 0.19), rgb(0.45, 0.54, 0.58))
_SCENES: tuple[tuple[SceneKind, Colour, float], ...] = (  # and the colour that it leans to, by a share
    ("studio", rgb(0.62, 0.63, 0.66), 0.5),
    ("lights", rgb(0.45, 0.40, 0.38), 0.3),
    ("room", rgb(0.70, 0.64, 0.56), 0.5),
    ("garden", rgb(0.55, 0.66, 0.42), 0.6),
)
_GLASSES: tuple[Glasses, ...] = ("round", "square", "thin")
_NECKLINES: tuple[Neckline, ...] = ("crew", "v", "shirt", "high")
_METAL = (rgb(0.07, 0.07, 0.08), rgb(0.30, 0.17, 0.10), rgb(0.55, 0.45, 0.28), rgb(0.40, 0.42, 0.45))
_LIPSTICK = (rgb(0.70, 0.16, 0.20), rgb(0.78, 0.34, 0.38), rgb(0.58, 0.20, 0.28), rgb(0.80, 0.36, 0.28))


def draw_traits(rng: np.random.Generator) -> Traits:
    """Draw a person; every share and length depends on `rng` only."""
    person = _draw_person(rng)
    extras = _draw_extras(rng, person)
    return Traits(
        person=person,
        frame=_draw_frame(rng),
        colours=_draw_colours(rng, person),
        light=_draw_light(rng),
        scene=_draw_scene(rng),
        skull=_draw_skull(rng, person),
        eyes=_draw_eyes(rng, person),
        brows=_draw_brows(rng, person),
        nose=_draw_nose(rng, person),
        mouth=_draw_mouth(rng, person),
        hair=_draw_hair(rng, person),
        extras=extras,
    )


def _normal(rng: np.random.Generator, mean: Scalar, spread: Scalar) -> float:
    """A normal number within two standard deviations: faces vary, but none is a monster."""
    return mean + spread * float(np.clip(rng.standard_normal(), -2, 2))


def _draw_person(rng: np.random.Generator) -> Person:
    masculine = float(np.clip(rng.choice([0.12, 0.88]) + 0.1 * rng.standard_normal(), 0, 1))
    makeup = float(rng.random() * (1 - masculine) * (rng.random() < 0.75))
    return Person(masculine, age=float(rng.random() ** 1.4), tone=float(rng.random()), makeup=makeup)


def _draw_frame(rng: np.random.Generator) -> Frame:
    yaw = _normal(rng, 0, 0.4)
    landmarks = TEMPLATE_512 + 0.5 - ORIGIN_512
    eye_gap, eye_y, mouth_gap, mouth_y = (_normal(rng, 0, s) for s in (1.6, 1.6, 3.0, 3.0))
    landmarks[0] += [-eye_gap, eye_y + _normal(rng, 0, 0.6)]
    landmarks[1] += [eye_gap, eye_y + _normal(rng, 0, 0.6)]
    landmarks[2] += [16 * yaw + _normal(rng, 0, 1.0), _normal(rng, 0, 3.5)]
    landmarks[3] += [-mouth_gap + 2 * yaw, mouth_y + _normal(rng, 0, 0.8)]
    landmarks[4] += [mouth_gap + 2 * yaw, mouth_y + _normal(rng, 0, 0.8)]
    angle, scale = np.deg2rad(_normal(rng, 0, 1.2)), 1 + _normal(rng, 0, 0.012)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = ORIGIN_512 + np.array([_normal(rng, 0, 1.5), _normal(rng, 0, 1.5)])
    return Frame(tuple((float(x), float(y)) for x, y in landmarks), np.column_stack([turn, shift]), yaw)


def _draw_colours(rng: np.random.Generator, person: Person) -> Colours:
    at = person.tone * (len(_SKIN) - 1)
    low = min(int(at), len(_SKIN) - 2)
    skin = mix(_SKIN[low], _SKIN[low + 1], at - low) * rgb(1, _normal(rng, 1, 0.015), _normal(rng, 1, 0.025))
    fair = person.tone < 0.5 and rng.random() < 0.75
    shades = _FAIR_HAIR if fair else _DARK_HAIR
    hair = mix(shades[rng.integers(len(shades))], shades[rng.integers(len(shades))], 0.4 * rng.random())
    grey = np.clip(2.2 * (person.age - 0.55) + _normal(rng, 0, 0.25), 0, 1) * (person.age > 0.45)
    hair = mix(hair, rgb(0.72, 0.71, 0.70), 0.85 * float(grey))
    irises = _FAIR_IRIS if fair and rng.random() < 0.8 else _DARK_IRIS
    iris = mix(irises[rng.integers(len(irises))], irises[rng.integers(len(irises))], 0.4 * rng.random())
    lips = mix(skin * rgb(0.90, 0.62, 0.62), rgb(0.72, 0.36, 0.36), 0.2 + 0.2 * rng.random())
    lips = mix(lips, _LIPSTICK[rng.integers(len(_LIPSTICK))], 0.75 * person.makeup)
    frame, jewel = _METAL[rng.integers(4)], _METAL[rng.integers(2, 4)]
    cloth, scarf = _hue(rng, 0.5, 0.15, 0.75), _hue(rng, 0.6, 0.25, 0.9)
    return Colours(skin, hair, iris, lips, cloth, frame, scarf, mix(jewel, rgb(1, 1, 1), 0.4))


def _hue(rng: np.random.Generator, saturation: float, dark: float, bright: float) -> Colour:
    """A colour of any hue, muted as in clothes and rooms."""
    hue, saturation = rng.random(), saturation * rng.random()
    value = dark + (bright - dark) * rng.random()
    wheel = 0.5 + 0.5 * np.cos(2 * np.pi * (hue - np.array([0, 1 / 3, 2 / 3])))
    return (value * (1 - saturation * (1 - wheel))).astype(np.float32)


def _draw_light(rng: np.random.Generator) -> Light:
    side, up = rng.uniform(-0.8, 0.8), rng.uniform(0.25, 0.75)
    length = float(np.sqrt(side**2 + up**2 + 0.85**2))
    return Light((side / length, -up / length, 0.85 / length), rng.uniform(0.18, 0.42), rng.uniform(-1, 1))


def _draw_scene(rng: np.random.Generator) -> Scene:
    kind, tone, share = _SCENES[rng.integers(len(_SCENES))]
    neckline = _NECKLINES[rng.integers(len(_NECKLINES))]
    tone = tone * np.float32(rng.uniform(0.35, 1.3))
    near = mix(_hue(rng, 0.5, 0.3, 0.95), tone, share)
    far = mix(near, mix(_hue(rng, 0.5, 0.12, 0.6), tone * np.float32(0.6), share), 0.75)
    return Scene(kind, near, far, _hue(rng, 0.6, 0.4, 1.0), neckline)


def _draw_skull(rng: np.random.Generator, person: Person) -> Skull:
    return Skull(
        cheek=_normal(rng, 131 + 5 * person.masculine, 4),
        jaw=_normal(rng, 88 + 18 * person.masculine, 5),
        chin=_normal(rng, 31 + 11 * person.masculine, 4),
        chin_y=_normal(rng, 168 + 7 * person.masculine, 5),
        crown_y=_normal(rng, -232, 8),
        neck=_normal(rng, 62 + 20 * person.masculine, 4),
    )


def _draw_eyes(rng: np.random.Generator, person: Person) -> Eyes:
    return Eyes(
        width=_normal(rng, 30.5 - 1.0 * person.masculine, 1.2),
        upper=_normal(rng, 9.6 - 1.2 * person.masculine - 0.8 * person.age, 0.9),
        lower=_normal(rng, 8.6, 0.7),
        tilt=_normal(rng, 2.5 - 1.5 * person.age, 1.6),
        lid=_normal(rng, 6.5 - 1.5 * person.masculine, 1.6),
        gaze=_normal(rng, 0, 1.2),
        iris=_normal(rng, 12.3, 0.35),
    )


def _draw_brows(rng: np.random.Generator, person: Person) -> Brows:
    return Brows(
        y=_normal(rng, 37 - 5 * person.masculine, 2.5),
        thick=_normal(rng, 7.5 + 4 * person.masculine, 1.4),
        arch=_normal(rng, 9 - 4 * person.masculine, 2),
        tilt=_normal(rng, 0, 1.5),
    )


def _draw_nose(rng: np.random.Generator, person: Person) -> Nose:
    return Nose(
        width=_normal(rng, 31 + 4 * person.masculine, 3),
        bridge=_normal(rng, 11 + 2 * person.masculine, 1.2),
        height=_normal(rng, 28.5 + 3 * person.masculine, 3),
    )


def _draw_mouth(rng: np.random.Generator, person: Person) -> Mouth:
    smile = max(1.5, _normal(rng, 8, 5))
    fullness = _normal(rng, 1.2, 0.15) - 0.25 * person.masculine - 0.2 * person.age
    gap = rng.uniform(9, 19) if smile > 7 and rng.random() < 0.6 else rng.uniform(0, 3) * (rng.random() < 0.2)
    stretched = 1 - 0.02 * gap
    return Mouth(
        upper=_normal(rng, 12.5, 1.5) * fullness * stretched,
        lower=_normal(rng, 17, 2) * fullness * stretched,
        smile=smile,
        gap=float(gap),
    )


def _draw_hair(rng: np.random.Generator, person: Person) -> Hair:
    styles = _MASCULINE_CUTS if person.masculine > 0.5 else _FEMININE_CUTS
    bearded = person.masculine > 0.5 and rng.random() < 0.4
    return Hair(
        style=styles[rng.integers(len(styles))],
        part=float(rng.choice([-1, 1]) * rng.uniform(10, 75)),
        volume=_normal(rng, 1, 0.2),
        recede=float(person.masculine * np.clip(person.age + _normal(rng, -0.1, 0.25), 0, 1)),
        wave=float(rng.random()),
        beard=float(bearded * rng.uniform(0.3, 1)),
        moustache=bool((bearded and rng.random() < 0.85) or (person.masculine > 0.5 and rng.random() < 0.07)),
        stubble=float(person.masculine**2 * rng.random() * 0.8),
    )


def _draw_extras(rng: np.random.Generator, person: Person) -> Extras:
    wears_glasses = rng.random() < 0.2 + 0.2 * person.age
    return Extras(
        glasses=_GLASSES[rng.integers(len(_GLASSES))] if wears_glasses else "none",
        freckles=float((rng.random() < 0.3) * rng.random() * (1 - 0.7 * person.tone)),
        wrinkles=float(np.clip(person.age * 1.25 - 0.2, 0, 1)),
        blush=float(rng.random() * (0.6 + 0.4 * person.makeup)),
        earrings=bool(rng.random() < 0.5 * (1 - person.masculine)),
    )
