"""``backend_config`` of the local backend, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mlflow_projects.backends.local.process import DEFAULT_GRACE
from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.python_environment import ENV_MANAGERS
from mlflow_projects.project.spec import Project

_SIZE = re.compile(r"[1-9]\d*[bkmg]?", re.IGNORECASE)


@dataclass(frozen=True)
class LocalSettings:
    """How a command runs on the worker; all but the first only for one in a container.

    :param grace_seconds: between SIGTERM and SIGKILL; Airflow itself gives a task 5 seconds
    :param docker_image: default: ``docker_env.image`` of the project; "" runs the command on the worker itself
    :param docker_workdir: where the command runs: in the ``project``, or in the ``image``'s own WORKDIR
    :param docker_network: default: the worker's own, where a tracking server on 127.0.0.1 is in reach
    :param docker_memory: a limit such as ``4g``; "" for none
    :param docker_shm_size: PyTorch's data loaders pass batches through shared memory; Docker's 64 MB are too little
    :param docker_gpus: a number, or ``all``; "" for none
    :param conda_env_manager: the env manager of a project with ``conda_env`` if no other is asked for
    :param conda_channels: channels instead of those that a file names, and ``name=address`` for where a channel is
    :param conda_program: conda, mamba or micromamba, to make environments with instead of py-rattler
    """

    grace_seconds: float = DEFAULT_GRACE
    docker_image: str = ""
    docker_workdir: str = "project"
    docker_network: str = "host"
    docker_memory: str = ""
    docker_shm_size: str = "1g"
    docker_gpus: str = ""
    conda_env_manager: str = "conda"
    conda_channels: str = field(default="", repr=False)  # may hold a password
    conda_program: str = ""

    @classmethod
    def of(cls, config: Mapping[str, Any], project: Project) -> LocalSettings:
        """Read ``backend_config``; keys of other backends are left alone.

        :raises ProjectError: a value cannot be what it should be
        """
        declared = {"docker_image": str((project.docker_env or {}).get("image") or "")}
        given = {name: str(config[name]) for name in CONFIG_KEYS[1:] if config.get(name)}
        settings = cls(_grace(config.get("grace_seconds", DEFAULT_GRACE)), **{**declared, **given})
        if settings.conda_env_manager not in ENV_MANAGERS:
            raise ProjectError(
                f"'conda_env_manager' must be one of {', '.join(ENV_MANAGERS)}, not {settings.conda_env_manager!r}."
            )
        if not settings.docker_image:
            return settings
        for key in ("docker_memory", "docker_shm_size"):
            if (value := getattr(settings, key)) and not _SIZE.fullmatch(value):
                raise ProjectError(f"backend_config: {key!r} must be a size such as 512m or 4g, not {value!r}.")
        gpus = settings.docker_gpus
        if gpus and gpus != "all" and not gpus.isdigit():
            raise ProjectError(f"backend_config: 'docker_gpus' must be a number or 'all', not {gpus!r}.")
        if settings.docker_workdir not in ("project", "image"):
            raise ProjectError(
                f"backend_config: 'docker_workdir' must be 'project' or 'image', not {settings.docker_workdir!r}."
            )
        return settings


CONFIG_KEYS = tuple(item.name for item in fields(LocalSettings))


def _grace(value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        raise ProjectError(f"backend_config: 'grace_seconds' must be a number from 0 to 3600, not {value!r}.")
    return seconds
