"""The commands of a job: one after the other, with all that they start; signals are passed on to them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from .errors import Stopped
from .output import Lines, Output

_LEFT_BEHIND_GRACE = 1.0  # for what a command leaves behind when it ends by itself
_STOP_GRACE = 100.0  # for the same after a stop; SageMaker sends SIGKILL 120 s after SIGTERM
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class Processes:
    """Runs commands one after the other, each in a session of its own, and passes signals on to them."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self._group = 0
        self.signal = 0  # the first one that came
        self.stopped = False  # whether it came before the last command ended
        self._signalled_at = 0.0
        self.interruptible = True  # while nothing runs: let a signal end what this process does
        self._libc: ctypes.CDLL | None = None
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                self._libc = ctypes.CDLL(None)
                self._libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans come to us
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: object) -> None:
        if not self.signal:
            self.signal, self._signalled_at = number, time.monotonic()
        if self._group:
            self._send(number)
        elif self.interruptible:
            raise Stopped

    def _send(self, number: int) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self._group, number)

    def _in_child(self) -> None:
        if self._libc is not None:
            self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # should the runner itself be killed

    def run(self, argv: list[str], cwd: Path, environment: dict[str, str]) -> int:
        """Run a command to its end, and the end of all that it started; return its exit status."""
        self.output.tail.clear()
        interruptible, self.interruptible = self.interruptible, False
        try:
            process = subprocess.Popen(
                argv,
                cwd=str(cwd),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=self._in_child,
            )
            self._group = process.pid
            if self.signal:  # it came between the last look and now
                self._send(self.signal)
            process.returncode = self._watch(process)
        finally:
            self._group, self.interruptible = 0, interruptible
        if self.signal and interruptible:
            raise Stopped
        return int(process.returncode)

    def _watch(self, process: subprocess.Popen[bytes]) -> int:
        assert process.stdout is not None
        pipe, lines = process.stdout.fileno(), Lines(self.output)
        status: int | None = None
        deadline = float("inf")
        reading = True
        while True:
            if reading and select.select([pipe], [], [], 0.2)[0]:
                data = os.read(pipe, 65_536)
                reading = bool(data)
                lines.feed(data)
            elif reading:
                lines.idle()
            else:
                time.sleep(0.05)
            ended = _reap(process.pid)
            if status is None and ended is not None:
                status, self.stopped = ended, bool(self.signal)
                deadline = self._clear_up(process.pid)
            if status is None:
                continue
            left = _descendants()
            if left and time.monotonic() >= deadline:
                for pid, _ in left:
                    _kill(pid, signal.SIGKILL)
            elif not left and not (reading and select.select([pipe], [], [], 0)[0]):
                lines.feed(b"", final=True)
                process.stdout.close()
                return status

    def _clear_up(self, group: int) -> float:
        """Ask what the command left behind to end; return the time by which it must have.

        After a stop, the group has its signal already and may be writing a checkpoint: a shell dies of the
        signal at once, the program that it started does not.
        """
        left = [pid for pid, pgrp in _descendants() if not self.signal or pgrp != group]
        for pid in left:
            _kill(pid, signal.SIGTERM)
        if left:
            self.output.note(f"Stopping {len(left)} process(es) that the command left behind.")
        return self._signalled_at + _STOP_GRACE if self.signal else time.monotonic() + _LEFT_BEHIND_GRACE


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def _reap(wanted: int) -> int | None:
    """Collect ended children, adopted ones included; return the exit status of the one wanted, if it ended."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == wanted:
                found = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return found


def _descendants() -> list[tuple[int, int]]:
    """Return the ids of all living processes below this one, each with that of its group."""
    children: dict[int, list[tuple[int, int]]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent, group = (entry / "stat").read_bytes().rpartition(b")")[2].split()[:3]
            if state not in (b"Z", b"X"):
                children.setdefault(int(parent), []).append((int(entry.name), int(group)))
    found: list[tuple[int, int]] = []
    to_visit = [os.getpid()]
    while to_visit:
        below = children.get(to_visit.pop(), [])
        found += below
        to_visit += [pid for pid, _ in below]
    return found
