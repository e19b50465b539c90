"""How an attempt ended, in words: what its command said last, and why it was stopped."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mlflow_projects.attempt.causes import cause_of_job
from mlflow_projects.attempt.step import Step
from mlflow_projects.backends.contract import JobStatus
from mlflow_projects.exceptions import Cause, ProjectError
from mlflow_projects.public_uri import public_uri
from mlflow_projects.tracking.client import RunStatus
from mlflow_projects.tracking.record import Outcome

_TAIL_CHARACTERS = 4000
_NO_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_LAST_LINE_CHARACTERS = 300


def outcome_of(
    step: Step,
    status: JobStatus,
    tail: Sequence[str],
    redact: Callable[[str], str],
    *,
    stopped: str = "",
    cause_when_stopped: Cause = "interrupted",
    store_problem: Callable[[], str] = lambda: "",
) -> Outcome:
    """Return the outcome of a command that is over, or was given up.

    :param tail: the last lines of its output
    :param redact: returns a text as everybody may see it
    :param stopped: why Airflow stopped it, "" if it did not
    :param store_problem: says what is wrong with the place where the artifacts go; asked if the command failed
    """
    text, known = tail_of(tail, redact), (status.exit_code, status.metrics)
    if stopped:
        return Outcome("KILLED", stopped, text, *known, status.tags, cause_when_stopped)
    if status.state == "succeeded":
        return Outcome("FINISHED", metrics=status.metrics, facts=status.tags)
    name = f"Entry point {step.entry_point!r} of {public_uri(step.uri)}"
    if status.exit_code in step.skip_on_exit_code:
        skipped = redact(f"{name} was skipped: its exit status is {status.exit_code}.")
        return Outcome("FINISHED", skipped, "", *known, status.tags)
    if status.state == "running":
        return Outcome("KILLED", redact(f"{name} did not end in time and was stopped."), text, cause="timeout")
    ended = "failed" if status.state == "failed" else "was stopped"
    said = _last_line(tail) if status.exit_code else ""
    why = [f"{name} {ended}: {status.reason.rstrip('.')}{said}.", store_problem()]
    verdict: RunStatus = "FAILED" if status.state == "failed" else "KILLED"
    reason = redact(" ".join(filter(None, why)))
    return Outcome(verdict, reason, text, *known, status.tags, cause_of_job(status, tail))


@contextlib.contextmanager
def disk_in_words(root: Path) -> Iterator[None]:
    """Say in a sentence that the disk is full or may not be written, which another try cannot mend.

    :param root: the cache folder
    :raises ProjectError: it says so
    """
    try:
        yield
    except OSError as error:
        said = error.strerror or str(error)  # shutil's own error has a list of many
        # A lock that another user of the machine made, say; outside of the cache it is the project's.
        is_closed = isinstance(error, PermissionError) and str(error.filename).startswith(f"{root}/")
        if not (is_closed or error.errno in _NO_DISK or re.search("No space left|Read-only file system", said)):
            raise
        remedy = f"({said[:200]}); {'let this user write there' if is_closed else 'make room'}, or set cache_dir."
        raise ProjectError(f"The cache folder {root} cannot be written {remedy}") from error


def tail_of(lines: Sequence[str], redact: Callable[[str], str]) -> str:
    """Return as much of the last lines as a tag takes."""
    return redact("\n".join(lines))[-_TAIL_CHARACTERS:]


def _last_line(tail: Sequence[str]) -> str:
    """Return ": " and the command's last words, which mostly name the error; "" if it said nothing."""
    last = next((line.strip() for line in reversed(tail) if line.strip()), "")
    return f": {last[:_LAST_LINE_CHARACTERS].rstrip('.')}" if last else ""
