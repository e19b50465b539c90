"""A command as a process tree on the worker."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlflow_projects.backends.contract import Job, JobStatus, Launch, OpenRun, Running
from mlflow_projects.backends.local.environments import EnvironmentBuilder, environment_identity
from mlflow_projects.backends.local.path_download import downloader
from mlflow_projects.backends.local.process import ProcessTree
from mlflow_projects.backends.local.settings import LocalSettings
from mlflow_projects.backends.local.withheld_variables import worker_variables
from mlflow_projects.project.command import build_command, check_length


@dataclass
class ProcessLaunch(Launch):
    """A command that is to run in a Python environment of this worker."""

    job: Job
    settings: LocalSettings
    manager: str
    log: Callable[[str], None]

    def __post_init__(self) -> None:
        self.tags = {"mlflow.project.env": self.manager}  # MLflow's own
        types = {parameter.type for parameter in self.job.entry_point.parameters.values()}
        self.starts_at_once = self.manager == "local" and "path" not in types  # which may have to be downloaded

    def identity(self) -> Mapping[str, Any]:
        """Return what the Python environment is made from."""
        return environment_identity(self.job.project, self.manager)

    def start(self, run: OpenRun, begun: Callable[[Running], None]) -> Running:
        """Build the environment if need be, then start the command."""
        job = self.job
        # Unbuffered, else output arrives in blocks, at the end.
        variables = {"PYTHONUNBUFFERED": "1", **worker_variables(os.environ), **job.variables, **run.variables}
        builder = EnvironmentBuilder(job.cache, variables, self.log, self.settings)
        with contextlib.ExitStack() as in_use:
            activation = in_use.enter_context(builder.activation(job.project, self.manager))
            # By the worker's own Python, for which the environment's variables (LD_PRELOAD) are not meant.
            download = downloader(job, dict(variables))
            variables.update(activation.variables)
            command = activation.prefix + build_command(job.project, job.entry_point, job.parameters, download)
            check_length(job.entry_point, command)
            self.log(f"Running: {command}")
            tree = ProcessTree(
                ["bash", "-c", command],
                cwd=job.project.root,
                environment=variables,
                grace=self.settings.grace_seconds,
            )
            running = RunningProcess(tree, in_use.pop_all())
        begun(running)
        return running


@dataclass
class RunningProcess(Running):
    """A command on this worker.

    :param in_use: what it needs and nobody may remove meanwhile, such as its Python environment
    """

    tree: ProcessTree
    in_use: contextlib.ExitStack

    def lines(self) -> Iterator[str]:
        """Yield the command's lines; whatever ends the reading early ends the command too."""
        with self.in_use, self.tree:
            yield from self.tree.lines()

    def status(self) -> JobStatus:
        """Return where the command stands."""
        return status_of(self.tree)

    def cancel(self) -> None:
        """Stop the whole process tree; SIGKILL follows on its own, even if this process dies first."""
        self.tree.stop()


def status_of(tree: ProcessTree, trouble: str = "", tags: Mapping[str, str] | None = None) -> JobStatus:
    """Return where a command stands.

    :param trouble: why it failed, if its exit status does not tell
    """
    code = tree.returncode
    if code is None:
        return JobStatus("running")
    if code == 0:
        return JobStatus("succeeded", 0, tags=tags or {})
    return JobStatus("failed", code, trouble or _explain(code), tags=tags or {})


def _explain(code: int) -> str:
    meanings = {126: "the command cannot be executed", 127: "a program of the command was not found"}
    if code in meanings:
        return f"exit status {code}: {meanings[code]}"
    if code > 128:
        hint = ", often for want of memory" if code == 137 else ""
        return f"exit status {code}: ended by signal {code - 128}{hint}"
    return f"exit status {code}"
