"""Which programs run some of their words, or their input, as code: what a value there would become.

A command's words come as they are in its text, None for one that only the shell knows. A program that is not known
here may run any text that is more than a word, and all of its input.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Container, Iterator, Sequence

from mlflow_projects.project import code_options, programs
from mlflow_projects.project.shell_and_python import (
    PYTHON,
    SHELL,
    Words,
    argument_index,
    first_argument,
    name_of,
    python_indexes,
    python_program,
    script_index,
)

_SAME_SHELL = re.compile(r"(ba|rba|da|a)?sh")  # the others read numbers of "[" and printf as code
# To a sh that is not bash, "[[ a || $A ]]" is two commands, and "export A=$B" (dash 0.5.10) may set more variables.
_ONLY_BASH = re.compile(r"\[\[\s|\b(export|local|readonly)\s[^;&|\n]*=[^\s;&|\"']*[$`]")
# They give their words to a shell, here or elsewhere, or take them for names, each in a way of its own.
READ_WORDS = frozenset(
    (
        "eval", "ssh", "su", "runuser", "script", "watch", "parallel", "at", "batch", "tmux", "screen", "let",
        "declare", "typeset", "read", "unset", "alias", "bind", "mapfile", "readarray", "complete", "compgen",
        "sbatch", "qsub", "bsub", "crontab", "ray", "autossh", "pdsh", "qrsh", "hyperfine", "csh", "tcsh", "fish",
        "sg", "pwsh", "powershell", "scp", "sftp", "rsh", "clush", "dsh", "pssh", "entr", "rsync",
        "dvc", "honcho", "just", "rake", "inv", "invoke", "npm", "npx", "pnpm", "yarn", "snakemake", "nextflow",
        "task", "dask-ssh", "fab", "packer", "terraform", "watchexec", "pixi", "uwsgi", "cookiecutter", "socat",
        "sky", "nodemon", "concurrently",
    )
)  # fmt: skip
# They take what they read as data, though their words are names.
READ = ("read", "mapfile", "readarray")
_MAKE = ("make", "gmake")
# Programs that give their words to a shell, or write them into a script, if one of these is among them.
_READ_BEHIND = {
    "deepspeed": r"-H|--(hostfile|launcher|force_multi|num_nodes|include)",  # which then goes through ssh
    **dict.fromkeys(("singularity", "apptainer"), r"run\Z|--env\b"),  # their containers evaluate them
    **dict.fromkeys(("conda", "mamba", "micromamba"), r"create\Z"),
    "uv": r"venv\Z",
}
_EXEC = ("-exec", "-execdir", "-ok", "-okdir")  # of find
_INPUT = re.compile(r"(.*=)?(/dev/(stdin|fd/\d+)|/proc/\w+/fd/\d+)|(-f|--[\w-]+=)-")


def program_index(words: Words) -> int:
    """Return which word names the program, behind those that run another one."""
    index, values = 0, _launchers_values(words)
    while index < len(words) and (
        name_of(words[index]) in programs.WRAPPERS
        or (name_of(words[index]) in programs.LAUNCHERS and list(words[index + 1 : index + 2]) == ["run"])
    ):
        index += 1 + (name_of(words[index]) in programs.LAUNCHERS)
        while index < len(words) and (index in values or re.match(r"[-+]|\w+=|[\d.]+[smhd]?$", words[index] or "")):
            index += 1
    if index == len(words):
        return max(index - 1, 0)
    # What stands before a program that is known may be the value of a wrapper's option.
    found = next((later for later in range(index, len(words)) if index and _is_known(words[later])), index)
    ran = python_program(words[found + 1 :]) if PYTHON.fullmatch(name_of(words[found])) else None
    return found + 1 + ran[1] if ran and ran[0] == "m" and words[found + 1 + ran[1]] in programs.MODULES else found


def _launchers_values(words: Words) -> set[int]:
    """Return which words are values of options of ``conda run`` and its like, which name no program."""
    found = set()
    for start, word in enumerate(words[:-1]):
        options, at = programs.LAUNCHERS_VALUES.get(name_of(word), ()), start + 2
        while options and words[start + 1] == "run" and at < len(words) and (words[at] or "").startswith("-"):
            if words[at] in options:
                found.add(at + 1)
            at += 1 + (words[at] in options)
    return found


def program_of(words: Words) -> str:
    """Return the name of the program that a command runs in the end; "" if only the shell knows it."""
    first = program_index(words)
    return name_of(words[first]) if first < len(words) else ""


def _is_known(word: str | None) -> bool:
    name = name_of(word)
    is_path = bool(re.fullmatch(r"[\w.?-]*(/[\w.-]+)+", word or ""))
    return (
        is_path
        or name in (*READ_WORDS, *programs.TAKE_DATA, *programs.START, *_MAKE, *code_options.RUN_OPTIONS)
        or is_interpreter(name)
    )


def _positions(words: Words) -> Sequence[int]:
    """Return which of a command's words may name a program that gets the words behind it."""
    first = program_index(words)
    if words and name_of(words[first]) == "find":
        begun = next((at for at, word in enumerate(words) if word in _EXEC), len(words))
        return [first, *range(begun + 1, len(words))]
    known = takes_data(words) and program_of(words) not in programs.START
    values = _launchers_values(words)
    return [at for at in range(first + 1 if known else len(words)) if at not in values]  # with what runs it


