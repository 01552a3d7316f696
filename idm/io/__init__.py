"""Files and the machine: images, photographs, videos, atomic writes, run folders, weights files."""
