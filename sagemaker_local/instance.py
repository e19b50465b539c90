"""One instance of a training job: runs the container's command and outlives nobody.

Usage: ``python -I -S instance.py``, with a pipe as standard input. Its first line is a JSON object:

``argv``, ``environment``, ``cwd``  the command
``mounts``   list of [source, target]: bind mounts in a mount namespace of its own (needs root); with any, the
             command also gets a process namespace, so that it is PID 1 like in a container: a SIGTERM that it
             does not handle is ignored, and when it ends everything that it started ends
``engine``   for a command that is a container engine's "run": commands to ``term``, ``kill`` and ``remove`` the
             container; else empty
``trouble``  a file for the reason when the command cannot be started

Then come single letters: T sends SIGTERM to the command, K kills all. When the other end of the pipe closes,
be it that the stand-in was killed by SIGKILL, all is killed too. The exit status is the command's own;
128 + n if signal n ended it. Standard library only: it starts in about 20 ms.
"""

# ruff: noqa: PTH123, PTH208, S606
from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any

_CLONE_NEWNS, _CLONE_NEWPID = 0x00020000, 0x20000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_ENGINE_PATIENCE = 5.0  # seconds in which an engine's "run" ends after its container was killed
_LINUX = sys.platform == "linux"
_libc = ctypes.CDLL(None, use_errno=True) if _LINUX else None


def _call(name: str, *arguments: Any) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str | None, flags: int) -> None:
    _call("mount", source.encode(), target.encode(), kind and kind.encode(), ctypes.c_ulong(flags), None)


def _make_namespaces(mounts: list[list[str]]) -> None:
    _call("unshare", _CLONE_NEWNS | _CLONE_NEWPID)
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    for source, target in mounts:
        _mount(source, target, None, _MS_BIND | _MS_REC)


def _become_command(spec: dict[str, Any], report: int) -> None:
    """Turn the forked child into the command; return only by an error."""
    for number in range(1, signal.NSIG):
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if _LINUX:
        _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if spec["mounts"]:
        with contextlib.suppress(OSError):  # a container may forbid it; only ps would notice
            _mount("proc", "/proc", "proc", 0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.chdir(spec["cwd"])
    try:
        os.execvpe(spec["argv"][0], spec["argv"], spec["environment"])
    except OSError as error:
        os.write(report, f'exec: "{spec["argv"][0]}": {error.strerror}'.encode())
        os._exit(127)


def _descendants() -> set[int]:
    """Return the ids of all living processes below this one."""
    below: dict[int, set[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")) if _LINUX else ():
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            state, parent = file.read().rpartition(b")")[2].split()[:2]
            if state not in (b"Z", b"X"):
                below.setdefault(int(parent), set()).add(int(name))
    found: set[int] = set()
    new = {os.getpid()}
    while new:
        new = set().union(*(below.get(pid, ()) for pid in new)) - found
        found |= new
    return found


def _kill_descendants() -> None:
    for pid in _descendants():
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _kill_all(command: int, spec: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        os.kill(command, signal.SIGKILL)  # in a process namespace the kernel kills all the others
    if not spec["mounts"]:
        with contextlib.suppress(OSError):
            os.killpg(command, signal.SIGKILL)
        _kill_descendants()


def _ask_engine(what: str, spec: dict[str, Any]) -> bool:
    """Let the container engine do it, if there is one."""
    if spec["engine"]:
        null = subprocess.DEVNULL
        subprocess.run(
            spec["engine"][what], env=spec["environment"], stdin=null, stdout=null, stderr=null, check=False
        )
    return bool(spec["engine"])


def _reap(command: int) -> int | None:
    """Collect ended children, adopted ones included; return the command's wait status if it ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid == 0:
            return None
        if pid == command:
            return status


def _watch(command: int, letters: bytes, spec: dict[str, Any]) -> int:
    """Follow the letters on standard input until the command has ended; return its wait status."""
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write)
    sources, killing, patience = [0, wake_read], False, float("inf")
    while True:
        status = _reap(command)
        if status is not None:
            return status
        if b"T" in letters and not _ask_engine("term", spec):
            os.kill(command, signal.SIGTERM)
        if b"K" in letters and not killing:
            killing, patience = True, time.monotonic() + (_ENGINE_PATIENCE if spec["engine"] else 0)
        if killing:
            _ask_engine("kill", spec)
        if time.monotonic() >= patience:
            _kill_all(command, spec)
        letters = b""
        ready, _, _ = select.select(sources, [], [], 0.1 if killing else 1.0)
        if wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_read, 4096)
        if 0 in ready:
            letters = os.read(0, 4096)
            if not letters:
                sources.remove(0)
                letters = b"K"


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    received = b""
    while b"\n" not in received:
        if not (chunk := os.read(0, 65536)):
            return 1
        received += chunk
    line, _, letters = received.partition(b"\n")
    spec = json.loads(line)
    report_read, report_write = os.pipe()  # closed by a successful exec
    trouble = b""
    try:
        if spec["mounts"]:
            _make_namespaces(spec["mounts"])
        elif _LINUX:
            _call("prctl", _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        command = os.fork()
        if command == 0:
            try:
                _become_command(spec, report_write)
            except BaseException as error:
                os.write(report_write, str(error).encode())
            finally:
                os._exit(127)
        os.close(report_write)
        trouble = os.read(report_read, 65536)
        status = _watch(command, letters, spec)
    except OSError as error:
        trouble, status = str(error).encode(), 127 << 8
    _ask_engine("remove", spec)
    if trouble:
        with open(spec["trouble"], "wb") as file:
            file.write(trouble)
    if not spec["mounts"]:
        deadline = time.monotonic() + 5
        while _descendants() and time.monotonic() < deadline:
            _kill_descendants()
            _reap(0)
            time.sleep(0.02)
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


if __name__ == "__main__":
    os._exit(main())
