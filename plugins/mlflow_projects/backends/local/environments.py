"""Python environments of projects: built once per content, under a lock, with progress in the log.

MLflow builds into the final folder without a lock, so that two steps which need the same new
environment at the same time spoil each other's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shlex
import shutil
import site
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow_projects.backends.local.process import ProcessTree
from mlflow_projects.exceptions import ProjectError, StepFailedError
from mlflow_projects.project.cache import Cache
from mlflow_projects.project.identity import tree_hash
from mlflow_projects.project.python_environment import names_files, read_python_environment
from mlflow_projects.project.spec import Project
from mlflow_projects.project.yaml_files import read_text

# pip's variable -> uv's names for it, the current one first (https://docs.astral.sh/uv/reference/environment/).
_UV_NAMES = {
    "PIP_FIND_LINKS": ("UV_FIND_LINKS",),
    "PIP_INDEX_URL": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    "PIP_EXTRA_INDEX_URL": ("UV_INDEX", "UV_EXTRA_INDEX_URL"),
    "PIP_TRUSTED_HOST": ("UV_INSECURE_HOST",),
    "PIP_CERT": ("SSL_CERT_FILE",),
}


@dataclass(frozen=True)
class Activation:
    """What makes a command use an environment.

    :param variables: set for the command
    :param prefix: shell text before the command
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    prefix: str = ""


def find_conda(path: str | None) -> str:
    """Return the conda executable on a PATH.

    :raises ProjectError: there is none
    """
    if conda := shutil.which("conda", path=path):
        return conda
    raise ProjectError(
        "env_manager 'conda' needs the program conda, which this worker does not have; install it, or use "
        "env_manager 'uv', which takes the pip packages of a conda.yaml."
    )


def environment_identity(project: Project, manager: str) -> dict[str, Any]:
    """Return what an environment is made from, as JSON can hold it.

    ``local`` is the worker's Python as it is now: its version, and the names and versions of its packages.

    :raises ProjectError: the definition is wrong
    """
    identity: dict[str, Any] = {"manager": manager, "machine": platform.machine()}
    if manager == "conda":
        assert project.environment_file is not None
        return {**identity, "definition": read_text(project.environment_file)}
    if manager == "local":
        return {**identity, "python": _worker_python(), "packages": _worker_packages()}
    wanted = read_python_environment(project)
    requirements = [list(wanted.build_requirements), list(wanted.requirements)]
    return {**identity, "python": wanted.python or _worker_python(), "requirements": requirements}


def _worker_python() -> str:
    return f"{platform.python_implementation()} {platform.python_version()}"


