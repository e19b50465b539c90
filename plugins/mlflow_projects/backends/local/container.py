"""A step in a container: what the container gets, decided before it starts.

MLflow builds an image with the project's files in it for each run, and leaves it behind
(``mlflow.projects.docker``). Here the project's folder is mounted where MLflow would have copied it, so
that nothing is built and nothing is left.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow_projects.backends.contract import Job, JobStatus, Launch, OpenRun, Running
from mlflow_projects.backends.local import engine
from mlflow_projects.backends.local.command import status_of
from mlflow_projects.backends.local.docker_env import Volumes, declared_variables, volumes_of
from mlflow_projects.backends.local.path_download import downloader
from mlflow_projects.backends.local.process import ProcessTree
from mlflow_projects.backends.local.settings import LocalSettings
from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.command import build_command, check_length
from mlflow_projects.project.paths import existing_path, exists, is_folder, local_path_of
from mlflow_projects.tracking.answers import json_object
from mlflow_projects.tracking.server import sqlite_file

PROJECT_FOLDER = "/mlflow/projects/code"  # mlflow.projects.utils.MLFLOW_DOCKER_WORKDIR_PATH
# Besides what the MLproject names, as MLflow does: how to reach artifacts, and which task this is.
_PASSED = re.compile(
    r"AIRFLOW_CTX_|MLFLOW_|AWS_|AZURE_STORAGE_|GOOGLE_APPLICATION_CREDENTIALS$|(https?|no|all)_proxy$", re.IGNORECASE
)
# Variables that name a file or folder, which the container then needs too.
_FILES = re.compile(r"(_CERT_PATH|_FILE|_CA_BUNDLE|_CREDENTIALS|_BUNDLE)$")
_STOP_SECONDS = 30.0  # for the engine to kill and remove a container, after the grace time
# What runs as the container's first process. Like the watchdog on the worker, it passes SIGTERM on to every
# process; as first process it would not even get it without a trap.
_SCRIPT = """\
trap 'kill -TERM -1' TERM INT
if command -v bash >/dev/null 2>&1; then bash -c "$1" & else sh -c "$1" & fi
child=$!
while :; do
  wait "$child"
  code=$?
  kill -0 "$child" 2>/dev/null || exit "$code"
