"""How a secret may be spelled where it is shown: as it is, percent-encoded, escaped, or in base64.

A password goes into URLs, headers, JSON and shell commands, and comes back from there in messages and outputs.
The runner of training jobs takes this file along, so it needs no more than Python 3.8.
"""

from __future__ import annotations

import base64
import functools
import json
import re
import shlex
from typing import Iterable, Pattern  # noqa: UP035
from urllib.parse import quote, quote_plus

# What JSON, Python and HTML call a character besides its number.
_NAMES = {
    "\n": ("n", ""), "\r": ("r", ""), "\t": ("t", ""), "\b": ("b", ""), "\f": ("f", ""), "\v": ("v", ""),
    "\a": ("a", ""), "\0": ("0", ""),
    "&": ("", "amp"), "<": ("", "lt"), ">": ("", "gt"), '"': ("", "quot"), "'": ("", "apos"),
}  # fmt: skip
# Escaped once more in each text that quotes another, which doubles them. Any number would take time by the square.
_BACKSLASHES = r"\\{1,16}"
_ESCAPE = re.compile(r"\\|%[0-9A-Fa-f]{2}|&[#a-z]")  # all that _any_way makes of a character begins so
_LEAST_LINE = 8  # characters of a secret's line that is one by itself
_LEAST_IN_BASE64 = 5  # bytes; less would be found in every other text


def spellings(secret: str) -> list[str]:
    """Return a secret and its most usual spellings, for a masker that looks for texts as they are."""
    in_json = [json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]]
    escaped = [*in_json, repr(secret)[1:-1], shlex.quote(secret).strip("'")]
    content = secret.encode("utf-8", "surrogatepass")
    encoded = [quote(content), quote(content, safe=""), quote_plus(content)]
    return list(dict.fromkeys([secret, *encoded, *escaped, *_in_base64(secret)]))


def lines_of(secret: str) -> list[str]:
    """Return a secret, and its lines if it has many: an output is looked at line by line."""
    lines = [line.strip() for line in secret.splitlines()]
    found = [line for line in lines if len(line) >= _LEAST_LINE and not line.startswith("-----")]
    return [secret, *(found if len(lines) > 1 else [])]


def hidden(text: str, secrets: Iterable[str]) -> str:
    """Return a text with stars in the place of secrets, however they are spelled.

    :param secrets: the longest ones first, as one may be a part of another
    """
    has_escapes = _ESCAPE.search(text) is not None
    for secret in secrets:
        # Nearly every line of an output has none: to look for plain texts takes a hundredth of the pattern's time.
        if has_escapes or any(piece in text for piece in _pieces(secret)):
            text = _pattern(secret).sub("***", text)
    return text


@functools.lru_cache(maxsize=1024)
def _pieces(secret: str) -> list[str]:
    """Return texts of which one stands wherever the secret does, or its base64, with no character escaped."""
    # A space may be a "+" there, and a quote in a shell's quotes has other quotes around it.
    return [max(re.split("[ ']", found), key=len) for found in [secret, *_in_base64(secret)]]


@functools.lru_cache(maxsize=1024)
def _pattern(secret: str) -> Pattern[str]:
    """Return what finds a secret in any mixture of spellings: each character may be written in its own way."""
    return re.compile("|".join("".join(map(_any_way, found)) for found in [secret, *_in_base64(secret)]))


@functools.lru_cache(maxsize=1024)
def _any_way(character: str) -> str:
    if character.isascii() and character.isalnum():
        return character
    code = ord(character)
    short, name = _NAMES.get(character, ("", ""))
    units = character.encode("utf-16-be", "surrogatepass").hex()
    ways = [
        "".join(f"%(?:25)*{_any_case(f'{byte:02x}')}" for byte in character.encode("utf-8", "surrogatepass")),
        "".join(rf"{_BACKSLASHES}u{_any_case(units[at : at + 4])}" for at in range(0, len(units), 4)),
        rf"{_BACKSLASHES}(?:{re.escape(character)}|U{_any_case(f'{code:08x}')}" + (f"|{short})" if short else ")"),
        rf"&(?:#0*{code}|#[xX]0*{_any_case(f'{code:x}')}" + (f"|{name});" if name else ");"),
    ]
    if code < 256:
        ways.append(rf"{_BACKSLASHES}x{_any_case(f'{code:02x}')}")
    if character == " ":
        ways.append(r"\+")
    if character == "'":  # as a shell has it within single quotes
        ways += [r"'\\''", "'\"'\"'"]
    ways.append(re.escape(character))  # last: a backslash is also the beginning of an escaped one
    return f"(?:{'|'.join(ways)})"


def _any_case(digits: str) -> str:
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in digits)


def _in_base64(secret: str) -> list[str]:
    """Return what of a secret's base64 does not depend on the text around it, for each of its three places there."""
    content, found = secret.encode("utf-8", "surrogatepass"), []
    for before in range(3 if len(content) >= _LEAST_IN_BASE64 else 0):
        text = base64.b64encode(bytes(before) + content).decode()
        whole = text[-(-before * 8 // 6) : (before + len(content)) * 8 // 6]
        found += [whole, whole.replace("+", "-").replace("/", "_")]
    return list(dict.fromkeys(found))
