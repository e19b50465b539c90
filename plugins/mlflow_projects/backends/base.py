"""What a backend is: the place where an attempt's command runs.

An operator knows the life of an attempt and these calls; a backend knows processes, or AWS. A new backend
is one new file and one line in :func:`backend_named`.

The job of a *remote* backend goes on when the worker is gone. So what identifies it, its handle, is known
before it is submitted, and any process can poll, cancel or follow it later.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.cache import Cache
from mlflow_projects.project.command import Parameters
from mlflow_projects.project.spec import EntryPoint, Project
from mlflow_projects.tracking.client import Run
from mlflow_projects.tracking.record import JOB

Handle = dict[str, Any]
BACKENDS = ("local", "sagemaker")
REMOTE_BACKENDS = ("sagemaker",)


@dataclass(frozen=True)
class Job:
    """An attempt's command, checked and ready to be submitted.

    :param environment: variables for the command, on top of the worker's own
    :param workspace: a private folder of the attempt, gone when the attempt ends
    :param config: the operator's ``backend_config``
    :param label: what people call the attempt
    :param attempt_id: unique for each attempt
    :param task_key: of the task instance, the same for each of its attempts; safe as a file name
    :param artifact_uri: where the attempt's MLflow run keeps its artifacts; "" before it is open
    :param checkpoint: a folder on this machine that outlives the attempt, until one succeeds
    :param checkpoint_days: when a remote backend may remove checkpoints of tasks that never succeeded
    :param redact: replaces known secrets in a text
    """

    project: Project
    entry_point: EntryPoint
    parameters: Parameters
    environment: Mapping[str, str] = field(repr=False)
    workspace: Path
    cache: Cache
    env_manager: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    attempt_id: str = ""
    task_key: str = ""
    artifact_uri: str = ""
    checkpoint: Path | None = None
    checkpoint_days: float = 14.0
    redact: Callable[[str], str] = field(default=str, repr=False)


@dataclass(frozen=True)
class JobStatus:
    """Where a job stands.

    :param state: ``stopped`` means by somebody, or by a limit, before it could end by itself
    :param exit_code: of the command; 128 + n after signal n; None while it runs, or if nobody knows
    :param metrics: what the job cost, for the record
    :param tags: what became known of the job only when it ran, for the record
    """

    state: Literal["running", "succeeded", "failed", "stopped"]
    exit_code: int | None = None
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


class Backend(Protocol):
    """Submit a job, then ask and cancel by its handle, which is small and survives as JSON.

    :param remote: whether jobs go on without this process
    """

    remote: bool

    def check(self, job: Job) -> None:
        """Refuse, before anything is started, what this backend cannot run.

        :raises ProjectError: with the remedy
        """

    def environment(self, job: Job) -> Mapping[str, str]:
        """Return the tags that say in which environment the command runs."""

    def identity(self, job: Job) -> Mapping[str, Any]:
        """Return what the result depends on, besides the project's files and parameters, as JSON can hold it.

        :raises ProjectError: that cannot be found out
        :raises StepFailedError: not now
        """

    def plan(self, job: Job) -> Handle:
        """Return the handle that the job will have; {} if only :meth:`submit` can tell."""

    def submit(self, job: Job) -> Handle:
        """Start the job and return at once."""

    def poll(self, handle: Handle) -> JobStatus:
        """Return where the job stands now."""

    def cancel(self, handle: Handle) -> None:
        """Ask for the job to be stopped and return at once; harmless when it already ended."""

    def logs(self, handle: Handle) -> Iterator[str]:
        """Yield the output's lines as they come, until the job ends or was cancelled."""


class RemoteBackend(Backend, Protocol):
    """A backend whose jobs go on when the worker is gone."""

    def stage(self, job: Job) -> None:
        """Do what takes long before :meth:`submit`; an exception of a signal handler may end it anywhere."""

    def exists(self, handle: Handle) -> bool:
        """Tell whether the job was ever submitted."""

    def parameters(self, handle: Handle) -> Mapping[str, str]:
        """Return the job's parameters as text, as :meth:`Parameters.as_record` does."""

    def stop(self, handle: Handle) -> None:
        """Stop the job and return when that is asked for; harmless when it already ended."""

    def finish_cancel(self, seconds: float) -> None:
        """Wait until what :meth:`cancel` asks for is said, but no longer than some seconds.

        Airflow's task process ends without waiting for threads, and the job would go on.
        """

    def clear_checkpoint(self, handle: Handle) -> None:
        """Remove what only another attempt would have needed.

        :raises StepFailedError: that cannot be done now
        """

    def last_lines(self, handle: Handle, count: int) -> list[str]:
        """Return the last lines of the output."""

    def tags(self, handle: Handle) -> Mapping[str, str]:
        """Return what the MLflow run says of the job."""


def backend_named(
    name: str, log: Callable[[str], None], *, aws_conn_id: str | None = None, poll_interval: float = 10.0
) -> Backend:
    """Return the backend of that name.

    :param log: takes a line about what the backend itself does
    :param aws_conn_id: Airflow connection for a backend on AWS
    :param poll_interval: seconds between two looks at a remote job
    :raises ProjectError: there is no such backend
    """
    if name == "local":
        from mlflow_projects.backends.local import LocalBackend

        return LocalBackend(log)
    if name == "sagemaker":
        from mlflow_projects.backends.sagemaker import SageMakerBackend

        return SageMakerBackend(log, aws_conn_id, poll_interval)
    raise ProjectError(f"There is no backend {name!r}; use one of: {', '.join(BACKENDS)}.")


def stop_job_of(run: Run, log: Callable[[str], None]) -> None:
    """Stop the job outside that a run's tags name; without one, do nothing."""
    if not (text := run.tags.get(JOB)):
        return
    try:
        handle = json.loads(text)
        backend = backend_named(handle["backend"], log, aws_conn_id=handle.get("aws_conn_id"))
        cast(RemoteBackend, backend).stop(handle)
    except Exception as error:  # whatever keeps us from stopping it, the runs must be closed
        log(f"The job of run {run.run_id} cannot be stopped: {error}")


def job_exists(handle: Handle, log: Callable[[str], None]) -> bool:
    """Tell whether the job of a handle was ever submitted."""
    backend = backend_named(handle["backend"], log, aws_conn_id=handle.get("aws_conn_id"))
    return cast(RemoteBackend, backend).exists(handle)


def check_config_keys(config: Mapping[str, Any]) -> None:
    """Refuse a key of ``backend_config`` that no backend knows.

    A key of another backend is fine: the same DAG runs here or there.
    """
    if not config:
        return  # as in most steps: what other backends know takes a tenth of a step's overhead to load
    from mlflow_projects.backends import container
    from mlflow_projects.backends.sagemaker import settings

    known = ("grace_seconds", *container.CONFIG_KEYS, *settings.CONFIG_KEYS)
    if unknown := sorted(set(map(str, config)) - set(known)):
        raise ProjectError(
            f"backend_config has the unknown key {unknown[0]!r}; known are: {', '.join(sorted(known))}."
        )
