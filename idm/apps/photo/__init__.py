"""Photographs and clips: their faces are found, restored and put back, and files are kept account of."""
