"""From a command's bytes to lines that are worth a place in a task's log."""

from __future__ import annotations

import codecs
import re
import time
from collections.abc import Callable, Iterator

MAX_LINE = 32_768
PROGRESS_SECONDS = 5.0
_LONGEST_WORD = 4_096
# Cursor movement and line clearing, which progress bars use; colours (…m) stay, Airflow shows them.
_CURSOR = re.compile(r"\x1b\[[0-9;?]*[A-HJKSTfhlsu]")


class LineReader:
    """Cut output into lines.

    A progress bar redraws its line by ending it with a carriage return. Such a line is passed on at most
    every few seconds, and its last state always.

    :param progress_seconds: the least time between two states of a redrawn line
    """

    def __init__(
        self, progress_seconds: float = PROGRESS_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._interval, self._clock = progress_seconds, clock
        self._rest = ""  # an unfinished line
        self._redrawn = ""  # the newest state of a redrawn line that was not passed on
        self._shown_at = float("-inf")

    def feed(self, data: bytes) -> Iterator[str]:
        """Take bytes as they come; yield the lines that they complete."""
        text = self._rest + self._decoder.decode(data)
        if "\r" not in text:  # the common case, fast
            *lines, self._rest = text.split("\n")
            for line in lines:
                yield from self._line(line)
        else:
            yield from self._feed_redrawn(text)
        while len(self._rest) > MAX_LINE:
            end = _end_of_piece(self._rest)
            yield self._rest[:end]
            self._rest = self._rest[end:]

    def overdue(self) -> Iterator[str]:
        """Yield a redrawn line that has waited long enough; call it when no output comes."""
        if self._redrawn and self._clock() - self._shown_at >= self._interval:
            yield self._show()

    def end(self) -> Iterator[str]:
        """Yield what is left after the last byte."""
        self._rest += self._decoder.decode(b"", final=True)
        if self._rest.strip("\r"):
            yield from self._line(self._rest.strip("\r"))
        elif self._redrawn:
            yield self._show()
        self._rest = ""

    def _feed_redrawn(self, text: str) -> Iterator[str]:
        *lines, rest = text.split("\n")
        for line in lines:
            *states, final = line.removesuffix("\r").split("\r")
            for state in states:
                yield from self._state(state)
            yield from self._line(final)
        # A trailing \r may be half of \r\n: it stays in the rest until the next byte tells.
        held = rest.endswith("\r")
        *states, final = rest[: -1 if held else None].split("\r")
        for state in states:
            yield from self._state(state)
        self._rest = final + ("\r" if held else "")

    def _line(self, line: str) -> Iterator[str]:
        if not line and self._redrawn:
            line = self._redrawn
        self._redrawn, self._shown_at = "", float("-inf")
        line = _CURSOR.sub("", line) if "\x1b" in line else line
        while len(line) > MAX_LINE:
            end = _end_of_piece(line)
            yield line[:end]
            line = line[end:]
        yield line

    def _state(self, state: str) -> Iterator[str]:
        state = _CURSOR.sub("", state).rstrip()
        if state:
            self._redrawn = state
            yield from self.overdue()

    def _show(self) -> str:
        line, self._redrawn, self._shown_at = self._redrawn, "", self._clock()
        return line[:MAX_LINE]


def _end_of_piece(line: str) -> int:
    """Return where a line that is too long is cut: between words, as half a secret is not known for one."""
    space = line.rfind(" ", MAX_LINE - _LONGEST_WORD, MAX_LINE)
    return MAX_LINE if space < 0 else space + 1
