"""Which programs run some of their words, or their input, as code: what a value there would become.

A command's words come as they are in its text, None for one that only the shell knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

Words = Sequence[str | None]

SHELL = re.compile(r"(ba|rba|da|z|k|mk|a)?sh")
PYTHON = re.compile(r"(python|pypy)[\d.]*")
# Modules of Python that run the words after their name.
_RUN_WORDS = ("timeit", "pdb")
# They run the program that their words name, after options, settings and numbers of their own.
_WRAPPERS = frozenset(
    (
        "builtin", "command", "exec", "env", "time", "timeout", "nohup", "nice", "ionice", "stdbuf", "xargs", "sudo",
        "setsid", "busybox",
    )
)  # fmt: skip
# They give their words to a shell, here or elsewhere, or take them for names, each in a way of its own.
READ_WORDS = frozenset(
    (
        "eval", "ssh", "su", "runuser", "script", "watch", "parallel", "at", "batch", "tmux", "screen", "let",
        "declare", "typeset", "read", "unset", "alias", "bind", "mapfile", "readarray", "complete", "compgen",
    )
)  # fmt: skip
_READ_AFTER_V = ("test", "printf")
# They give what follows some of their options to a shell.
_RUN_OPTIONS = {
    "tar": r"-[a-zA-Z]*I|--(use-compress-program|to-command|checkpoint-action|(info|new-volume)-script|rsh-command)",
    "git": r"-[cux]|--(exec|upload-pack|receive-pack)",
    "flock": r"-c|--command",
    "env": r"-[a-zA-Z0]*S|--split-string",
    "split": r"--filter",
    "sort": r"--compress-program",
    "rsync": r"-[a-zA-Z]*e|--rsh",
}
_SETTING = re.compile(r"[\w.]+[:+?!]*=", re.DOTALL)
_SCRIPT_FILE = re.compile(r".*\.(pl|pm|rb|[cm]?js|ts|[rR]|jl|lua|php)", re.DOTALL)


@dataclass(frozen=True)
class _Interpreter:
    """How a program is told its code.

    :param code: letters of the options after which code follows
    :param file: letters of the options after which the name of a file with code follows
    :param other: letters of the options after which anything else follows
    :param takes_first: whether its first word that is no option is code, unless an option gave it
    """

    code: str
    file: str = ""
    other: str = ""
    takes_first: bool = False


_INTERPRETERS = {
    re.compile(r"(perl|ruby|node|nodejs|lua|luajit|julia|R|Rscript)[\d.]*"): _Interpreter("eEp"),
    re.compile(r"php[\d.]*"): _Interpreter("rBRE"),
    re.compile(r"[gmn]?awk"): _Interpreter("e", file="fE", other="Fvil", takes_first=True),
    re.compile(r"g?sed"): _Interpreter("e", file="f", other="l", takes_first=True),
}


def name_of(word: str | None) -> str:
    """Return the name of the program that a word names, without its folder."""
    return PurePath(word or "").name


def program_index(words: Words) -> int:
    """Return which word names the program, behind those that run another one."""
    index = 0
    while index < len(words) and name_of(words[index]) in _WRAPPERS:
        index += 1
        while index < len(words) and re.match(r"[-+]|\w+=|[\d.]+[smhd]?$", words[index] or ""):
            index += 1
    return index


def script_index(words: Words) -> int | None:
    """Return which of the words after a shell's name is its script (``-c``); None if it has none."""
    index = _argument_index(words)
    found = any(re.fullmatch(r"-\w*c\w*", word or "") for word in words[:index])
    return index if found and index < len(words) else None


def first_argument(words: Words) -> str | None:
    """Return the first of the words after a shell's name that is no option; None if none is, or it cannot be told."""
    return next(iter(words[_argument_index(words) :]), None)


def _argument_index(words: Words) -> int:
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
        if word is None or word in ("-V", "--version", "-h", "--help"):
            return None
        if option := re.match(r"-[a-zA-Z]*?([cmWX])(.?)", word, re.DOTALL):
            if option[1] in "cm":
                return option[1], index + (not option[2])
            index += not option[2]  # the value of -W or -X is a word of its own
        elif word == "-" or not word.startswith("-"):
            return "file", index
        index += 1 + (word == "--check-hash-based-pycs")
    return None


