"""Detection, alignment, recognition and pasting of faces."""
