"""A command with all its descendants, as one thing that can be read and stopped."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from mlflow_projects.backends.local import watchdog
from mlflow_projects.backends.local.output import LineReader

DEFAULT_GRACE = 3.0
_MARK = "MLFLOW_PROJECTS_TREE"
_CHUNK = 2**16


class ProcessTree:
    """A running command; leaving the ``with`` block stops whatever is left of it.

    The command runs below two small watchdog processes of our own (:mod:`mlflow_projects.backends.local.watchdog`)
    that stop the whole tree when this process closes a pipe or dies, even by SIGKILL: the kernel closes
    the pipe of a dead process.

    :param argv: the command, never a shell's text unless it starts with a shell
    :param environment: the complete environment
    :param grace: seconds between SIGTERM and SIGKILL
    """

    def __init__(
        self, argv: Sequence[str], *, cwd: Path, environment: Mapping[str, str], grace: float = DEFAULT_GRACE
    ) -> None:
        self._grace = grace
        self._mark = f"{_MARK}={uuid.uuid4()}"
        life, self._life = os.pipe()
        try:
            self._watchdog = subprocess.Popen(
                [sys.executable, "-I", "-S", watchdog.__file__, str(grace), *argv],
                cwd=cwd,
                env={**environment, _MARK: self._mark.partition("=")[2]},
                stdin=life,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in a terminal is the task's to handle
            )
        except BaseException:
            os.close(self._life)
            raise
        finally:
            os.close(life)
        assert self._watchdog.stdout is not None
        self._output = self._watchdog.stdout.fileno()

    @property
    def pid(self) -> int:
        """The upper watchdog's process id; the command and all its children are below it."""
        return self._watchdog.pid

    @property
    def returncode(self) -> int | None:
        """The command's exit status, 128 + n after signal n; None while it runs."""
        code = self._watchdog.poll()
        return code if code is None or code >= 0 else 128 - code

    def lines(self) -> Iterator[str]:
        """Yield the output's lines as they come, until the command and all it started are gone."""
        reader = LineReader()
        while True:
            ready, _, _ = select.select([self._output], [], [], 0.5)
            if ready:
                if not (chunk := os.read(self._output, _CHUNK)):
                    break
                yield from reader.feed(chunk)
            elif self.returncode is not None:
                break  # a process that escaped the watchdog holds the pipe open
            else:
                yield from reader.overdue()
        yield from reader.end()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._watchdog.wait(timeout=self._grace + 5)
        self._kill_orphans()

    def stop(self) -> None:
        """Ask for the end of the whole tree and return at once."""
        if self._life >= 0:
            os.close(self._life)
            self._life = -1
            if self._watchdog.returncode is None:  # both are in one group; somebody may have stopped it
                with contextlib.suppress(OSError):
                    os.killpg(self._watchdog.pid, signal.SIGCONT)

    def wait_stopped(self) -> None:
        """Wait for the end of a tree that was stopped; after the grace time and a little, force it."""
        deadline = time.monotonic() + self._grace + 2
        while self.returncode is None and time.monotonic() < deadline:
            ready, _, _ = select.select([self._output], [], [], 0.05)
            if ready and not os.read(self._output, _CHUNK):  # drained, so that nobody blocks in a write
                time.sleep(0.01)
        if self.returncode is None:
            self._watchdog.kill()
            self._watchdog.wait()
        self._kill_orphans()

    def _kill_orphans(self) -> None:
        """Kill what a watchdog that was itself killed left behind, told by a mark in its environment.

        The command died with the watchdog (PR_SET_PDEATHSIG), but not the command's own children.
        """
        if (self._watchdog.returncode or 0) >= 0:
            return
        with contextlib.suppress(OSError):  # its lower half ends all that it knows; give it the time
            deadline = time.monotonic() + self._grace + 1
            while time.monotonic() < deadline:
                ready, _, _ = select.select([self._output], [], [], 0.1)
                if ready and not os.read(self._output, _CHUNK):
                    break
        mark = self._mark.encode()
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)

    def __enter__(self) -> ProcessTree:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self.wait_stopped()
        if self._watchdog.stdout:
            self._watchdog.stdout.close()
