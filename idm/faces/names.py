"""Choices about faces, by name: commands list them without importing what they choose. Does not import numpy."""

from typing import Literal

DetectorName = Literal["auto", "retinaface", "retinaface_resnet50", "builtin"]
"""See :func:`idm.faces.detector.load.choose_detector`."""

FaceGroup = Literal["all", "largest"]
"""Which of the detected faces, see :func:`idm.faces.detect.choose_faces`."""

Turn = Literal["auto", 0, 90, 180, 270]
"""Degrees clockwise, see :func:`idm.faces.turns.detect_faces`."""

ColorFix = Literal["none", "mean", "wavelet"]
"""See :func:`idm.faces.colour.match_colour`."""
