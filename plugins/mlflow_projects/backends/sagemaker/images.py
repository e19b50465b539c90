"""Which image a job runs in."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

from mlflow_projects.backends.contract import Job
from mlflow_projects.exceptions import ProjectError, StepFailedError
from mlflow_projects.project.cache import ABOUT, Cache
from mlflow_projects.project.uv import find_uv, has_python, uv_settings_from_pip

# The part of the SDK that knows the images. What it needs does not fit beside Airflow on Python 3.12 and later.
_SDK = "sagemaker-core>=2,<3"
_LOOK_UP = """
import json, sys, warnings
warnings.simplefilter("ignore")
from sagemaker.core import image_uris
try:
    print(image_uris.retrieve(**json.load(sys.stdin)))
except (ValueError, TypeError) as error:
    sys.exit(" ".join(str(error).split()))
"""
_WANTED = re.compile(r"PATH|HOME|LANG|TMPDIR|XDG_CACHE_HOME|SSL_CERT_\w+|(?i:https?|all|no)_(?i:proxy)|(UV|PIP)_\w+")


def choose_image(
    job: Job, given: str | Mapping[str, str], instance_type: str, region: str, log: Callable[[str], None]
) -> str:
    """Return the image's URI: the one given, else ``docker_env.image`` of the project.

    :param given: a URI, or framework and version, which the SageMaker SDK looks up, in a process of its own
    :param log: takes a line if the SDK must be installed first
    :raises ProjectError: there is none, or it cannot be looked up
    :raises StepFailedError: the SDK cannot be installed
    """
    if isinstance(given, str) and given:
        return given
    if given and isinstance(given, Mapping):
        return _look_up(given, instance_type, region, job, log)
    image = (job.project.docker_env or {}).get("image")
    if image:
        return str(image)
    raise ProjectError(
        "backend_config: the SageMaker backend needs 'image_uri', the image in which the job runs; give it there, in "
        "Airflow's option [mlflow_projects] sagemaker, or as 'docker_env.image' in the MLproject."
    )


def _look_up(given: Mapping[str, str], instance_type: str, region: str, job: Job, log: Callable[[str], None]) -> str:
    if missing := {"framework", "version"} - set(given):
        raise ProjectError(f"backend_config: 'image_uri' lacks {sorted(missing)[0]!r}.")
    asked = {"image_scope": "training", **given, "instance_type": instance_type, "region": region}
    with _python_with_sdk(job.cache, log) as python:
        done = subprocess.run(
            [python, "-I", "-c", _LOOK_UP], input=json.dumps(asked), cwd=job.workspace, env=_environment(),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        raise ProjectError(f"backend_config: 'image_uri' cannot be looked up: {_last_line(done.stderr)}")
    return _last_line(done.stdout)


@contextlib.contextmanager
def _python_with_sdk(cache: Cache, log: Callable[[str], None]) -> Iterator[str]:
    """Yield an interpreter that has the SDK: this one, or that of an environment which is made once."""
    if _is_here("sagemaker-core"):
        yield sys.executable
        return

    def make(folder: Path) -> None:
        log(f"Installing {_SDK} into {folder}, to look the image up (once).")
        uv = find_uv("An 'image_uri' by framework and version")
        python = str(folder / "bin" / "python")
        create = ["venv", "--quiet", "--no-project", "--python", sys.executable, str(folder)]
        for arguments in (create, ["pip", "install", "--quiet", "--python", python, _SDK]):
            done = subprocess.run(
                [uv, *arguments], cwd=cache.root, env=_environment(), capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise StepFailedError(
                    "backend_config: 'image_uri' by framework and version needs the SageMaker SDK, which uv cannot "
                    f"install: {_last_line(done.stderr)!r}; mend that, or give the whole URI."
                )
        (folder / ABOUT).write_text("uv for SageMaker's image look-up\n", encoding="utf-8")

    key = hashlib.sha256(f"{_SDK} {sys.version} {platform.machine()}".encode()).hexdigest()[:24]
    with cache.entry("environments", key, make, has_python) as folder:
        yield str(folder / "bin" / "python")


def _is_here(distribution: str) -> bool:
    with contextlib.suppress(metadata.PackageNotFoundError):
        metadata.version(distribution)
        return True
    return False


def _environment() -> dict[str, str]:
    """Return the worker's variables that say whence packages come, and none of its secrets."""
    variables = {name: value for name, value in os.environ.items() if _WANTED.fullmatch(name)}
    return {**uv_settings_from_pip(variables), **variables}


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]
