"""The life of an attempt without a server: on a client in memory, with real processes or jobs in memory."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest

from mlflow_projects.attempt.checkpoint import CheckpointSettings
from mlflow_projects.attempt.life import Attempt
from mlflow_projects.attempt.reuse import Reuse
from mlflow_projects.attempt.step import Step
from mlflow_projects.backends import registry
from mlflow_projects.backends.contract import (
    DurableBackend,
    DurableLaunch,
    Handle,
    Host,
    Job,
    JobStatus,
    Launch,
    News,
    OpenRun,
    Running,
)  # fmt: skip
from mlflow_projects.project.cache import Cache
from mlflow_projects.tracking.client import Run
from mlflow_projects.tracking.record import TaskIdentity
from tests.support.memory_tracking import MemoryClient
from tests.support.waiting import wait

SECRET = "s3cr3t-of-the-connection"
SHELL = Path(__file__).resolve().parents[1] / "projects" / "shell"
TASK = TaskIdentity("dag", "manual__1", "group.step", 2, "attempt-1", url="http://airflow.test/step")


@dataclass
class Life:
    """An attempt to live, and all that others see of it.

    :param on_line: called with each line of the log, in the attempt's own thread
    """

    folder: Path
    client: MemoryClient = field(default_factory=MemoryClient)
    task: TaskIdentity = TASK
    on_line: Callable[[str], None] = lambda line: None
    log: list[str] = field(default_factory=list)
    opened: list[tuple[str, Handle | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.project = self.folder / "shell"  # in no repository: git has little to say
        shutil.copytree(SHELL, self.project)
        self.name = f"Entry point 'main' of {self.project}"

    def attempt(self, command: str = "true", *, reuse: str = "", keep: bool = False, **step: Any) -> Attempt:
        """Return an attempt at a shell's command, or at what ``step`` says.

        :param reuse: "", "look" or "wait"
        :param keep: whether there are checkpoints
        """
        values: dict[str, Any] = {
            "uri": str(self.project),
            "entry_point": "main",
            "version": None,
            "parameters": {"command": command},
            "backend": "local",
            "backend_config": {},
            "env_manager": "local",
            "run_name": "step",
            "experiment_id": "0",
            "parent_run_id": None,
            **step,
        }
        made = Attempt(
            step=Step(**values),
            task=self.task,
            client=self.client,
            cache=Cache(self.folder / "cache"),
            log=self._take,
            redact=lambda text: text.replace(SECRET, "***"),
            on_open=lambda run, handle: self.opened.append((run.run_id, handle)),
            checkpoints=CheckpointSettings(str(self.folder / "checkpoints")) if keep else None,
        )
        if reuse:
            made.reuse = Reuse(self.client, self._take, self.task, True, reuse == "wait", lambda run: False)
        return made

    @property
    def runs(self) -> list[Run]:
        """Return all runs, the oldest first."""
        return self.client.runs

    @property
    def only_run(self) -> Run:
        """Return the run of the one attempt that there was."""
        (run,) = self.runs
        return run

    def _take(self, line: str) -> None:
        self.log.append(line)
        self.on_line(line)


def wait_until_gone(*numbers: int) -> None:
    """Wait for the end of processes; one that has ended may stay a zombie until its parent looks."""
    wait(lambda: not any(_is_alive(number) for number in numbers), f"the end of the processes {numbers}")


def _is_alive(number: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    return False


@dataclass(frozen=True)
class MemoryHandle(Handle):
    """What identifies a job in memory."""

    name: str
    submitted: float = 1000.0
    deadline_seconds: int = 600


class MemoryJobs:
    """A durable backend's jobs, entries of a dictionary; any number of processes could have submitted them.

    :param before: called with a call's name before it is done; may raise, as AWS may
    :param lines: of each job's output
    """

    def __init__(self, before: Callable[[str], None] = lambda call: None, lines: tuple[str, ...] = ()) -> None:
        self.before, self.lines = before, lines
        self.calls: list[str] = []
        self.jobs: dict[str, JobStatus] = {}
        self.submitted: dict[str, tuple[Job, OpenRun]] = {}
        self.hosts: list[Host] = []
        self.ends_as = JobStatus("succeeded", 0)
        self.waited: list[float] = []
        self.kept_parameters: dict[str, str] = {}
        self.planned = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> MemoryJobs:
        """Make this the backend ``memory`` of a test."""
        monkeypatch.setattr(MemoryBackend, "jobs", self, raising=False)
        monkeypatch.setitem(registry.OWN, "memory", f"{__name__}:MemoryBackend")
        return self

    def new_handle(self) -> MemoryHandle:
        self.planned += 1
        return MemoryHandle("memory", f"job-{self.planned}")

    def called(self, call: str) -> None:
        self.calls.append(call)
        self.before(call)


@dataclass
class MemoryLaunch(DurableLaunch):
    jobs: MemoryJobs
    job: Job
    handle: MemoryHandle

    def __post_init__(self) -> None:
        self.tags = {"mlflow.project.env": "memory"}
        self.job_tags = {"memory.job": self.handle.name}

    def identity(self) -> Mapping[str, Any]:
        return {"image": "memory:1"}

    def postponed(self) -> MemoryLaunch:
        return MemoryLaunch(self.jobs, self.job, self.jobs.new_handle())

    def start(self, run: OpenRun, begun: Callable[[Running], None]) -> Running:
        self.jobs.called("stage")
        running = MemoryJob(self.jobs, self.handle)
        begun(running)
        self.jobs.called("submit")
        self.jobs.jobs[self.handle.name] = JobStatus("running")
        self.jobs.submitted[self.handle.name] = self.job, run
        return running


@dataclass
class MemoryJob(Running):
    jobs: MemoryJobs
    handle: MemoryHandle

    def lines(self) -> Iterator[str]:
        self.jobs.called("lines")
        yield from self.jobs.lines
        self.jobs.jobs[self.handle.name] = self.jobs.ends_as

    def status(self) -> JobStatus:
        self.jobs.called("status")
        return self.jobs.jobs[self.handle.name]

    def cancel(self) -> None:
        self.jobs.called(f"cancel {self.handle.name}")

    def finish_cancel(self, seconds: float) -> None:
        self.jobs.waited.append(seconds)

    def last_lines(self, count: int) -> list[str]:
        self.jobs.called("last_lines")
        return list(self.jobs.lines[-count:])

    def parameters(self) -> Mapping[str, str]:
        return self.jobs.kept_parameters

    def clear_checkpoint(self) -> None:
        self.jobs.called(f"clear_checkpoint {self.handle.name}")


class MemoryBackend(DurableBackend):
    """See :class:`MemoryJobs`."""

    jobs: ClassVar[MemoryJobs]
    handle_type: ClassVar = MemoryHandle
    link_names: ClassVar = ("Memory job",)

    def prepare(self, job: Job) -> Launch:
        self.jobs.hosts.append(self.host)
        self.jobs.called("prepare")
        return MemoryLaunch(self.jobs, job, self.jobs.new_handle())

    def attach(self, handle: MemoryHandle) -> Running:
        return MemoryJob(self.jobs, handle)

    def exists(self, handle: MemoryHandle) -> bool:
        return handle.name in self.jobs.jobs

    def stop(self, handle: MemoryHandle) -> None:
        self.host.log("asked")
        self.jobs.called(f"stop {handle.name}")

    def deadline(self, handle: MemoryHandle) -> float:
        return handle.submitted + handle.deadline_seconds

    def links(self, handle: MemoryHandle) -> Mapping[str, str]:
        return {"Memory job": f"http://memory.test/{handle.name}"}

    def poll_many(self, handles: Sequence[MemoryHandle]) -> Sequence[News]:
        self.jobs.called("poll_many")
        return [News(ended=self.jobs.jobs[handle.name].state != "running") for handle in handles]
