"""A griffe extension for the site's reference: what docstrings have of reStructuredText, as Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":[a-z]+:`~?(?:[\w.]*\.)?(\w+)`")
_CODE_FOLLOWS = re.compile(r"::[ \t]*$", re.MULTILINE)


class ReferenceText(griffe.Extension):
    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Turn :class:`Name` into `Name`, and the :: before an indented example into a colon, or nothing."""
        if obj.docstring:
            text = _ROLE.sub(r"`\1`", obj.docstring.value)
            obj.docstring.value = re.sub(r"^\s*:$", "", _CODE_FOLLOWS.sub(":", text), flags=re.MULTILINE)
