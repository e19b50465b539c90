"""How the words of a command are read that starts a shell or Python: which of them is the script, code or file.

A word is as it stands in the command's text, None for one that only the shell knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mlflow_projects.project import programs

Words = Sequence[str | None]

SHELL = re.compile(r"(ba|rba|da|z|k|mk|a)?sh")
PYTHON = re.compile(r"(i?python|pypy)[\d.]*")


def name_of(word: str | None) -> str:
    """Return the name of the program that a word names, without its folder."""
    return (word or "").rstrip("/").rpartition("/")[2]


def script_index(words: Words) -> int | None:
    """Return which of the words after a shell's name is its script (``-c``); None if it has none."""
    index = argument_index(words)
    found = any(re.fullmatch(r"-\w*c\w*", word or "") for word in words[:index])
    return index if found and index < len(words) else None


def first_argument(words: Words) -> str | None:
    """Return the first of the words after a shell's name that is no option; None if none is, or it cannot be told."""
    if any(re.fullmatch(r"-\w*s\w*", option or "") for option in words[: argument_index(words)]):
        return None  # it reads its script from its input
    return next(iter(words[argument_index(words) :]), None)


def argument_index(words: Words) -> int:
    """Return which of the words after a shell's name is the first that is no option."""
    index = 0
    while index < len(words):
        word = words[index]
        if word is None or word in ("-", "--") or not re.match(r"[-+].", word):
            break
        index += 1 + (word in ("--rcfile", "--init-file") or bool(re.fullmatch(r"[-+]\w*[oO]\w*", word)))
    # "-" ends the options as "--" does, if a script follows.
    ends = ("--", "-") if any(re.fullmatch(r"-\w*c\w*", word or "") for word in words[:index]) else ("--",)
    return index + (index < len(words) and words[index] in ends)


def python_program(words: Words) -> tuple[str, int] | None:
    """Return what Python runs: ("c" for code, "m" for a module or "file", which of the words after its name it is).

    None if that cannot be told, or nothing is run.
    """
    index = 0
    while index < len(words):
        word = words[index]
        if word is None or word in ("-V", "--version", "-h", "--help", "-i"):
            return None
        if option := re.match(r"-[a-zA-Z]*?([cmWX])(.?)", word, re.DOTALL):
            if option[1] in "cm":
                found = index + (not option[2])
                return (option[1], found) if found < len(words) else None
            index += not option[2]  # the value of -W or -X is a word of its own
        elif word == "-" or not word.startswith("-"):
            return "file", index
        index += 1 + (word == "--check-hash-based-pycs")
    return None


def python_indexes(words: Words) -> Iterator[int]:
    """Yield which of the words after Python's name may be code."""
    program = python_program(words)
    if program is None:  # an option that only the shell knows
        for index, word in enumerate(words):
            if option := re.match(r"-[a-zA-Z]*c|--c\b", word or "-c"):
                yield index
                yield index + (option[0] == word)
    elif program[0] == "c":
        yield program[1]
    elif program[0] == "m" and re.sub(r"^-\w*m", "", words[program[1]] or "") in programs.RUN_WORDS:
        yield from range(program[1] + 1, len(words))