done
"""


@dataclass(frozen=True)
class Mounts:
    """What of the worker a container sees.

    :param folders: {path in the container: (path on the worker, whether it is read-only)}
    """

    folders: dict[str, tuple[str, bool]] = field(default_factory=dict)

    def add(self, path: str | Path, *, read_only: bool, at: str = "") -> None:
        """Mount a path of the worker, at the same path by default; what may be written once stays so."""
        target = at or str(path)
        if self.folders.get(target, ("", True))[1]:
            self.folders[target] = (str(path), read_only)

    def as_list(self, volumes: Volumes) -> list[dict[str, Any]]:
        """Return the mounts as Docker's API takes them, outer folders first.

        :param volumes: the project's own; where one of them is, an engine takes no other mount
        """
        return [
            {"Type": "bind", "Target": target, "Source": source, "ReadOnly": read_only}
            for target, (source, read_only) in sorted(self.folders.items())
            if not volumes.covers(target)
        ]


@dataclass
class ContainerLaunch(Launch):
    """A command that is to run in a container of this worker's engine.

    :param worker: the worker's variables, without what is withheld
    :raises ProjectError: it cannot run there
    :raises StepFailedError: the engine does not answer now
    """

    job: Job
    settings: LocalSettings
    worker: Mapping[str, str]
    log: Callable[[str], None]

    def __post_init__(self) -> None:
        job, image = self.job, self.settings.docker_image
        if job.env_manager not in (None, "local"):
            raise ProjectError(
                f"This step runs in the image {image!r}, where env_manager {job.env_manager!r} means nothing; leave "
                "env_manager out, or the image."
            )
        environment = {**self.worker, **job.variables}
        declared_variables(job.project, environment)
        self.volumes = volumes_of(job.project, environment)
        self.tags = {"mlflow.project.env": "docker", "mlflow.docker.image.uri": image}  # MLflow's own
        with engine.connected(engine.engine_environment()) as client:
            client.ping()

    def identity(self) -> Mapping[str, Any]:
        """Return the image's id and the cards; an image that is missing is pulled."""
        return {"image": image_identity(self.settings.docker_image, self.log), "gpus": self.settings.docker_gpus}

    def start(self, run: OpenRun, begun: Callable[[Running], None]) -> Running:
        """Pull the image if need be, then start the container below a program of ours that holds it."""
        job, settings = self.job, self.settings
        environment = {**self.worker, **job.variables, **run.variables}
        mounts, root = Mounts(), job.project.root.resolve()
        if not self.volumes.covers(PROJECT_FOLDER):  # else the MLproject mounts a folder there itself
            mounts.add(root, read_only=False, at=PROJECT_FOLDER)
        variables = _variables(job, run, environment, mounts)
        _mount_stores(run, environment, mounts)
        command = _command(job, downloader(job, environment), mounts, PROJECT_FOLDER in mounts.folders)
        check_length(job.entry_point, command)
        with engine.connected(engine.engine_environment(), engine.PULL_SECONDS) as client:
            image_id = engine.ensure_image(client, settings.docker_image, self.log)
            user = _user(client)
        self.log(f"Running in a container of {settings.docker_image}: {command}")
        name = container_name(job)
        spec, report = job.workspace / "container.json", job.workspace / "container-report.json"
        _write_private(
            spec,
            {
                "name": name,
                "task": _task_label(job),
                "grace": settings.grace_seconds,
                "report": str(report),
                "create": {
                    "image": image_id,
                    "command": ["sh", "-c", _SCRIPT, "sh", command],
                    "environment": _with_home(variables, user),
                    "user": user,
                    "volumes": self.volumes.unnamed,
                    **({} if settings.docker_workdir == "image" else {"working_dir": PROJECT_FOLDER}),
                    "stop_signal": "SIGTERM",
                },
                "host": {
                    **_host_config(settings),
                    "binds": self.volumes.binds,
                    "mounts": mounts.as_list(self.volumes),
                },
            },
        )
        library = str(Path(__file__).resolve().parents[3])
        own = {name: value for name, value in environment.items() if not name.startswith("MLFLOW_")}
        main = "from mlflow_projects.backends.local.container_runner import main; main()"
        tree = ProcessTree(
            [sys.executable, "-c", main, str(spec)],
            cwd=job.workspace,  # never the project's folder: Python would import from it
            environment={**own, "PYTHONPATH": library},
            grace=settings.grace_seconds + _STOP_SECONDS,
        )
        running = RunningContainer(tree, name, image_id, report)
        begun(running)
        return running


@dataclass
class RunningContainer(Running):
    """A container that runs, seen from the worker.

    :param tree: our small program that holds the container and passes its output on
    :param report: the file in which that program says what it did
    """

    tree: ProcessTree
    name: str
    image_id: str
    report: Path

    def lines(self) -> Iterator[str]:
        """Yield the command's lines; whatever ends the reading early ends the container too."""
        try:
            with self.tree:
                yield from self.tree.lines()
        finally:
            self._ensure_removed()

    def status(self) -> JobStatus:
        """Return where the command stands, or what went wrong with the container or the engine."""
        return status_of(self.tree, str(self._reported().get("error", "")), {"mlflow.docker.image.id": self.image_id})

    def cancel(self) -> None:
        """Stop the program that holds the container; it stops the container first."""
        self.tree.stop()

    def _ensure_removed(self) -> None:
        """Remove the container if the program that holds it could not."""
        if not self._reported().get("removed"):
            with contextlib.suppress(Exception), engine.connected(engine.engine_environment()) as client:
                engine.remove_container(client, self.name)

    def _reported(self) -> dict[str, Any]:
        try:
            return json_object(self.report.read_bytes()) or {}
        except OSError:
            return {}


def image_identity(image: str, log: Callable[[str], None]) -> str:
    """Return what a name stands for now: the image's id. A name with a digest never stands for anything else.

    :param log: takes lines about the progress, if the image must be pulled
    :raises ProjectError: there is no such image
    :raises StepFailedError: engine or registry cannot be asked now
    """
    if "@sha256:" in image:
        return image
    with engine.connected(engine.engine_environment()) as client:
        return engine.ensure_image(client, image, log)


def container_name(job: Job) -> str:
    """Return the container's name: readable, and unique for each attempt."""
    label = re.sub(r"[^a-zA-Z0-9]+", "-", job.label)[:60].strip("-")
    return f"mlflow-{label}-{re.sub(r'[^a-zA-Z0-9]', '', job.attempt_id)[-12:]}"


