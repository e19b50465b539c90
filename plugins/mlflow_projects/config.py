"""Every option of Airflow's section ``[mlflow_projects]``: its default, its documentation, and what it means."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_projects.exceptions import ProjectError

if TYPE_CHECKING:
    from mlflow_projects.attempt.checkpoint import CheckpointSettings
    from mlflow_projects.project.cache import Cache

SECTION = "mlflow_projects"


@dataclass(frozen=True)
class Option:
    """An option, as Airflow lists it."""

    description: str
    type: str = "string"
    default: str | None = None
    example: str | None = None
    version_added: str = "0.1.0"


OPTIONS = {
    "cache_dir": Option(
        "Folder for git mirrors, checkouts and Python environments. Default: mlflow_projects_cache in AIRFLOW_HOME.",
        example="/var/cache/mlflow_projects",
    ),
    "group_reads": Option(
        "Let the group of the cache's and the checkpoints' folder look into them; else only the worker's user can.",
        "boolean",
        "False",
    ),
    "cache_max_gb": Option("Above this size, what was unused for longest is removed (GB).", "float", "20"),
    "checkpoint_dir": Option(
        "Where steps keep what their next attempt needs: a folder, or the address of an object store, which other "
        "workers reach too. Default: mlflow_projects_checkpoints in AIRFLOW_HOME.",
        example="s3://bucket/checkpoints",
    ),
    "checkpoint_days": Option(
        "After how many days without a change the checkpoint of a task that never succeeded is removed.",
        "float",
        "14",
    ),
    "git_trusted_dirs": Option(
        "Folders whose git repositories count as the worker's own, whoever owns them; separated by colons. Of any "
        "other user's repository only the commit is read, without git.",
        example="/opt/airflow/dags:/srv/projects",
    ),
    "conda_env_manager": Option(
        "The env manager of projects that declare a conda_env, if a step asks for no other: conda (all packages as "
        "declared) or uv (pip's packages of the same names; faster).",
        default="conda",
    ),
    "conda_channels": Option(
        "Channels that count instead of those that a conda.yaml names, for example of a mirror; name=address says "
        "where the channel of one name is. Separated by blanks. conda's own settings (~/.condarc) are read too.",
        example="conda-forge=https://mirror.example.com/conda-forge",
    ),
    "conda_program": Option(
        "A program that makes conda environments instead of the library's own way: conda, mamba or micromamba, or "
        "the path of one.",
        example="micromamba",
    ),
    "webhook_conn_ids": Option(
        "Airflow connections whose passwords are the secrets of MLflow's webhooks, separated by blanks. Without any, "
        "the address mlflow_projects/webhook of the API server does not exist.",
        example="mlflow_webhook",
    ),
    # A backend's defaults are the option of its name.
    "sagemaker": Option(
        "Defaults for backend_config of the SageMaker backend, as a JSON object.",
        example='{"role": "arn:aws:iam::123456789012:role/mlflow", "s3_uri": "s3://bucket/mlflow"}',
    ),
}


def cache() -> Cache:
    """Return where mirrors, checkouts and environments are kept."""
    from mlflow_projects.project.cache import Cache

    folder = Path(_text("cache_dir") or _home() / "mlflow_projects_cache").expanduser()
    return Cache(folder, int(_number("cache_max_gb") * 10**9), _group_reads())


def checkpoints() -> CheckpointSettings:
    """Return where steps keep what their next attempt needs."""
    from mlflow_projects.attempt.checkpoint import CheckpointSettings

    location = _text("checkpoint_dir") or str(_home() / "mlflow_projects_checkpoints")
    return CheckpointSettings(location, _number("checkpoint_days"), group_reads=_group_reads())


def git_trusted_dirs() -> list[Path]:
    """Return the folders where git may read repositories of other users."""
    names = filter(None, map(str.strip, _text("git_trusted_dirs").split(os.pathsep)))
    return [Path(name).expanduser().resolve() for name in names]


def backend_defaults(backend: str) -> Mapping[str, Any]:
    """Return the defaults of a backend's ``backend_config``.

    :raises ProjectError: the option is no JSON object
    """
    if backend == "local":
        names = ("conda_env_manager", "conda_channels", "conda_program")
        return {name: value for name in names if (value := _text(name)) not in ("", OPTIONS[name].default)}
    text = _text(backend)
    if not text:
        return {}
    option = f"Airflow's option [{SECTION}] {backend}"
    try:
        defaults = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProjectError(f"{option} is no JSON: {error}.") from error
    if not isinstance(defaults, dict):
        raise ProjectError(f"{option} must be a JSON object.")
    return defaults


def webhook_conn_ids() -> list[str]:
    """Return the connections that hold the secrets of MLflow's webhooks; none: nobody may send one."""
    return _text("webhook_conn_ids").split()


def airflow_url() -> str:
    """Return the base URL of this Airflow, by which its runs on a shared tracking server are told."""
    from airflow.sdk.configuration import conf

    return str(conf.get("api", "base_url", fallback="http://localhost:8080"))


def _text(name: str) -> str:
    from airflow.sdk.configuration import conf

    return conf.get(SECTION, name, fallback="") or ""


def _number(name: str) -> float:
    from airflow.sdk.configuration import conf

    return float(conf.getfloat(SECTION, name, fallback=float(OPTIONS[name].default or 0)))


def _group_reads() -> bool:
    from airflow.sdk.configuration import conf

    return bool(conf.getboolean(SECTION, "group_reads", fallback=False))


def _home() -> Path:
    return Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser()
