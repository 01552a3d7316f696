"""Face detectors: RetinaFace, and the built-in one, whose weights are part of the package."""
