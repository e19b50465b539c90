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
from mlflow_projects.backends.container import (
    StartedContainer,
    check_container,
    image_identity,
    image_of,
    start_container,
)
from mlflow_projects.backends.environments import (
    ENV_MANAGERS,
    Activation,
    EnvironmentBuilder,
    choose_env_manager,
    environment_identity,
    find_conda,
)
from mlflow_projects.backends.process import DEFAULT_GRACE, ProcessTree
from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.command import build_command, check_length

# Airflow's own secrets and the channel to its supervisor are none of the project's business (the context
# variables AIRFLOW_CTX_… are); where to track is the attempt's to say, not the worker's.
_WITHHELD = re.compile(r"_*AIRFLOW_(?!CTX_)|MLFLOW_(TRACKING_|RUN_|EXPERIMENT_)")


class LocalBackend:
    """Runs commands below this process, or in a container of this machine's engine.

    ``backend_config`` may hold ``grace_seconds``: the time between SIGTERM and SIGKILL (default 3; Airflow
    itself gives a task 5 seconds), and the keys ``docker_…`` (see :mod:`mlflow_projects.backends.container`).

    :param log: takes a line about an environment that is built, for example
    """

    remote = False

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._trees: dict[int, ProcessTree] = {}
        self._containers: dict[int, StartedContainer] = {}
        self._in_use: dict[int, contextlib.ExitStack] = {}  # environments that must not be evicted

    def check(self, job: Job) -> None:
        """Refuse what cannot run here, before anything is started."""
        check_config_keys(job.config)
        _grace(job.config)
        if image_of(job.project, job.config):
            check_container(job, inherited_environment(os.environ))
            return
        if job.env_manager is not None and job.env_manager not in ENV_MANAGERS:
            raise ProjectError(f"There is no env_manager {job.env_manager!r}; use one of: {', '.join(ENV_MANAGERS)}.")
        if choose_env_manager(job.project, job.env_manager) == "conda":
            find_conda(os.environ.get("PATH"))

    def environment(self, job: Job) -> Mapping[str, str]:
        """Return MLflow's own tags for this."""
        if image := image_of(job.project, job.config):
            return {"mlflow.project.env": "docker", "mlflow.docker.image.uri": image}
        return {"mlflow.project.env": choose_env_manager(job.project, job.env_manager)}

    def identity(self, job: Job) -> Mapping[str, Any]:
        """Return the image's id, or what the Python environment is made from; an image that is missing is pulled."""
        if image := image_of(job.project, job.config):
            return {"image": image_identity(image, self._log), "gpus": str(job.config.get("docker_gpus") or "")}
        return environment_identity(job.project, choose_env_manager(job.project, job.env_manager))

    def plan(self, job: Job) -> Handle:  # noqa: ARG002
        """Return {}: a process is not known before it runs, and ends with its task."""
        return {}

    def submit(self, job: Job) -> Handle:
        """Build the environment if need be, or pull the image, then start the command."""
        environment = inherited_environment(os.environ)
        environment.update(job.environment)
        if image_of(job.project, job.config):
            return self._submit_container(job, environment)
        environment.setdefault("PYTHONUNBUFFERED", "1")  # else output arrives in blocks, at the end
        manager = choose_env_manager(job.project, job.env_manager)
        builder = EnvironmentBuilder(job.cache, environment, self._log)
        with contextlib.ExitStack() as in_use:
            activation = in_use.enter_context(builder.activation(job.project, manager))
            tree = self._start(job, environment, activation)
            self._trees[tree.pid] = tree
            self._in_use[tree.pid] = in_use.pop_all()
        return _handle(tree)

    def _submit_container(self, job: Job, environment: dict[str, str]) -> Handle:
        download = _downloader(job, environment)
        container = start_container(job, environment, download, _grace(job.config), self._log)
        self._trees[container.tree.pid] = container.tree
        self._containers[container.tree.pid] = container
        return _handle(container.tree)

    def _start(self, job: Job, environment: dict[str, str], activation: Activation) -> ProcessTree:
        environment.update(activation.variables)
        command = activation.prefix + build_command(
            job.project,
            job.entry_point,
            job.parameters,
            _downloader(job, environment),
        )
        check_length(job.entry_point, command)
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
        container = self._containers.get(handle["pid"])
        tags = container.tags if container else {}
        if code is None:
            return JobStatus("running")
        if code == 0:
            return JobStatus("succeeded", 0, tags=tags)
        return JobStatus("failed", code, (container and container.trouble) or _explain(code), tags=tags)

    def cancel(self, handle: Handle) -> None:
        """Stop the whole process tree; SIGKILL follows on its own, even if this process dies first."""
        if tree := self._trees.get(handle["pid"]):
            tree.stop()

    def logs(self, handle: Handle) -> Iterator[str]:
        """Yield the command's lines; whatever ends the reading early ends the command too."""
        with contextlib.ExitStack() as stack:
            if container := self._containers.get(handle["pid"]):
                stack.callback(container.ensure_removed)
            stack.enter_context(self._in_use.pop(handle["pid"], contextlib.ExitStack()))
            tree = stack.enter_context(self._trees[handle["pid"]])
            yield from tree.lines()


def inherited_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without Airflow's own secrets."""
    return {name: value for name, value in environment.items() if not _WITHHELD.match(name)}


def _handle(tree: ProcessTree) -> Handle:
    return {"backend": "local", "host": socket.gethostname(), "pid": tree.pid}


def _grace(config: Mapping[str, Any]) -> float:
    value = config.get("grace_seconds", DEFAULT_GRACE)
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        raise ProjectError(f"backend_config: 'grace_seconds' must be a number from 0 to 3600, not {value!r}.")
    return seconds


def _downloader(job: Job, environment: Mapping[str, str]) -> Callable[[str, str], str]:
    return lambda uri, folder: _download(uri, job.workspace / folder, environment)


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
