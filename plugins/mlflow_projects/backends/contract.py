"""The contract of a backend: the place where an attempt's command runs.

An attempt knows these calls; a backend knows processes, or AWS. Whatever there is to decide is decided once, by
:meth:`Backend.prepare`, before anything is started. Jobs of a *durable* backend go on when the worker is gone: what
identifies a job, its handle, is known before it is submitted, so that any process can find, watch and stop it.

docs/backends.md shows how to write one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from mlflow_projects.exceptions import Cause
from mlflow_projects.project.cache import Cache
from mlflow_projects.project.command import Parameters
from mlflow_projects.project.spec import EntryPoint, Project


@dataclass(frozen=True)
class Job:
    """An attempt's command, checked.

    :param variables: for the command, on top of the worker's own
    :param workspace: a private folder of the attempt, gone when the attempt ends
    :param config: the operator's ``backend_config``
    :param label: what people call the attempt
    :param attempt_id: unique for each attempt
    :param task_key: of the task instance, the same for each of its attempts; safe as a file name
    :param checkpoint_days: when a durable backend may remove checkpoints of tasks that never succeeded
    :param redact: replaces known secrets in a text
    """

    project: Project
    entry_point: EntryPoint
    parameters: Parameters
    variables: Mapping[str, str] = field(repr=False)
    workspace: Path
    cache: Cache
    env_manager: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    attempt_id: str = ""
    task_key: str = ""
    checkpoint_days: float = 14.0
    redact: Callable[[str], str] = field(default=str, repr=False)


@dataclass(frozen=True)
class OpenRun:
    """What is known only when the attempt's MLflow run is open.

    :param variables: more of them for the command, the run's id among them
    :param artifact_uri: where the run keeps its artifacts
    :param checkpoint: a folder on this machine that outlives the attempt, until one succeeds
    """

    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    artifact_uri: str = ""
    checkpoint: Path | None = None


@dataclass(frozen=True)
class JobStatus:
    """Where a job stands.

    :param state: ``stopped`` means by somebody, or by a limit, before it could end by itself
    :param exit_code: of the command; 128 + n after signal n; None while it runs, or if nobody knows
    :param metrics: what the job cost, for the record
    :param tags: what became known of the job only when it ran, for the record
    :param cause: why it failed, if the backend knows that better than its exit status tells
    """

    state: Literal["running", "succeeded", "failed", "stopped"]
    exit_code: int | None = None
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    cause: Cause | None = None


@dataclass(frozen=True)
class News:
    """What is new of a job since the last look.

    :param lines: of its output, and of its states
    :param ended: whether it runs no more
    :param trouble: why it cannot be asked about; it goes on meanwhile
    """

    lines: tuple[str, ...] = ()
    ended: bool = False
    trouble: str = ""


# Of a handle's fields, as far as they are so plain.
_KINDS: Mapping[Any, Any] = {
    "str": str,
    "int": int,
    "float": (int, float),
    "bool": bool,
    "str | None": (str, type(None)),
}
HandleT = TypeVar("HandleT", bound="Handle")


@dataclass(frozen=True)
class Handle:
    """What identifies a durable job; small, and the same after a way through JSON.

    :param backend: the backend's name
    """

    backend: str

    def as_json(self) -> dict[str, Any]:
        """Return what tags, XComs and triggers can hold; no secret is in it."""
        return asdict(self)

    @classmethod
    def from_json(cls: type[HandleT], content: Mapping[str, Any]) -> HandleT:
        """Return the handle that :meth:`as_json` wrote.

        :raises TypeError: a field is missing, or of another type
        """
        found = {item.name: content[item.name] for item in fields(cls) if item.name in content}
        for item in fields(cls):
            kinds = _KINDS.get(getattr(item.type, "__name__", item.type))
            if kinds and not isinstance(found.get(item.name, item.default), kinds):
                raise TypeError(f"{item.name} is missing, or of another type")
        return cls(**found)


class Running(ABC):
    """A job that runs, seen from an attempt."""

    @abstractmethod
    def lines(self) -> Iterator[str]:
        """Yield the output's lines as they come, until the job ends or was cancelled.

        Whoever stops reading a job that is not durable ends it.
        """

    @abstractmethod
    def status(self) -> JobStatus:
        """Return where the job stands now."""

    @abstractmethod
    def cancel(self) -> None:
        """Ask for the job to be stopped and return at once; harmless when it already ended.

        Called from a signal handler too.
        """

    def finish_cancel(self, seconds: float) -> None:
        """Wait until what :meth:`cancel` asks for is said, but no longer than some seconds.

        Airflow's task process ends without waiting for threads, and the job would go on.
        """
        del seconds

    def last_lines(self, count: int) -> list[str]:  # noqa: ARG002
        """Return the last lines of the output of a job that ended, if they are still there."""
        return []

    def parameters(self) -> Mapping[str, str]:
        """Return the job's parameters as text, if they are kept beside it; else {}."""
        return {}

    def clear_checkpoint(self) -> None:
        """Remove what only another attempt would have needed.

        :raises StepFailedError: that cannot be done now
        """
        return


