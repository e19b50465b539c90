"""Python source as a formatter leaves it: a call or a display in one line if it fits, else an argument a line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

WIDTH = 88


@dataclass(frozen=True)
class Call:
    """``name(argument, key=value)``."""

    name: str
    arguments: Sequence[tuple[str, Any]]  # "" for one without a name


@dataclass(frozen=True)
class Name:
    """Source that stands as it is."""

    source: str


def text(value: str) -> str:
    """Return a literal in double quotes, or in single ones where that saves escapes."""
    quote = "'" if value.count('"') > value.count("'") else '"'
    body = value.replace("\\", "\\\\").replace(quote, "\\" + quote)
    body = body.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    body = "".join(letter if letter.isprintable() else _escaped(letter) for letter in body)
    return f"{quote}{body}{quote}"


def _escaped(letter: str) -> str:
    code = ord(letter)
    return f"\\x{code:02x}" if code < 2**8 else f"\\u{code:04x}" if code < 2**16 else f"\\U{code:08x}"


def source(value: Any, indent: int = 0, before: int = 0, after: int = 0) -> str:
    """Return the source of a value.

    :param indent: spaces before the line that it begins in
    :param before: characters in that line before it
    :param after: characters that follow it in its last line
    """
    flat = _flat(value)
    if "\n" not in flat and indent + before + len(flat) + after <= WIDTH:
        return flat
    opening, closing, items = _parts(value)
    if not items:
        return flat
    inner = indent + 4
    lines = []
    for head, item in items:
        lines.append(" " * inner + head + source(item, inner, len(head), 1) + ",")
    return "\n".join([opening, *lines, " " * indent + closing])


def _parts(value: Any) -> tuple[str, str, list[tuple[str, Any]]]:
    if isinstance(value, Call):
        return f"{value.name}(", ")", [(f"{name}=" if name else "", one) for name, one in value.arguments]
    if isinstance(value, dict):
        return "{", "}", [(f"{_flat(key)}: ", one) for key, one in value.items()]
    if isinstance(value, list | tuple):
        return "[", "]", [("", one) for one in value]
    return "", "", []


def _flat(value: Any) -> str:
    if isinstance(value, Name):
        return value.source
    if isinstance(value, str):
        return text(value)
    opening, closing, items = _parts(value)
    if not opening:
        return repr(value)
    return opening + ", ".join(head + _flat(item) for head, item in items) + closing


def param(name: str) -> str:
    """Return what a template calls a param of the DAG."""
    return f"params.{name}" if name.isidentifier() else f"params[{name!r}]"


def title(name: str) -> str:
    """Return an option's name as words."""
    words = re.sub(r"[_.\-]+", " ", name).strip()
    return words[:1].upper() + words[1:]


def identifier(name: str, taken: Sequence[str] = (), default: str = "step") -> str:
    """Return a name for a variable or a task like another one, of its own.

    :param taken: names that it may not have
    """
    import keyword

    made = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower() or default
    if made[0].isdigit() or keyword.iskeyword(made):
        made = f"{default}_{made}"
    found, number = made, 2
    while found in taken:
        found, number = f"{made}_{number}", number + 1
    return found