def _command(job: Job, download: Callable[[str, str], str], mounts: Mounts, is_mounted: bool) -> str:
    """Return the command.

    :param is_mounted: whether the project's own folder is at ``PROJECT_FOLDER``
    """
    root = job.project.root.resolve()

    def fetched(uri: str, folder: str) -> str:
        path = download(uri, folder)
        mounts.add(path, read_only=True)
        return path

    def localized(name: str, value: str) -> str:
        path = Path(existing_path(job.project.root, name, value)).resolve()
        if is_mounted and path.is_relative_to(root):
            return str(Path(PROJECT_FOLDER) / path.relative_to(root))
        mounts.add(path, read_only=True)
        return str(path)

    return build_command(job.project, job.entry_point, job.parameters, fetched, localized)


def _variables(job: Job, run: OpenRun, environment: Mapping[str, str], mounts: Mounts) -> dict[str, str]:
    """Return the container's variables, and mount the files that they name."""
    variables = {name: value for name, value in environment.items() if _PASSED.match(name)}
    for name, file in (("AWS_SHARED_CREDENTIALS_FILE", "credentials"), ("AWS_CONFIG_FILE", "config")):
        usual = Path("~/.aws").expanduser() / file
        if name not in variables and usual.is_file():
            variables[name] = str(usual)
    for name, value in variables.items():
        if _FILES.search(name) and Path(value).is_absolute() and exists(Path(value)):
            mounts.add(value, read_only=True)
    if run.checkpoint:
        mounts.add(run.checkpoint, read_only=False)
    return {
        "PYTHONUNBUFFERED": "1",
        **variables,
        **job.variables,
        **run.variables,
        **declared_variables(job.project, environment),
    }


def _mount_stores(run: OpenRun, environment: Mapping[str, str], mounts: Mounts) -> None:
    """Mount a tracking database and an artifact folder of this worker at their own paths."""
    uri = environment.get("MLFLOW_TRACKING_URI", "")
    if database := sqlite_file(uri):
        mounts.add(database.parent, read_only=False)
    elif uri.startswith("file:"):
        mounts.add(local_path_of(uri) or "", read_only=False)
    if folder := local_path_of(run.artifact_uri) if run.artifact_uri else None:
        # …/<experiment>/<run>/artifacts: runs that the project opens itself lie beside.
        path = Path(folder)
        above = path.parents[1] if path.name == "artifacts" and len(path.parents) > 1 else path
        # Of another machine, perhaps, or a name that no folder can have; then the command's client will say so.
        with contextlib.suppress(OSError, ValueError):
            above.mkdir(parents=True, exist_ok=True)
        if is_folder(above):
            mounts.add(above, read_only=False)


def _host_config(settings: LocalSettings) -> dict[str, Any]:
    """Return what Docker calls HostConfig."""
    options: dict[str, Any] = {
        "network_mode": settings.docker_network,
        "shm_size": settings.docker_shm_size,
        "security_opt": ["label=disable"],  # SELinux would keep the container out of the mounted folders
    }
    if settings.docker_memory:
        options["mem_limit"] = settings.docker_memory
    if gpus := settings.docker_gpus:
        count = -1 if gpus == "all" else int(gpus)
        options["device_requests"] = [{"Count": count, "Capabilities": [["gpu"]]}]
    return options


def _user(client: Any) -> str:
    """Return the user that makes files the worker's own: in a rootless engine, root is the worker's user."""
    rootless = "name=rootless" in (client.info().get("SecurityOptions") or ())
    return "0:0" if rootless else f"{os.getuid()}:{os.getgid()}"


def _with_home(variables: dict[str, str], user: str) -> dict[str, str]:
    """Give a user whom the image does not know a name and a folder that can be written."""
    if user.startswith("0:"):
        return variables
    with contextlib.suppress(OSError, KeyError):
        variables = {"USER": getpass.getuser(), **variables}
    return {"HOME": "/tmp", "USER": "mlflow", **variables}  # noqa: S108  (the container's own)


def _task_label(job: Job) -> str:
    """Return what the tries of one task instance have in common, in this installation of Airflow."""
    owner = [job.task_key, str(job.cache.root), job.variables.get("MLFLOW_TRACKING_URI", "")]
    return hashlib.sha256(json.dumps(owner).encode()).hexdigest()[:24]


def _write_private(file: Path, content: Mapping[str, Any]) -> None:
    """Write a file that only this user can read; it holds passwords until our program has read it."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        json.dump(content, opened)
