"""Build the objects that the sections of a configuration describe."""
