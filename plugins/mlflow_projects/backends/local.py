"""The local backend: the command is a process tree on the worker."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow_projects.backends.base import Handle, Job, JobStatus, check_config_keys
from mlflow_projects.backends.environments import (
    ENV_MANAGERS,
    Activation,
    EnvironmentBuilder,
    choose_env_manager,
    find_conda,
)
from mlflow_projects.backends.process import DEFAULT_GRACE, ProcessTree
from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.command import build_command

# Airflow's own secrets and the channel to its supervisor are none of the project's business (the context
# variables AIRFLOW_CTX_… are); where to track is the attempt's to say, not the worker's.
_WITHHELD = re.compile(r"_*AIRFLOW_(?!CTX_)|MLFLOW_(TRACKING_|RUN_|EXPERIMENT_)")
_MAX_ARGUMENT = 128 * 1024  # Linux: one argument of a program (MAX_ARG_STRLEN)


class LocalBackend:
    """Runs commands below this process.

    ``backend_config`` may hold ``grace_seconds``: the time between SIGTERM and SIGKILL (default 3; Airflow
    itself gives a task 5 seconds).

    :param log: takes a line about an environment that is built, for example
    """

    remote = False

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._trees: dict[int, ProcessTree] = {}
        self._in_use: dict[int, contextlib.ExitStack] = {}  # environments that must not be evicted

    def check(self, job: Job) -> None:
        """Refuse what cannot run here, before anything is started."""
        check_config_keys(job.config)
        if job.project.environment == "docker_env":
            raise ProjectError(
                f"{job.project.file}: 'docker_env' is not supported by this version's local backend; declare "
                "'python_env' instead."
            )
        if job.env_manager is not None and job.env_manager not in ENV_MANAGERS:
            raise ProjectError(f"There is no env_manager {job.env_manager!r}; use one of: {', '.join(ENV_MANAGERS)}.")
        if choose_env_manager(job.project, job.env_manager) == "conda":
            find_conda(os.environ.get("PATH"))
        _grace(job.config)

    def plan(self, job: Job) -> Handle:  # noqa: ARG002
        """Return {}: a process is not known before it runs, and ends with its task."""
        return {}

    def submit(self, job: Job) -> Handle:
        """Build the environment if need be, then start the command."""
        environment = inherited_environment(os.environ)
        environment.update(job.environment)
        environment.setdefault("PYTHONUNBUFFERED", "1")  # else output arrives in blocks, at the end
        manager = choose_env_manager(job.project, job.env_manager)
        builder = EnvironmentBuilder(job.cache, environment, self._log)
        with contextlib.ExitStack() as in_use:
            activation = in_use.enter_context(builder.activation(job.project, manager))
            tree = self._start(job, environment, activation)
            self._trees[tree.pid] = tree
            self._in_use[tree.pid] = in_use.pop_all()
        return {"backend": "local", "host": socket.gethostname(), "pid": tree.pid}

    def _start(self, job: Job, environment: dict[str, str], activation: Activation) -> ProcessTree:
        environment.update(activation.variables)
        command = activation.prefix + build_command(
            job.project,
            job.entry_point,
            job.parameters,
            lambda uri, folder: _download(uri, job.workspace / folder, environment),
        )
        if len(command.encode()) >= _MAX_ARGUMENT:
            raise ProjectError(
                f"The command of entry point {job.entry_point.name!r} has {len(command.encode())} bytes; Linux "
                f"takes at most {_MAX_ARGUMENT}. Put long values into a file and pass its path."
            )
        self._log(f"Running: {command}")
        return ProcessTree(
            ["bash", "-c", command],
            cwd=job.project.root,
            environment=environment,
            grace=_grace(job.config),
        )

    def poll(self, handle: Handle) -> JobStatus:
        """Return where the command stands."""
        code = self._trees[handle["pid"]].returncode
        if code is None:
            return JobStatus("running")
        if code == 0:
            return JobStatus("succeeded", 0)
        return JobStatus("failed", code, _explain(code))

    def cancel(self, handle: Handle) -> None:
        """Stop the whole process tree; SIGKILL follows on its own, even if this process dies first."""
        if tree := self._trees.get(handle["pid"]):
            tree.stop()

    def logs(self, handle: Handle) -> Iterator[str]:
        """Yield the command's lines; whatever ends the reading early ends the command too."""
        with self._in_use.pop(handle["pid"]), self._trees[handle["pid"]] as tree:
            yield from tree.lines()


def inherited_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without Airflow's own secrets."""
    return {name: value for name, value in environment.items() if not _WITHHELD.match(name)}


def _grace(config: Mapping[str, Any]) -> float:
    value = config.get("grace_seconds", DEFAULT_GRACE)
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        raise ProjectError(f"backend_config: 'grace_seconds' must be a number from 0 to 3600, not {value!r}.")
    return seconds


def _download(uri: str, folder: Path, environment: Mapping[str, str]) -> str:
    """Fetch a remote ``path`` value as MLflow does, in a process of its own: mlflow is heavy."""
    folder.mkdir()
    script = (
        "import sys, mlflow.artifacts as a\n"
        "print(a.download_artifacts(artifact_uri=sys.argv[1], dst_path=sys.argv[2]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, uri, str(folder)],
        env=dict(environment),
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