def _worker_packages() -> list[str]:
    """Return the worker's packages as their folders are called, for example ``numpy-2.3.1.dist-info``.

    Reading the folders' names takes a millisecond, their content (importlib.metadata) a hundred times as long.
    """
    folders = {*site.getsitepackages(), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    names = {path.name for folder in folders for path in Path(folder).glob("*-info")}
    return sorted(names)


@dataclass(frozen=True)
class EnvironmentBuilder:
    """Builds environments into the cache.

    :param variables: for the tools that build, for example a package index
    :param log: takes the tools' output, line by line
    """

    cache: Cache
    variables: Mapping[str, str] = field(repr=False)
    log: Callable[[str], None]

    @contextlib.contextmanager
    def activation(self, project: Project, manager: str) -> Iterator[Activation]:
        """Yield how to use the project's environment, which stays during the block; build it if no task did.

        :raises ProjectError: the definition is wrong, or a tool is missing
        :raises StepFailedError: the build fails
        """
        if manager == "local":
            # The worker's own Python, also where Airflow was started without activating its environment.
            yield Activation({"PATH": self._path(Path(sys.executable).parent)})
            return
        if manager == "conda":
            with self._conda(project) as activation:
                yield activation
            return
        wanted = read_python_environment(project)
        requirements = [*wanted.build_requirements, *wanted.requirements]
        # Two projects may each have a "./pkg" of their own.
        files = [tree_hash(project.root)] if names_files(requirements) else []
        key = _key(manager, wanted.python or sys.version, requirements, *files)

        def make(folder: Path) -> None:
            self.log(f"Building the {manager} environment {folder} (once; later steps share it).")
            creation, install = _python_tools(manager, wanted.python, folder)
            self._run(project, creation)
            for requirements in filter(None, (wanted.build_requirements, wanted.requirements)):
                with _requirements_file(folder, requirements) as file:
                    self._run(project, [*install, "-r", str(file)], cwd=project.root)

        with self.cache.entry("environments", key, make) as folder:
            yield Activation({"PATH": self._path(folder / "bin"), "VIRTUAL_ENV": str(folder)})

    def _path(self, first: Path) -> str:
        return os.pathsep.join([str(first), self.variables.get("PATH", os.defpath)])

    @contextlib.contextmanager
    def _conda(self, project: Project) -> Iterator[Activation]:
        conda = find_conda(self.variables.get("PATH"))
        file = project.environment_file
        assert file is not None
        key = _key("conda", "", [read_text(file)])

        def make(folder: Path) -> None:
            self.log(f"Building the conda environment {folder} (once; later steps share it).")
            self._run(project, [conda, "env", "create", "--quiet", "--prefix", str(folder), "--file", str(file)])

        with self.cache.entry("environments", key, make) as folder:
            profile = Path(conda).resolve().parents[1] / "etc" / "profile.d" / "conda.sh"
            quoted = shlex.quote(str(folder))
            yield Activation(prefix=f"source {shlex.quote(str(profile))} && conda activate {quoted} 1>&2 && ")

    def _run(self, project: Project, argv: Sequence[str], cwd: Path | None = None) -> None:
        last = ""
        environment = {**uv_settings_from_pip(self.variables), **self.variables, "PIP_NO_INPUT": "1"}
        with ProcessTree(argv, cwd=cwd or project.root, environment=environment) as tree:
            for line in tree.lines():
                self.log(line)
                last = line.strip() or last
            if tree.returncode != 0:
                raise StepFailedError(
                    f"The environment of {project.environment_file or project.root} cannot be built: "
                    f"{' '.join(argv[:3])} … failed with {last!r}; its output is in the log above."
                )


def uv_settings_from_pip(environment: Mapping[str, str]) -> dict[str, str]:
    """Return uv's variables for what only pip was told: where packages come from. uv reads none of pip's settings.

    Whatever is set for uv itself stays. pip looks at all indexes for the best version; uv takes the first index
    that has the package, the extra ones before the default one.

    :param environment: the variables of the worker
    """
    settings = {}
    for pip_name, uv_names in _UV_NAMES.items():
        value = environment.get(pip_name, "").strip()
        if value and not any(environment.get(name) for name in uv_names):
            separator = "," if pip_name == "PIP_FIND_LINKS" else " "
            settings[uv_names[0]] = separator.join(value.split())
    return settings


def _python_tools(manager: str, python: str, folder: Path) -> tuple[list[str], list[str]]:
    """Return the commands that create an environment and that install into it."""
    if manager == "uv":
        uv = _uv()
        version = python or sys.executable
        return (
            [uv, "venv", "--quiet", "--no-project", "--python", version, str(folder)],
            [uv, "pip", "install", "--no-progress", "--compile-bytecode", "--python", str(folder / "bin" / "python")],
        )
    interpreter = _interpreter(python)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--progress-bar", "off"]
    return [interpreter, "-m", "venv", str(folder)], pip


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if not found:
        raise ProjectError("env_manager 'uv' needs the program uv, which this worker does not have; pip install uv.")
    return found


def _interpreter(python: str) -> str:
    """Return a Python of the wanted version for virtualenv: this one, or one on the PATH or in pyenv."""
    if not python or platform.python_version() == python or platform.python_version().startswith(f"{python}."):
        return sys.executable
    minor = ".".join(python.split(".")[:2])
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for candidate in (pyenv / python / "bin" / "python", shutil.which(f"python{minor}")):
        if candidate and Path(candidate).exists():
            return str(candidate)
    raise ProjectError(
        f"env_manager 'virtualenv' finds no Python {python} on this worker; install it (pyenv install {python}), "
        "change 'python' in the python_env file, or use env_manager 'uv'."
    )


@contextlib.contextmanager
def _requirements_file(folder: Path, requirements: Sequence[str]) -> Iterator[Path]:
    file = folder / "requirements.mlflow-projects.txt"
    file.write_text("\n".join(requirements) + "\n", encoding="utf-8")
    yield file
    file.unlink()


def _key(*content: Any) -> str:
    text = json.dumps([platform.machine(), *content])
    return hashlib.sha256(text.encode()).hexdigest()[:24]
