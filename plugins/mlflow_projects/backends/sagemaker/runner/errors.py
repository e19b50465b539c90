"""How a job ends before its command begins."""

from __future__ import annotations

BUG, BAD_SPEC, BAD_ARCHIVE, NO_SECRET, NO_INPUT, NO_PACKAGES, NOT_STARTED = range(70, 77)


class RunnerError(Exception):
    """The command could not be started: an exit status and one sentence that says why."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Stopped(BaseException):
    """A signal came before the command was started; no library may swallow it."""


def one_line(error: object) -> str:
    """Return what an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
