"""What a job writes: masked, in lines, and what of it the failure file quotes."""

from __future__ import annotations

import codecs
import collections
import contextlib
import re
import sys
import time
from collections.abc import Callable, Iterable

from mlflow_projects.public_uri import public_text
from mlflow_projects.spellings import hidden, lines_of, spellings

MAX_FAILURE = 1024  # bytes; SageMaker cuts FailureReason there
_TAIL = 40  # lines of output that the failure file may quote
_MAX_LINE = 32_768
_PROGRESS_SECONDS = 1.0
_CURSOR = re.compile(r"\x1b\[[0-9;?]*[A-HJKSTfhlsu]")  # what a progress bar moves with; colours stay
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Output:
    """Standard output, with secrets masked; it remembers the command's last lines."""

    def __init__(self) -> None:
        self.tail: collections.deque[str] = collections.deque(maxlen=_TAIL)
        self._secrets: list[str] = []
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]

    def hide(self, secret: str | None) -> None:
        """Mask a value from now on, however it is spelled, and each of its lines if it has many."""
        found = {*lines_of(secret or ""), *self._secrets}
        self._secrets = sorted((part for part in found if len(part) >= 3), key=len, reverse=True)

    @property
    def longest_secret(self) -> int:
        return max(map(len, spellings(self._secrets[0]))) if self._secrets else 0

    def mask(self, text: str) -> str:
        return public_text(hidden(text, self._secrets))

    def note(self, text: str) -> None:
        """Write a line of the runner's own."""
        self._write("[mlflow_projects] " + self.mask(text))

    def line(self, text: str) -> None:
        """Write a line of the command's."""
        text = _CURSOR.sub("", self.mask(text))
        self.tail.append(text)
        self._write(text)

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # nobody reads: no reason to lose the command's work
            sys.stdout.write(text + "\n")
            sys.stdout.flush()


class Lines:
    """Cuts a command's bytes into lines.

    A line that is redrawn (a progress bar ends it with a carriage return) is passed on at most once a second,
    and its last state always.
    """

    def __init__(self, output: Output, clock: Callable[[], float] = time.monotonic) -> None:
        self._output, self._clock = output, clock
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""  # an unfinished line
        self._state = self._shown = ""  # of a redrawn line: the newest state, and the one passed on last
        self._shown_at = float("-inf")

    def feed(self, data: bytes, final: bool = False) -> None:
        *lines, rest = (self._rest + self._decoder.decode(data, final)).split("\n")
        for line in lines:
            self._finish(line)
        # A carriage return at the very end may be half of "\r\n".
        held = "\r" if rest.endswith("\r") and not final else ""
        *states, rest = rest[: len(rest) - len(held)].split("\r")
        self._keep_newest(states)
        self._rest = rest + held
        if len(self._rest) > _MAX_LINE + self._output.longest_secret:
            masked = self._output.mask(self._rest)
            cut = max(len(masked) - self._output.longest_secret, 0)  # half a secret may stand at the end
            self._rest = masked[cut:]
            self._output.line(masked[:cut])
        if final and (self._rest or self._state):
            self._finish(self._rest)
            self._rest = ""

    def idle(self) -> None:
        """Note that no output came for a moment: an unfinished state is then a whole one."""
        if self._state or self._shown:
            self._keep_newest([self._rest.rstrip("\r")])

    def _finish(self, line: str) -> None:
        states = (line[:-1] if line.endswith("\r") else line).split("\r")
        redrawn = len(states) > 1 or bool(self._state or self._shown)
        last = next((state for state in reversed(states) if state.strip()), self._state) if redrawn else states[0]
        if not redrawn or last != self._shown:
            self._output.line(last)
        self._state, self._shown, self._shown_at = "", "", float("-inf")

    def _keep_newest(self, states: Iterable[str]) -> None:
        for state in states:
            self._state = state.rstrip() or self._state
        now = self._clock()
        if self._state and self._state != self._shown and now - self._shown_at >= _PROGRESS_SECONDS:
            self._shown, self._shown_at = self._state, now
            self._output.line(self._state)


def failure_text(sentence: str, lines: Iterable[str]) -> bytes:
    """Return a sentence and as many of the last lines as fit, in UTF-8."""
    head = sentence.encode("utf-8", "replace")[:MAX_FAILURE]
    tail = "\n".join(line for line in (_ESCAPES.sub("", line).rstrip() for line in lines) if line)
    room = MAX_FAILURE - len(head) - 1
    if not tail or room <= 0:
        return head.decode("utf-8", "ignore").encode()
    return head + b"\n" + tail.encode("utf-8", "replace")[-room:].decode("utf-8", "ignore").encode()