def is_script(words: Words, at: int) -> bool:
    """Tell whether a word of a command is a shell's script: after ``-c``, ``eval`` or ``trap``."""
    first = program_index(words[:at])
    name = name_of(words[first]) if first < at else ""
    if at == first + 1 and (name == "trap" or (name == "eval" and len(words) == at + 1)):
        return True
    return any(
        SHELL.fullmatch(name_of(word)) and script_index(words[start + 1 :]) == at - start - 1
        for start, word in enumerate(words[:at])
    )


def may_be_code(words: Words, at: int) -> bool:
    """Tell whether a word of a command may hold code that one of the programs among the words before it runs."""
    return any(
        at - start - 1 in _code_indexes(name_of(word), words[start + 1 :]) for start, word in enumerate(words[:at])
    )


def reads_words(words: Words, at: int) -> bool:
    """Tell whether a command's program gives one of its words to a shell, or takes it for a name."""
    first = program_index(words[:at])
    name = name_of(words[first]) if first < at else ""
    return name in (*READ_WORDS, "trap") or (name in _READ_AFTER_V and "-v" in words[:at])


def runs_file(words: Words) -> bool:
    """Tell whether a command may run what is in a file that it is given."""
    first = program_index(words)
    name = name_of(words[first]) if first < len(words) else ""
    return name in ("source", ".") or _is_interpreter(name)


def runs_input(words: Words) -> bool:
    """Tell whether a command may run what it reads from its input."""
    if "/dev/stdin" in words or ("-f" in words and "-" in words):
        return True
    for position, word in enumerate(words):
        name, rest = name_of(word), words[position + 1 :]
        if SHELL.fullmatch(name):
            index = _argument_index(rest)
            if script_index(rest) is None and (index >= len(rest) or rest[index] in (None, "-")):
                return True
            if any(re.fullmatch(r"-\w*s\w*", option or "") for option in rest[:index]):
                return True
        elif PYTHON.fullmatch(name):
            program = python_program(rest)
            if program is None or (program[0] == "file" and rest[program[1]] == "-"):
                return True
        elif name == "xargs":
            if any(SHELL.fullmatch(name_of(other)) for other in rest):
                return True
        elif _is_interpreter(name) and all(other is None or other.startswith("-") for other in rest):
            return True
    return False


def _is_interpreter(name: str) -> bool:
    return any(pattern.fullmatch(name) for pattern in (SHELL, PYTHON, *_INTERPRETERS))


def _code_indexes(name: str, words: Words) -> Iterator[int]:
    """Yield which of the words after a program's name may be code."""
    if options := _RUN_OPTIONS.get(name):
        for index, word in enumerate(words):
            if found := re.match(options, word or ""):
                yield index
                yield index + (found.end() == len(word or ""))
    elif name in ("make", "gmake"):
        yield from (index for index, word in enumerate(words) if word is None or _SETTING.match(word))
    elif PYTHON.fullmatch(name):
        yield from _python_indexes(words)
    else:
        for pattern, interpreter in _INTERPRETERS.items():
            if pattern.fullmatch(name):
                yield from _interpreter_indexes(interpreter, words)


def _python_indexes(words: Words) -> Iterator[int]:
    program = python_program(words)
    if program is None:  # an option that only the shell knows
        for index, word in enumerate(words):
            if option := re.match(r"-[a-zA-Z]*c", word or "-c"):
                yield index
                yield index + (option[0] == word)
    elif program[0] == "c":
        yield program[1]
    elif program[0] == "m" and re.sub(r"^-\w*m", "", words[program[1]] or "") in _RUN_WORDS:
        yield from range(program[1] + 1, len(words))


def _interpreter_indexes(interpreter: _Interpreter, words: Words) -> Iterator[int]:
    code = re.compile(rf"-(?!-)[\w.]*[{interpreter.code}]|--(eval|print|expression|source)\b")
    others = re.compile(rf"-[\w.]*?[{interpreter.file + interpreter.other or '-'}]")
    is_given, index = not interpreter.takes_first, 0
    while index < len(words):
        word = words[index]
        if word is None:
            yield index
        elif found := code.match(word):
            is_given = True
            yield index
            if found.end() == len(word):
                index += 1
                yield index
        elif found := others.match(word):
            is_given = is_given or found[0][-1] in interpreter.file
            index += found.end() == len(word)
        elif not word.startswith("-") or word == "-":
            if not is_given:
                yield index
            if not interpreter.takes_first and _SCRIPT_FILE.fullmatch(word):
                return  # what follows are its arguments
            is_given = True
        index += 1
