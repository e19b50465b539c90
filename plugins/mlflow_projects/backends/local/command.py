"""A command as a process tree on the worker."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_projects.backends.contract import Job, JobStatus, Launch, OpenRun, Running
from mlflow_projects.backends.local.environments import EnvironmentBuilder, environment_identity
from mlflow_projects.backends.local.process import ProcessTree
from mlflow_projects.backends.local.settings import LocalSettings
from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.command import build_command, check_length

# Airflow's own secrets and the channel to its supervisor are none of the project's business (the context
# variables AIRFLOW_CTX_… are); where to track is the attempt's to say, not the worker's.
_WITHHELD = re.compile(r"_*AIRFLOW_(?!CTX_)|MLFLOW_(TRACKING_|RUN_|EXPERIMENT_)")


@dataclass
class ProcessLaunch(Launch):
    """A command that is to run in a Python environment of this worker."""

    job: Job
    settings: LocalSettings
    manager: str
    log: Callable[[str], None]

    def __post_init__(self) -> None:
        self.tags = {"mlflow.project.env": self.manager}  # MLflow's own

    def identity(self) -> Mapping[str, Any]:
        """Return what the Python environment is made from."""
        return environment_identity(self.job.project, self.manager)

    def start(self, run: OpenRun, begun: Callable[[Running], None]) -> Running:
        """Build the environment if need be, then start the command."""
        job = self.job
        # Unbuffered, else output arrives in blocks, at the end.
        variables = {"PYTHONUNBUFFERED": "1", **worker_variables(os.environ), **job.variables, **run.variables}
        builder = EnvironmentBuilder(job.cache, variables, self.log)
        with contextlib.ExitStack() as in_use:
            activation = in_use.enter_context(builder.activation(job.project, self.manager))
            variables.update(activation.variables)
            download = downloader(job, variables)
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


def worker_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the worker's variables without Airflow's own secrets."""
    return {name: value for name, value in environment.items() if not _WITHHELD.match(name)}


def downloader(job: Job, variables: Mapping[str, str]) -> Callable[[str, str], str]:
    """Return what fetches a remote ``path`` value, see :func:`build_command`."""
    return lambda uri, folder: _download(uri, job.workspace / folder, variables)


def _download(uri: str, folder: Path, variables: Mapping[str, str]) -> str:
    """Fetch a remote ``path`` value as MLflow does, in a process of its own: mlflow is heavy."""
    folder.mkdir()
    script = (
        "import sys, mlflow.artifacts as a\n"
        "print(a.download_artifacts(artifact_uri=sys.argv[1], dst_path=sys.argv[2]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, uri, str(folder)],
        env=dict(variables),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ProjectError(f"The 'path' value {uri!r} cannot be downloaded: {reason}")
    return done.stdout.strip().splitlines()[-1]


def _explain(code: int) -> str:
    meanings = {126: "the command cannot be executed", 127: "a program of the command was not found"}
    if code in meanings:
        return f"exit status {code}: {meanings[code]}"
    if code > 128:
        hint = ", often for want of memory" if code == 137 else ""
        return f"exit status {code}: ended by signal {code - 128}{hint}"
    return f"exit status {code}"
