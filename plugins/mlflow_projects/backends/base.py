"""What a backend is: the place where an attempt's command runs.

An operator knows the life of an attempt and these four calls; a backend knows processes, or AWS, and
nothing of Airflow. A new backend is one new file and one line in :func:`backend_named`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.cache import Cache
from mlflow_projects.project.command import Parameters
from mlflow_projects.project.spec import EntryPoint, Project

Handle = dict[str, Any]
BACKENDS = ("local",)


@dataclass(frozen=True)
class Job:
    """An attempt's command, checked and ready to be submitted.

    :param environment: variables for the command, on top of the worker's own
    :param workspace: a private folder of the attempt, gone when the attempt ends
    :param config: the operator's ``backend_config``
    """

    project: Project
    entry_point: EntryPoint
    parameters: Parameters
    environment: Mapping[str, str] = field(repr=False)
    workspace: Path
    cache: Cache
    env_manager: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class JobStatus:
    """Where a job stands.

    :param exit_code: of the command; 128 + n after signal n; None while it runs
    """

    state: Literal["running", "succeeded", "failed"]
    exit_code: int | None = None
    reason: str = ""


class Backend(Protocol):
    """Submit a job, then ask and cancel by its handle, which is small and survives as JSON."""

    def check(self, job: Job) -> None:
        """Refuse, before anything is started, what this backend cannot run.

        :raises ProjectError: with the remedy
        """

    def submit(self, job: Job) -> Handle:
        """Start the job and return at once."""

    def poll(self, handle: Handle) -> JobStatus:
        """Return where the job stands now."""

    def cancel(self, handle: Handle) -> None:
        """Ask for the job to be stopped and return at once; harmless when it already ended."""

    def logs(self, handle: Handle) -> Iterator[str]:
        """Yield the output's lines as they come, until the job ends."""


def backend_named(name: str, log: Callable[[str], None]) -> Backend:
    """Return the backend of that name.

    :param log: takes a line about what the backend itself does
    :raises ProjectError: there is no such backend
    """
    if name == "local":
        from mlflow_projects.backends.local import LocalBackend

        return LocalBackend(log)
    raise ProjectError(f"There is no backend {name!r}; use one of: {', '.join(BACKENDS)}.")
