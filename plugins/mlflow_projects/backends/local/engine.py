"""The container engine of a worker: whichever answers with Docker's API (Docker, podman).

The ``docker`` package comes with mlflow. It is loaded only when a step wants a container.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow_projects.exceptions import ProjectError, StepFailedError

TASK_LABEL = "mlflow-projects.task"
_SOCKETS = ("/var/run/docker.sock", "/run/podman/podman.sock")
_CONNECT_SECONDS = 60
# A registry's words when another try cannot help.
_NOT_FOR_US = (
    "no such image",
    "not known",
    "not found",
    "manifest unknown",
    "name unknown",
    "denied",
    "unauthorized",
    "invalid",
    "short-name",
)
PULL_SECONDS = 3600  # without a sign of life


def engine_host(environment: Mapping[str, str]) -> str:
    """Return the engine's address: ``DOCKER_HOST``, else the first usual socket that exists.

    :raises ProjectError: there is none
    """
    if host := environment.get("DOCKER_HOST"):
        return host
    own = environment.get("XDG_RUNTIME_DIR")
    for path in (*_SOCKETS, *([f"{own}/docker.sock", f"{own}/podman/podman.sock"] if own else [])):
        if Path(path).is_socket():
            return f"unix://{path}"
    raise ProjectError(
        "This step runs in a container, but this worker has no container engine (no DOCKER_HOST, no "
        f"{' and no '.join(_SOCKETS)}); start Docker or podman's socket there, or name the engine in DOCKER_HOST."
    )


@contextlib.contextmanager
def connected(environment: Mapping[str, str], timeout: float = _CONNECT_SECONDS) -> Iterator[Any]:
    """Yield a client of the worker's engine, which has answered.

    :param environment: may hold DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH
    :param timeout: seconds without a sign of life
    :raises ProjectError: there is no engine
    :raises StepFailedError: the engine does not answer, or not any more
    """
    import docker  # type: ignore[import-untyped]
    import requests

    host = engine_host(environment)
    lost = (requests.ConnectionError, requests.Timeout, OSError)
    try:
        client = docker.from_env(timeout=timeout, environment={**environment, "DOCKER_HOST": host})
    except (docker.errors.DockerException, *lost) as error:
        raise StepFailedError(_silent(host, error)) from error
    with contextlib.closing(client):
        try:
            yield client
        except docker.errors.APIError:  # an answer, though requests makes it an OSError
            raise
        except lost as error:
            raise StepFailedError(_silent(host, error)) from error


def _silent(host: str, error: Exception) -> str:
    return (
        f"The container engine at {host} does not answer ({error}); start it, allow the worker's user to use it, or "
        "name another one in DOCKER_HOST."
    )


def ensure_image(client: Any, image: str, log: Callable[[str], None]) -> str:
    """Return the image's id; pull it if the engine does not have it.

    :param log: takes lines about the progress
    :raises ProjectError: no registry has it, or the name is no image's name
    :raises StepFailedError: the registry cannot be asked now
    """
    import docker

    try:
        return str(client.images.get(image).id)
    except docker.errors.ImageNotFound as error:
        if image.startswith("localhost/"):  # podman's name for what was built here: no registry is meant
            raise _not_pulled(image, explained(error)) from error
        log(f"The engine does not have the image {image}: pulling it (once; later steps share it).")
    except docker.errors.APIError as error:
        raise ProjectError(f"{image!r} is no image's name ({explained(error)}); write name:tag.") from error
    repository, tag = docker.utils.parse_repository_tag(image)
    try:
        for event in client.api.pull(repository, tag=tag or "latest", stream=True, decode=True):
            if trouble := event.get("error"):
                raise _not_pulled(image, str(trouble))
            if _is_progress(event):
                log(f"{event.get('id', image)}: {event['status']}")
        return str(client.images.get(image).id)
    except docker.errors.APIError as error:
        raise _not_pulled(image, explained(error)) from error


def _is_progress(event: Mapping[str, Any]) -> bool:
    """Tell the ends of layers, which are worth a line, from the many bytes in between."""
    return str(event.get("status", "")).startswith(("Pull complete", "Digest", "Status", "Pulling from"))


def _not_pulled(image: str, trouble: str) -> ProjectError | StepFailedError:
    message = (
        f"The container engine does not have the image {image!r} and cannot pull it ({trouble.strip().rstrip('.')}); "
        "build it on this worker, push it to a registry that the worker may read, or correct the name."
    )
    return (ProjectError if any(word in trouble.lower() for word in _NOT_FOR_US) else StepFailedError)(message)


def explained(error: Any) -> str:
    """Return the engine's own words, on one line."""
    return " ".join(str(error.explanation or error).split())


def remove_container(client: Any, name: str) -> None:
    """Remove a container with its unnamed volumes, running or not; a missing one is fine."""
    import docker

    with contextlib.suppress(docker.errors.NotFound):
        client.api.remove_container(name, force=True, v=True)


def remove_left_over(client: Any, task: str, log: Callable[[str], None]) -> None:
    """Remove what an earlier try of a task left behind, which happens only if its whole worker was killed.

    :param task: value of the label :data:`TASK_LABEL`
    """
    for found in client.api.containers(all=True, filters={"label": f"{TASK_LABEL}={task}"}):
        log(f"Removing the container {found['Names'][0].lstrip('/')} of an earlier try.")
        remove_container(client, found["Id"])


def engine_environment() -> dict[str, str]:
    """Return the worker's own variables that name the engine."""
    names = ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONFIG", "XDG_RUNTIME_DIR")
    return {name: os.environ[name] for name in names if os.environ.get(name)}