class Launch(ABC):
    """A job, all decided, that can be started.

    :param tags: what the record says of where the command runs
    :param starts_at_once: whether :meth:`start` takes no time, as it neither builds nor fetches anything
    """

    tags: Mapping[str, str]
    starts_at_once: bool = False

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """Return what the result depends on, besides the project's files and parameters, as JSON can hold it.

        :raises ProjectError: that cannot be found out
        :raises StepFailedError: not now
        """

    @abstractmethod
    def start(self, run: OpenRun, begun: Callable[[Running], None]) -> Running:
        """Start the job and return at once.

        An exception of a signal handler may end this anywhere before ``begun`` was called.

        :param begun: to be called as soon as there may be a job that can be cancelled; it may raise, too
        :raises ProjectError: another try cannot help
        :raises StepFailedError: it cannot be started now
        """


class DurableLaunch(Launch):
    """A launch of a :class:`DurableBackend`.

    :param handle: what the job will be known by
    :param job_tags: what the record says of the job, once it is to be started
    """

    handle: Handle
    job_tags: Mapping[str, str]

    @abstractmethod
    def postponed(self) -> DurableLaunch:
        """Return the same launch for a start that was waited for: the handle's time counts from now."""


@dataclass(frozen=True)
class Host:
    """What a backend knows of the process that it works in.

    :param log: takes a line about what the backend itself does
    :param aws_conn_id: Airflow connection for a backend on AWS
    :param poll_interval: seconds between two looks at a durable job
    """

    log: Callable[[str], None]
    aws_conn_id: str | None = None
    poll_interval: float = 10.0


class Backend(ABC):
    """A place where commands run.

    :cvar config_keys: the keys of ``backend_config`` that it knows
    :cvar is_durable: whether its jobs go on when the worker is gone; then it is a :class:`DurableBackend`
    """

    config_keys: ClassVar[Sequence[str]] = ()
    is_durable: ClassVar[bool] = False

    def __init__(self, host: Host) -> None:
        self.host = host

    @abstractmethod
    def prepare(self, job: Job) -> Launch:
        """Decide everything; start nothing.

        :raises ProjectError: with the remedy, for what this backend cannot run
        :raises StepFailedError: that cannot be told now
        """


class DurableBackend(Backend):
    """A backend whose jobs go on when the worker is gone.

    :cvar link_names: of the buttons that a task with such a job has
    :cvar handle_type: the class of its handles
    :cvar late_lines_seconds: how long after a job's end lines of its output may come
    """

    is_durable = True
    link_names: ClassVar[Sequence[str]] = ()
    handle_type: ClassVar[type[Handle]] = Handle
    late_lines_seconds: ClassVar[float] = 0.0

    @abstractmethod
    def attach(self, handle: Any) -> Running:
        """Return the job of a handle without asking whether it is there."""

    @abstractmethod
    def exists(self, handle: Any) -> bool:
        """Tell whether the job was ever submitted.

        :raises StepFailedError: that cannot be told now
        """

    def find(self, handle: Any) -> Running | None:
        """Return the job of a handle, from any process; None if it was never submitted."""
        return self.attach(handle) if self.exists(handle) else None

    @abstractmethod
    def stop(self, handle: Any) -> None:
        """Stop the job and return when that is asked for; harmless when it already ended."""

    @abstractmethod
    def deadline(self, handle: Any) -> float:
        """Return when the job is given up: seconds since 1970."""

    def links(self, handle: Any) -> Mapping[str, str]:  # noqa: ARG002
        """Return the address of each button of :attr:`link_names`."""
        return {}

    def group(self, handle: Any) -> Hashable:  # noqa: ARG002
        """Return what jobs have in common that can be asked about together."""
        return None

    @abstractmethod
    def poll_many(self, handles: Sequence[Any]) -> Sequence[News]:
        """Return what is new of each job of a group, in few calls; the backend remembers what it told.

        The first news of a job that has ended say so. Called in a thread, never twice at a time.
        """
