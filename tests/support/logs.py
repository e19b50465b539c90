"""The last lines of the logs of servers and tasks, for whoever reads of a failure."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

TASK_LOGS = "logs/dag_id=*/**/*.log"  # below an Airflow home
_LINES, _FILES = 60, 4
_watched: list[tuple[Path, tuple[str, ...]]] = []
_left: list[tuple[str, str]] = []  # by what failed and is gone


def last_lines(text: str) -> str:
    return "\n".join(text.splitlines()[-_LINES:])


def end_of(file: Path) -> str:
    """Return the last lines of a log, below a line that names it."""
    text = file.read_text(errors="replace") if file.exists() else ""
    return f"The last lines of {file}:\n{last_lines(text) or '(none)'}"


def show_on_failures(folder: Path, *patterns: str) -> None:
    """Show the ends of logs with each test that fails from now on; the arguments are those below."""
    _watched.append((folder, patterns))


@contextlib.contextmanager
def shown_on_failure(folder: Path, *patterns: str) -> Iterator[None]:
    """Show the ends of logs with each test that fails during the block, or by it.

    :param patterns: of paths below the folder; of each, the newest files are shown
    """
    watched = folder, patterns
    _watched.append(watched)
    try:
        yield
    except (Exception, pytest.fail.Exception):
        _left.extend(_ends(*watched))  # the folder may be gone when the failure is reported
        raise
    finally:
        _watched.remove(watched)


def _ends(folder: Path, patterns: tuple[str, ...]) -> list[tuple[str, str]]:
    newest: list[Path] = []
    for pattern in patterns:
        found = [file for file in folder.glob(pattern) if file.stat().st_size]
        newest += sorted(found, key=lambda file: file.stat().st_mtime)[-_FILES:]
    return [(f"end of {file}", last_lines(file.read_text(errors="replace"))) for file in newest]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the ends of the logs into the report of a failure; a conftest.py imports this."""
    report = yield
    if report.failed:
        report.sections += _left + [end for watched in _watched for end in _ends(*watched)]
    _left.clear()
    return report
