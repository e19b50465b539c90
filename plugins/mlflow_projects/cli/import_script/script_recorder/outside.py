"""What a script does besides running projects: noted instead of done, or done in its scratch folder only."""

from __future__ import annotations

import asyncio
import io
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from . import command_line
from .state import Recording, recording

_LIBRARY = sysconfig.get_paths()["stdlib"]
_WRITES = ("w", "a", "x", "+")
# What Python tells before it changes files other than by opening them.
_CHANGES = ("os.rename", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown", "os.utime")
_OF_TWO_PATHS = ("os.rename", "os.link")
_FORKS = ("os.fork", "os.forkpty", "os.posix_spawn")
_CONNECTIONS = ("socket.connect", "socket.sendto", "socket.sendmsg")
_LOOK_UPS = ("socket.gethostbyname", "socket.gethostbyaddr")
_INPUTS = (0, "/dev/stdin", "/dev/tty")
_READS_INPUT = "reads from its standard input, which is empty here"


class NoInput(io.RawIOBase):
    """The standard input: whoever reads it ends the script."""

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 0

    def readinto(self, _: Any) -> int:
        recording().stop(_READS_INPUT)


def install() -> None:
    """Put our own functions in the place of the real ones, and listen to what Python tells of all others."""
    _install_commands()
    _install_removal()
    _install_looks_at_artifacts()
    sys.addaudithook(_audit)


def _audit(event: str, args: tuple[Any, ...]) -> None:
    from . import state

    if (current := state.current) is None or current.stopped:
        return
    if event in _CONNECTIONS and args[1] is not None:
        if getattr(args[0], "family", None) != socket.AF_UNIX or not _is_own_socket(current, args[1]):
            current.stop(f"opens a connection to {_shown(args[1])}, and an import has no network")
    elif event == "socket.getaddrinfo" or (
        event in _LOOK_UPS and args[0] not in ("localhost", "127.0.0.1", socket.gethostname())
    ):
        current.stop(f"opens a connection to {_shown(args[0])}, and an import has no network")
    elif event in _FORKS and _is_asked_by_the_script():
        current.stop(f"calls {event}, and an import does not follow what runs there; call subprocess instead")
    elif event in _CHANGES and current.frames():
        # Of a symbolic link only the second path: what it points to stays as it is.
        _changed(current, args[:2] if event in _OF_TWO_PATHS else args[1:2] if event == "os.symlink" else args[:1])
    elif event == "open" and args[0] in _INPUTS and current.frames():
        current.stop(_READS_INPUT)
    elif event == "open" and isinstance(args[0], str | bytes):
        _opened(current, os.fsdecode(args[0]), args[1] or "", args[2])


def _opened(current: Recording, path: str, mode: str, flags: int) -> None:
    path = os.path.abspath(path)
    is_written = any(letter in mode for letter in _WRITES) or bool(flags & (os.O_WRONLY | os.O_RDWR))
    if step := step_of(current, path):
        current.stop(f"{'writes to' if is_written else 'reads'} an artifact of {step!r}", decides=True)
    if not is_written or path == os.devnull or not (frames := current.frames()):
        return
    if _is_below(path, current.root):
        # A library's own files (logs, caches) are not the script's work.
        if current.is_own(_caller(frames[0])) and not path.endswith((".pyc", ".log")):
            current.add("own", does="writes", what=os.path.relpath(path, current.root), path=path)
    elif not _is_below(path, current.scratch):
        current.stop(f"writes {path}, which is outside of its folder")


def _changed(current: Recording, paths: Sequence[Any]) -> None:
    for path in paths:
        full = _folder_resolved(path) if isinstance(path, str | bytes) else ""
        if full and not _is_below(full, current.scratch):
            current.stop(f"changes {full}, which is outside of its folder")


def _folder_resolved(path: Any) -> str:
    """Return an absolute path in which only the last part may be a symbolic link."""
    full = os.path.abspath(os.fsdecode(path))
    return os.path.join(os.path.realpath(os.path.dirname(full)), os.path.basename(full))


def _caller(frame: Any) -> str:
    return str(frame.f_code.co_filename)


def step_of(current: Recording, text: str) -> str:
    """Return the name of the step whose run's id stands in a text; "" for none."""
    return next((step["name"] for run_id, step in current.steps.items() if run_id in text), "")


def _is_below(path: str, folder: str) -> bool:
    real = os.path.realpath(path)
    return real == folder or real.startswith(folder + os.sep)


def _is_own_socket(current: Recording, address: Any) -> bool:
    path = os.fsdecode(address)
    return bool(path) and "\0" not in path and _is_below(path, current.scratch)


def _shown(address: Any) -> str:
    if isinstance(address, tuple):
        address = address[0]
    return repr(address.decode(errors="replace") if isinstance(address, bytes) else address)


# --- other programs


def _is_asked_by_the_script() -> bool:
    """Tell whether its own code starts a program, rather than a library that it uses."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename.startswith((_LIBRARY, "<frozen ", __file__)):
        frame = frame.f_back
    return frame is not None and recording().is_own(frame.f_code.co_filename)


def _install_commands() -> None:
    class Popen(subprocess.Popen):  # type: ignore[type-arg]
        """Notes a command of the script, and has run it well."""

        def __init__(self, args: Any, *more: Any, **kwargs: Any) -> None:
            self._is_noted = False
            if not _is_asked_by_the_script():
                super().__init__(args, *more, **kwargs)
                return
            self._is_noted, self._child_created = True, False
            self.args, self.pid, self.returncode = args, 0, 0
            note_command(args, kwargs.get("cwd"), kwargs.get("env"))
            text = bool(kwargs.get("text") or kwargs.get("encoding") or kwargs.get("universal_newlines"))
            streams = {name: kwargs.get(name) for name in ("stdin", "stdout", "stderr")}
            self.stdin: Any = _Input() if streams["stdin"] == subprocess.PIPE else None
            for name in ("stdout", "stderr"):
                setattr(self, name, _Output(args, text) if streams[name] == subprocess.PIPE else None)

        def communicate(self, input: Any = None, timeout: float | None = None) -> Any:
            if not self._is_noted:
                return super().communicate(input, timeout)
            outputs: tuple[Any, Any] = (self.stdout, self.stderr)
            return tuple(output and output.unknown() for output in outputs)

        def wait(self, timeout: float | None = None) -> int:
            return 0 if self._is_noted else super().wait(timeout)

        def poll(self) -> int | None:
            return 0 if self._is_noted else super().poll()

        def __exit__(self, *args: Any) -> None:
            if not self._is_noted:
                super().__exit__(*args)

        def __del__(self, *args: Any) -> None:
            if not self._is_noted:
                super().__del__(*args)

    subprocess.Popen = Popen  # type: ignore[misc]

    def system(command: str) -> int:
        note_command(command, None, None)
        return 0

    def popen(command: str, *_: Any, **__: Any) -> Any:
        note_command(command, None, None)
        return _Output(command, True)

    setattr(os, "system", system)  # noqa: B010
    setattr(os, "popen", popen)  # noqa: B010

    async def create_subprocess(*words: Any, **kwargs: Any) -> Any:
        return _Awaited(Popen(words[0] if len(words) == 1 else list(words), **kwargs))

    setattr(asyncio, "create_subprocess_exec", create_subprocess)  # noqa: B010
    setattr(asyncio, "create_subprocess_shell", create_subprocess)  # noqa: B010
    for name in ("execv", "execve", "execvp", "execvpe", "execl", "execlp"):
        setattr(os, name, lambda path, *_: recording().stop(f"becomes another program, {path!r}"))


class _Output:
    """What a command that was not run would have printed: whoever wants to know it cannot be told."""

    def __init__(self, command: Any, text: bool) -> None:
        self.command, self.text = command, text

    def unknown(self) -> Any:
        return Unknown(self.command, self.text)

    def read(self, *_: Any) -> Any:
        return self.unknown()

    def close(self) -> None:
        pass

    def __iter__(self) -> Any:
        return iter(self.unknown())


class _Awaited:
    """A noted command, as asyncio has it."""

    def __init__(self, noted: Any) -> None:
        self._noted = noted
        self.pid, self.returncode = noted.pid, 0
        self.stdin = noted.stdin
        self.stdout, self.stderr = (stream and _Stream(stream) for stream in (noted.stdout, noted.stderr))

    async def wait(self) -> int:
        return 0

    async def communicate(self, input: Any = None) -> Any:
        return self._noted.communicate(input)


class _Stream:
    def __init__(self, output: _Output) -> None:
        self._output = output

    async def read(self, *_: Any) -> Any:
        return self._output.unknown()

    readline = readexactly = readuntil = read

    async def __aiter__(self) -> Any:
        for line in self._output:
            yield line


class _Input:
    def write(self, *_: Any) -> None:
        pass

    flush = close = write


def Unknown(command: Any, text: bool) -> Any:
    """Return an empty text that ends the script as soon as it is looked at."""
    shown = command if isinstance(command, str) else " ".join(map(str, command))

    def look(self: Any, *_: Any, **__: Any) -> Any:
        recording().stop(f"reads the output of {shown[:80]!r}, which an import does not run", decides=True)

    names = [
        "__str__",
        "__iter__",
        "__len__",
        "__eq__",
        "__ne__",
        "__contains__",
        "__getitem__",
        "__add__",
        "__format__",
        "__bool__",
        "__lt__",
        "__gt__",
        "strip",
        "split",
        "splitlines",
        "decode",
        "encode",
        "startswith",
        "endswith",
        "replace",
        "rstrip",
        "lstrip",
        "lower",
        "upper",
        "find",
    ]
    base = str if text else bytes
    return type("Unknown", (base,), {**dict.fromkeys(names, look), "__hash__": base.__hash__})()


def note_command(command: Any, folder: Any, environment: Any) -> None:
    """Note a command; one that is ``mlflow run`` is a call of ours."""
    words = command if isinstance(command, list | tuple) else _words(os.fspath(command))
    words = [os.fsdecode(word) for word in words]
    current = recording()
    while words and (found := _ASSIGNMENT.fullmatch(words[0])):
        environment = {**(environment or {}), found[1]: found[2]}
        words = words[1:]
    if is_mlflow_run := _behind_mlflow_run(words):
        command_line.from_command_line(is_mlflow_run, folder, environment)
    else:
        current.add("own", does="runs", what=" ".join(words)[:200])


_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)


def _words(command: str) -> list[str]:
    try:
        lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        return list(lexer)
    except ValueError:
        return [command]


def _behind_mlflow_run(words: Sequence[str]) -> list[str]:
    """Return the arguments of ``mlflow run``; [] for another command."""
    names = [os.path.basename(word) for word in words]
    for start in (["mlflow", "run"], ["-m", "mlflow", "run"]):
        for at in range(len(names)):
            if names[at : at + len(start)] == start and at <= 1:
                found = list(words[at + len(start) :])
                if not any(set(word) <= set("|&;<>()") for word in found):
                    return found
    if re.search(r"\bmlflow\s+run\b", " ".join(words)):
        recording().stop(f"runs a command around 'mlflow run' ({' '.join(words)[:80]}); run it by itself")
    return []


# --- removal


def _install_removal() -> None:
    for module, names in ((os, ("remove", "unlink", "rmdir", "removedirs")), (shutil, ("rmtree",))):
        for name in names:
            setattr(module, name, _only_in_scratch(getattr(module, name)))

    real_mkdir = os.mkdir

    def mkdir(path: Any, *args: Any, **kwargs: Any) -> None:
        full = os.path.realpath(os.fsdecode(path))
        if "dir_fd" in kwargs or _is_below(full, recording().scratch) or os.path.lexists(full):
            real_mkdir(path, *args, **kwargs)
        else:
            recording().add("own", does="makes", what=full)

    setattr(os, "mkdir", mkdir)  # noqa: B010


def _only_in_scratch(real: Callable[..., Any]) -> Callable[..., Any]:
    def remove(path: Any, *args: Any, **kwargs: Any) -> Any:
        current = recording()
        full = _folder_resolved(path)
        # A step may make it, which did not run.
        is_there = _is_below(full, current.scratch) and (not current.steps or os.path.lexists(full))
        if kwargs.get("dir_fd") is not None or is_there:
            return real(path, *args, **kwargs)
        is_own = _is_below(full, current.root)
        current.add("own", does="removes", what=os.path.relpath(full, current.root) if is_own else full)
        return None

    return remove


# --- artifacts of steps that did not run


def _install_looks_at_artifacts() -> None:
    for name in ("stat", "lstat", "listdir", "scandir", "access"):
        setattr(os, name, _unless_artifact(getattr(os, name)))
    for name in ("exists", "isfile", "isdir", "getsize", "getmtime"):  # in C, some of them
        setattr(os.path, name, _unless_artifact(getattr(os.path, name)))


def _unless_artifact(real: Callable[..., Any]) -> Callable[..., Any]:
    def look(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
        from . import state

        current = state.current
        if current and current.steps and isinstance(path, str | bytes | os.PathLike):
            step = step_of(current, os.fsdecode(path))
            if step and current.frames():
                current.stop(f"looks at an artifact of {step!r}", decides=True)
        return real(path, *args, **kwargs)

    return look
