"""What is known while a script runs: its calls so far, what comes after what, where its own code is."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

Place = tuple[str, int]
NO_END = "does not end"
FIRST_EXPERIMENT = 710_000_000  # a number that stands nowhere by chance


class StopScript(BaseException):
    """The script did something that a DAG cannot do at its place; it must not catch this."""


class Recording:
    """One run of a script.

    :param root: the copy of the script's folder, with symbolic links followed
    :param scratch: everything that it may write
    """

    def __init__(self, root: str, scratch: str) -> None:
        self.root, self.scratch = root, scratch
        self.events: list[dict[str, Any]] = []
        self.inputs: list[dict[str, Any]] = []
        self.arguments: list[str] = []  # that options became
        self.stopped: dict[str, Any] | None = None
        self.steps: dict[str, dict[str, Any]] = {}  # by run id
        self.environment = dict(os.environ)
        self.folder = os.getcwd()
        self.is_again = False  # it finds the runs of an earlier recording
        self.tracking_uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        self.variables: dict[str, Any] = {}  # of the environment, that the script reads
        self.secrets: dict[str, str] = {}
        self.names: dict[str, str | None] = {}  # that the script gives its own runs, by run id
        self.searched: list[FrameType] = []  # the frames above the last search for earlier runs
        self._own = threading.local()

    def add(self, kind: str, **content: Any) -> dict[str, Any]:
        event = {"kind": kind, "where": self.place(), **content}
        self.events.append(event)
        return event

    def run_of(self, run_id: Any) -> dict[str, Any]:
        """Return what is known of a run that the script has opened itself; {} for another."""
        opened = (event for event in self.events if event["kind"] == "open" and event["run_id"] == run_id)
        return next(opened, {})

    def stop(self, sentence: str, *, decides: bool = False) -> NoReturn:
        """End the script with a sentence.

        :param decides: it is about a result, so that the calls before are a part that may be kept
        """
        if self.stopped is None:
            self.stopped = {"sentence": sentence, "where": self.place(), "decides": decides}
        raise StopScript(sentence)

    # --- where

    def frames(self) -> list[FrameType]:
        """Return the frames of the script's own code, the innermost first."""
        found: list[FrameType] = []
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if self.is_own(frame.f_code.co_filename):
                found.append(frame)
            frame = frame.f_back
        return found

    def is_own(self, file: str) -> bool:
        return file.startswith(self.root + os.sep) and f"{os.sep}site-packages{os.sep}" not in file

    def place(self) -> Place | None:
        """Return the innermost file (relative to the script's folder) and line of its own code."""
        return next(iter(self.stack()), None)

    def stack(self) -> list[Place]:
        return [(os.path.relpath(frame.f_code.co_filename, self.root), frame.f_lineno) for frame in self.frames()]

    # --- what comes after what

    @property
    def done(self) -> set[str]:
        """The ids of the runs that have ended, as seen by the branch of work that runs now."""
        if not hasattr(self._own, "done"):
            self._own.done = set()
        found: set[str] = self._own.done
        return found

    @contextlib.contextmanager
    def branch(self) -> Iterator[set[str]]:
        """Work beside the branch that runs now: begin with what it knows; yield what is known at the end."""
        outer = self.done
        self._own.done = inner = set(outer)
        try:
            yield inner
        finally:
            self._own.done = outer


current: Recording | None = None


def recording() -> Recording:
    assert current is not None, "set by the server before the script runs"
    return current
