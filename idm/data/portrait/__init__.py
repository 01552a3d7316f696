"""How a synthetic face is painted: who it is (`person`), on what (`canvas`), and its layers from back to
front (`scene`, `head`, `features`, `hair`). `idm.data.synthetic` puts them together.
"""