def is_script(words: Words, at: int) -> bool:
    """Tell whether a word of a command is a shell's script: after ``-c``, ``eval`` or ``trap``."""
    first = program_index(words[:at])
    name = name_of(words[first]) if first < at else ""
    if at == first + 1 and (name == "trap" or (name == "eval" and len(words) == at + 1)):
        return True
    return any(
        _reads_as_bash(name_of(words[start]), words[at] or "") and script_index(words[start + 1 :]) == at - start - 1
        for start in _positions(words)
    )


def _reads_as_bash(shell: str, script: str) -> bool:
    return bool(_SAME_SHELL.fullmatch(shell)) and (shell.endswith("bash") or not _ONLY_BASH.search(script))


def may_be_code(words: Words, at: int) -> bool:
    """Tell whether a word of a command may hold code that one of its programs runs."""
    if may_be_made(words):
        return True
    if program_of(words) == "find" and any("{}" in (word or "") and word != "{}" for word in words):
        return True  # the names that it finds come into a script
    return any(at in _code_of(tuple(words), start) for start in _positions(words))


def interpreters_of(words: Words, at: int) -> list[str]:
    """Return the names of the programs, Python among them, that may run a word of their command as code."""
    starts = [start for start in _positions(words) if start < at and at in _code_of(tuple(words), start)]
    names = {name_of(words[start]) for start in starts}
    return sorted(name for name in names if PYTHON.fullmatch(name) or code_options.interpreter(name))


def starts_nothing(words: Words, at: int) -> bool:
    """Tell whether a word is code of awk or jq that starts no shell, so that its ``$`` is a name of its own."""
    name, code = program_of(words), words[at] or "|"
    return name == "jq" or (bool(re.fullmatch("[gm]?awk", name)) and not code_options.starts(name, code))


def starts_commands(words: Words) -> bool:
    """Tell whether the code among a command's words has its other words, or its input, run."""
    return any(
        code_options.starts(name_of(words[start]), words[at] or "")
        for start in _positions(words)
        if PYTHON.fullmatch(name_of(words[start])) or code_options.interpreter(name_of(words[start]))
        for at in _code_of(tuple(words), start)
        if at < len(words)
    )


def hands_on_code(words: Words, at: int) -> bool:
    """Tell whether a word is code of a program that stands among the words of another (``./enter.sh bash -c …``)."""
    return any(at in _code_of(tuple(words), start) for start in range(at))


def may_be_made(words: Words) -> bool:
    """Tell whether a command may be ``make``, whose targets and settings alike come into its recipes.

    Or a loop of perl over files, which runs the name ``x|``.
    """
    names = [(name_of(words[start]), start) for start in _positions(words)]
    return any(name in _MAKE or code_options.is_loop(name, words, start) for name, start in names)


def reads_words(words: Words, at: int) -> bool:
    """Tell whether a command's program gives one of its words to a shell, or takes it for a name."""
    first = program_index(words[:at])
    if first == at:
        return False
    if starts_commands(words) and not may_be_code(words, at):
        return True
    names = [name_of(words[start]) for start in _positions(words) if start < at]
    behind = [_READ_BEHIND[name] for name in names if name in _READ_BEHIND]
    if any(re.match(pattern, word or "") for pattern in behind for word in words[:at]):
        return True
    if at > first and program_of(words) in ("venv", "virtualenv"):  # the first lines of its programs name the folder
        return True
    if "horovodrun" in names and not any(
        re.fullmatch(r"(.*/)?python[\d.]*|.*\.py", word or "") for word in words[:at]
    ):
        return True  # hosts come into a command of ssh
    return bool({*READ_WORDS, "trap"} & set(names))


