"""An extension of griffe: roles in docstrings, such as :func:`~package.module.name`, become code."""

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):`([^`]+)`")


def without_roles(text: str) -> str:
    """A docstring in Markdown: ``~package.module.name`` is shown as ``name``."""
    return ROLE.sub(lambda match: f"`{match[1].rpartition('.')[2] if match[1][0] == '~' else match[1]}`", text)


class Roles(griffe.Extension):
    """Replaces the roles of every docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = without_roles(obj.docstring.value)
