"""Which files of a project a command line runs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import PurePath

from mlflow_projects.project import shell_and_python, shell_syntax

_SHELL = re.compile(r"bash|sh")
# Programs that neither make a file nor change the folder, so that what follows can be judged.
_HARMLESS = (":", "date", "echo", "export", "ls", "nvidia-smi", "printf", "pwd", "set", "sleep", "true", "ulimit")
# After these a name means a file elsewhere.
_ELSEWHERE = ("cd", "pushd", "popd", "git", "wget", "curl", "unzip", "tar", "dvc", "make")


def scripts_of(command: str) -> Iterator[tuple[str, bool, bool]]:
    """Yield the files of the project that a command line runs, as far as they can be told without running it.

    With each comes whether it surely runs, before anything that could make it, and decides about the step's end; and
    whether it is a program itself.
    """
    is_first = True
    for words, decides in shell_syntax.commands(command):
        writes = words[:1] == [">"]
        words = words[writes:]
        name = words[0] if words else None
        if name is None or name in _ELSEWHERE:
            return
        if name.startswith("./"):
            script: str | None = name
        elif shell_and_python.PYTHON.fullmatch(PurePath(name).name):
            program = shell_and_python.python_program(words[1:])
            script = words[1:][program[1]] if program and program[0] == "file" else None
        elif _SHELL.fullmatch(PurePath(name).name) and shell_and_python.script_index(words[1:]) is None:
            script = shell_and_python.first_argument(words[1:])
            if script and "/" not in script and shutil.which(script):  # a shell looks there too
                continue
        else:
            is_first = is_first and name in _HARMLESS and not writes
            continue
        if script and script != "-" and not set(script) & set("~{}") and not PurePath(script).is_absolute():
            yield script, is_first and decides, script == name
        is_first = False
