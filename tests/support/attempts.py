"""The life of an attempt without a server: on a client in memory, with real processes or jobs in memory."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from mlflow_projects.backends.base import Handle, Job, JobStatus
from mlflow_projects.backends.checkpoints import CheckpointSettings
from mlflow_projects.operators.attempt import Attempt, Step
from mlflow_projects.operators.reuse import Reuse
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
    opened: list[tuple[str, Handle]] = field(default_factory=list)

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


class MemoryJobs:
    """A remote backend whose jobs are entries of a dictionary; any number of processes could have submitted them.

    :param before: called with a call's name before it is done; may raise, as AWS may
    :param lines: of each job's output
    :param more: what else its handles hold
    """

    remote = True

    def __init__(
        self, before: Callable[[str], None] = lambda call: None, lines: tuple[str, ...] = (), **more: Any
    ) -> None:
        self.before, self.lines, self.more = before, lines, more
        self.calls: list[str] = []
        self.jobs: dict[str, JobStatus] = {}
        self.submitted: dict[str, Job] = {}
        self.ends_as = JobStatus("succeeded", 0)
        self.waited: list[float] = []
        self.planned = 0

    def check(self, job: Job) -> None:
        self._called("check")

    def environment(self, job: Job) -> Mapping[str, str]:
        return {"mlflow.project.env": "memory"}

    def identity(self, job: Job) -> Mapping[str, Any]:
        return {"image": "memory:1"}

    def plan(self, job: Job) -> Handle:
        self._called("plan")
        self.planned += 1
        return self._handle()

    def stage(self, job: Job) -> None:
        self._called("stage")

    def submit(self, job: Job) -> Handle:
        self._called("submit")
        handle = self._handle()
        self.jobs[handle["name"]] = JobStatus("running")
        self.submitted[handle["name"]] = job
        return handle

    def poll(self, handle: Handle) -> JobStatus:
        self._called("poll")
        return self.jobs[handle["name"]]

    def cancel(self, handle: Handle) -> None:
        self._called(f"cancel {handle['name']}")

    def logs(self, handle: Handle) -> Iterator[str]:
        self._called("logs")
        yield from self.lines
        self.jobs[handle["name"]] = self.ends_as

    def exists(self, handle: Handle) -> bool:
        return handle["name"] in self.jobs

    def parameters(self, handle: Handle) -> Mapping[str, str]:
        job = self.submitted.get(handle["name"])
        return job.parameters.as_record() if job else {}

    def stop(self, handle: Handle) -> None:
        self._called(f"stop {handle['name']}")

    def finish_cancel(self, seconds: float) -> None:
        self.waited.append(seconds)

    def clear_checkpoint(self, handle: Handle) -> None:
        self._called(f"clear_checkpoint {handle['name']}")

    def last_lines(self, handle: Handle, count: int) -> list[str]:
        self._called("last_lines")
        return list(self.lines[-count:])

    def tags(self, handle: Handle) -> Mapping[str, str]:
        return {"memory.job": handle["name"]}

    def _handle(self) -> Handle:
        return {"backend": "memory", "name": f"job-{self.planned}", **self.more}

    def _called(self, call: str) -> None:
        self.calls.append(call)
        self.before(call)
