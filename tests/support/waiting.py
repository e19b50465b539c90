"""Wait for what can be observed: the one place where tests let time pass."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.support.logs import end_of

Found = TypeVar("Found")
# Seconds; on a machine that does much else at the same time, all takes a multiple of what it takes on a quiet one.
PATIENCE = 300.0


def wait(condition: Callable[[], Found | None], what: str, seconds: float = PATIENCE) -> Found:
    """Return what the condition returns once that is true.

    :param what: ends the sentence "waited in vain for …"
    """
    deadline, pause = time.monotonic() + seconds, 0.02
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for {what}"
        time.sleep(pause)
        pause = min(pause * 1.5, 0.5)
    return found


def wait_for_server(
    answers: Callable[[], Found | None],
    process: subprocess.Popen[bytes],
    what: str,
    log: Path,
    seconds: float = PATIENCE,
) -> Found:
    """Return a server's first answer; if it ends or stays silent, the end of its log is in the message."""

    def look() -> Found | None:
        assert process.poll() is None, f"{what} ended with {process.returncode}"
        return answers()

    try:
        return wait(look, f"an answer of {what}", seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}. {end_of(log)}") from None
