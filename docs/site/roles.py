"""A griffe extension that turns roles in docstrings, such as :func:`~package.module.name`, into code."""

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):`([^`]+)`")


def without_roles(text: str) -> str:
    """Replace roles by Markdown code; ``~package.module.name`` becomes ``name``."""
    return ROLE.sub(lambda match: f"`{match[1].rpartition('.')[2] if match[1][0] == '~' else match[1]}`", text)


class Roles(griffe.Extension):
    """Replaces the roles in every docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = without_roles(obj.docstring.value)
