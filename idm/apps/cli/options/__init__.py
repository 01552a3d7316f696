"""The options of each command, as dataclasses beside the parsers that read them. Nothing heavy is imported."""
