"""Photographs and videos: detect, restore and paste faces, and track progress per file."""