def names_program(words: Words, at: int) -> bool:
    """Tell whether a word is the name under which a program is started, its ``$0``: ``exec -a name``."""
    has_name = any(re.match(r"-(?!-)\w*a|--argv0", word or "") for word in words[max(at - 1, 0) : at + 1])
    return has_name and not {"exec", "env"}.isdisjoint(map(name_of, words[:at]))


def runs_expressions(words: Words) -> bool:
    """Tell whether a command's program runs code among its words, by options that are hard to tell from others."""
    name = program_of(words)
    is_module = bool(PYTHON.fullmatch(name)) and not set(programs.RUN_WORDS).isdisjoint(word or "" for word in words)
    return code_options.interpreter(name) is not None or is_module


def reads_options(words: Words) -> bool:
    """Tell whether a command's program runs what some of its options say."""
    return program_of(words) in code_options.RUN_OPTIONS


def starts_program(words: Words, at: int) -> bool:
    """Tell whether the words that a value is split into may be a program for a command's own program to run."""
    return program_of(words) in programs.START and not any(re.fullmatch(r".*\.py", word or "") for word in words[:at])


def opens_program(words: Words, at: int) -> bool:
    """Tell whether a program may read a word of its command as an option that has code run."""
    if reads_options(words):
        return True
    for start in _positions(words):
        name, between = name_of(words[start]), words[start + 1 : at]
        if start >= at:
            continue
        if PYTHON.fullmatch(name):
            program = python_program([*between, "x"])
            if program is None or program[1] == len(between):
                return True
        elif interpreter := code_options.interpreter(name):
            if interpreter.takes_first or not any(code_options.SCRIPT_FILE.fullmatch(word or "") for word in between):
                return True
        elif SHELL.fullmatch(name) and argument_index([*between, "x"]) == len(between):
            return True
    return False


def ends_option(words: Words, at: int, before: str) -> bool:
    """Tell whether a value in a word ends the name of an option that may have code run (``tar -c{x}``).

    :param before: what stands before the value in its word
    """
    if not re.fullmatch(r"-[\w:-]*", before):
        return False
    names = [name_of(words[start]) for start in _positions(words) if start < at]
    for name in names:
        letters = "WX" if PYTHON.fullmatch(name) else code_options.VALUE_OPTIONS.get(name)
        if letters and re.match(rf"-(?!-)[a-zA-Z]*[{letters}]", before):
            return False
    has_options = any(name in code_options.RUN_OPTIONS or name in code_options.CODE_OPTIONS for name in names)
    return has_options or opens_program(words, at)


def commands_pattern(words: Words, before: str) -> str | None:
    """Return a pattern of the values that a command's program runs where it expects a name; None if it runs none.

    :param before: what stands before the value in its word
    """
    is_begin = re.fullmatch(r"([\w-]+:)?", before)  # "png:" of ImageMagick
    return code_options.COMMAND_VALUES.get(program_of(words)) if is_begin else None


def takes_data(words: Words, functions: Container[str] = ()) -> bool:
    """Tell whether a command's program takes its words, but for those of :func:`may_be_code`, and its input as data.

    :param functions: of the script; what becomes of their arguments is told by the variables
    """
    first = program_index(words)
    word, rest = (words[first], words[first + 1 :]) if first < len(words) else (None, ())
    name = name_of(word)
    if name == "aws" and not {"s3", "s3api"} & set(rest):  # "aws ssm send-command" is a shell elsewhere
        return False
    if word is None or name in functions or name in (*programs.TAKE_DATA, *programs.START):
        return word is not None
    if SHELL.fullmatch(name):
        return script_index(rest) is not None or first_argument(rest) not in (None, "-")
    if PYTHON.fullmatch(name):
        program = python_program(rest)
        return program is not None and rest[program[1]] != "-"
    if interpreter := code_options.interpreter(name):
        # Its code, or a file of it, is among the words; else it reads it.
        code = rf"-(?!-)[\w.]*[{interpreter.code}{interpreter.file}]|--(eval|print|expression|file|source)\b"
        return any(
            re.match(code, found)
            or code_options.SCRIPT_FILE.fullmatch(found)
            or (interpreter.takes_first and not found.startswith("-"))
            for found in rest
            if found is not None
        )
    return "/" in word and not word.startswith("/")  # a file of the project


