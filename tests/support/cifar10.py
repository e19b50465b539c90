"""The Python environments of the cifar10 projects, built once for all tests of a machine's session."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

from mlflow_projects.backends.local.environments import EnvironmentBuilder
from mlflow_projects.backends.local.withheld_variables import worker_variables
from mlflow_projects.project.cache import Cache
from mlflow_projects.project.spec import load_project
from tests.support.engine import Engine

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "localhost/mlflow-projects-cifar10:test"
PROJECTS = ROOT / "sample_projects" / "cifar10"
# Large (PyTorch): shared by all test processes, those of pytest-xdist and of `make` among them. The cache locks.
CACHE = Path(os.environ.get("CIFAR10_TEST_CACHE", ROOT / "build" / "cifar10-test-cache"))


def project_python(name: str, log: Callable[[str], None] = print) -> Path:
    """Return the Python of a project's environment, which is built if no test did so yet.

    :param name: a folder of sample_projects/cifar10
    """
    builder = EnvironmentBuilder(Cache(CACHE), worker_variables(os.environ), log)
    with builder.activation(load_project(PROJECTS / name), "uv") as activation:
        return Path(activation.variables["VIRTUAL_ENV"]) / "bin" / "python"


def run_project(
    name: str, tracking_uri: str, *arguments: str, timeout: float = 280, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a project's script alone, as ``python <name>.py …`` does; its output is in ``stdout``.

    :param arguments: as on the command line
    :param timeout: seconds
    """
    return subprocess.run(
        [str(project_python(name)), f"{name}.py", *arguments],
        cwd=PROJECTS / name,
        env=project_environment(tracking_uri, environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=timeout,
    )


def project_environment(tracking_uri: str, more: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for a project that runs alone: none of Airflow's, no other run's."""
    return {
        **worker_variables(os.environ),
        "MLFLOW_TRACKING_URI": tracking_uri,
        "PYTHONUNBUFFERED": "1",
        **more,
    }


def import_from(name: str, module: str) -> ModuleType:
    """Import a project's module into this process, and nothing of it into another import.

    The projects have modules of equal names, and are no packages: each runs in its own folder.
    """
    folder = str(PROJECTS / name)
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(module)
    finally:
        sys.path.remove(folder)
        for loaded, found in list(sys.modules.items()):
            if (getattr(found, "__file__", None) or "").startswith(f"{folder}/"):
                del sys.modules[loaded]


def build_image(engine: Engine, base_image: str) -> str:
    """Build custom_images/cifar10 with its own script and return the image's name; this takes minutes.

    With podman, pip finds in the build what it finds on this machine: certificates, and a folder of wheels.
    """
    arguments = ["cifar10", "--base-image", base_image, "--name", IMAGE]
    program: dict[str, str] = {}
    if engine.podman:
        program["CONTAINER_ENGINE"] = "podman"  # a docker program without an engine would be taken first
        arguments += ["--", "--volume", "/etc/ssl/certs:/etc/ssl/certs:ro"]
        wheels = os.environ.get("PIP_FIND_LINKS", "")
        if Path(wheels).is_dir() and wheels:
            arguments += ["--volume", f"{wheels}:/wheels:ro", "--build-arg", "PIP_FIND_LINKS=/wheels"]
    done = subprocess.run(
        [str(ROOT / "custom_images" / "build.sh"), *arguments],
        env={**os.environ, **engine.environment, **engine.podman, **program},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return IMAGE