def runs_file(words: Words) -> bool:
    """Tell whether a command may run what is in a file that it is given."""
    name = program_of(words)
    return name in ("source", ".") or is_interpreter(name) or not takes_data(words)


def runs_file_named(words: Words, name: str) -> bool:
    """Tell whether a command runs a file of the project by its name.

    :param name: with its suffix, without its folder
    """
    if may_be_made(words):
        return name.lower() in ("makefile", "gnumakefile") or any(name in (word or "") for word in words)
    for start in _positions(words):
        program, rest = name_of(words[start]), words[start + 1 :]
        if program == name:
            return True
        if PYTHON.fullmatch(program):
            ran = python_program(rest)
            code = (rest[ran[1]] or name) if ran else name
            stem = re.escape(name.partition(".")[0])
            if name_of(code) == name or (ran and ran[0] != "file" and re.search(rf"\b{stem}\b", code)):
                return True
        elif SHELL.fullmatch(program):
            index = script_index(rest)
            if name in ((rest[index] if index is not None else first_argument(rest)) or ""):
                return True
        elif name in map(name_of, rest):
            found = code_options.interpreter(program)
            has_file = any(re.match(r"-\w*[fE]|--file", word or "") for word in rest)
            if program in ("source", ".", *READ_WORDS) or (found and (has_file or not found.takes_first)):
                return True
    return False


def runs_input(words: Words, functions: Container[str] = ()) -> bool:
    """Tell whether a command may run what it reads from its input.

    :param functions: of the script
    """
    if any(_INPUT.fullmatch(word or "") for word in words) or ("-f" in words and "-" in words):
        return True
    if program_of(words) in READ:
        return False
    if starts_commands(words) or not takes_data(words, functions):
        return True
    for position, word in enumerate(words):
        name, rest = name_of(word), words[position + 1 :]
        index = script_index(rest)
        if SHELL.fullmatch(name) and index is not None and rest[index] is None:
            return True  # bash -c "$(cat)"
        if SHELL.fullmatch(name) and index is None:
            index = argument_index(rest)
            if index >= len(rest) or rest[index] in (None, "-"):
                return True
            if any(re.fullmatch(r"-\w*s\w*", option or "") for option in rest[:index]):
                return True
        elif name == "xargs" and (
            program_of(rest) in (*READ_WORDS, *_MAKE, *code_options.RUN_OPTIONS)
            or any(may_be_code(rest, at) or is_script(rest, at) for at in range(len(rest)))
        ):
            return True
    return False


def is_interpreter(name: str) -> bool:
    """Tell whether a program of that name runs code that it is given, in a file or a word."""
    return any(pattern.fullmatch(name) for pattern in (SHELL, PYTHON, *code_options.INTERPRETERS))


@functools.lru_cache(maxsize=4096)  # asked for again by each place of a command
def _code_of(words: tuple[str | None, ...], start: int) -> frozenset[int]:
    """Return which of a command's words may be code of the program that one of them names."""
    return frozenset(start + 1 + index for index in _code_indexes(name_of(words[start]), words[start + 1 :]))


def _code_indexes(name: str, words: Words) -> Iterator[int]:
    """Yield which of the words after a program's name may be code."""
    if code_options.TAKE_CODE.fullmatch(name) or (
        name == "tar" and re.match(r"[a-zA-Z]*[IF]", (words or [""])[0] or "")
    ):
        yield from range(len(words))
    elif code_options.TAKE_FIRST_CODE.fullmatch(name):
        files = (index for index, word in enumerate(words) if re.fullmatch(r"[^-+].*\.\w+", word or ""))
        yield from range(next(files, len(words)))
    elif options := code_options.RUN_OPTIONS.get(name) or code_options.CODE_OPTIONS.get(name):
        if name == "git" and "config" in words:  # a setting may be a command
            yield from range(words.index("config") + 1, len(words))
        for index, word in enumerate(words):
            if found := re.match(options, word or ""):
                yield index
                yield index + (found.end() == len(word or ""))
    elif PYTHON.fullmatch(name):
        yield from python_indexes(words)
    elif SHELL.fullmatch(name) and (script := script_index(words)) is not None:
        yield script
    elif interpreter := code_options.interpreter(name):
        yield from code_options.code_indexes(interpreter, words)
