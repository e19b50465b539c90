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
import re
import shlex
import site
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier

from mlflow_projects.backends.local import conda_environment
from mlflow_projects.backends.local.conda_channels import CondaSettings
from mlflow_projects.backends.local.installer_output import InstallerOutput
from mlflow_projects.backends.local.named_files import check_unchanged, hashes_of
from mlflow_projects.backends.local.process import ProcessTree
from mlflow_projects.backends.local.python_versions import find_python, found_version, path_without_shims, specifier
from mlflow_projects.backends.local.settings import LocalSettings
from mlflow_projects.exceptions import ProjectError, StepFailedError
from mlflow_projects.project.cache import ABOUT, Cache, remove
from mlflow_projects.project.conda_file import read_conda_file
from mlflow_projects.project.paths import exists
from mlflow_projects.project.python_environment import base_of, read_python_environment
from mlflow_projects.project.requirements_files import local_package, top_of
from mlflow_projects.project.spec import Project
from mlflow_projects.project.uv import find_uv, has_python, uv_settings_from_pip

# Into another folder than the environment; images of Airflow have set PIP_USER.
_ELSEWHERE = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_DRY_RUN", "PIP_PYTHON", "PYTHONHOME")
_NAMED_PATH = re.compile(r"(?P<option>-[cf]|--find-links|--constraint)[\s=]*(?P<path>[^\s].*)")
NO_SOLUTION = 3  # of the conda builder: an exit status that no retry changes


@dataclass(frozen=True)
class Activation:
    """What makes a command use an environment.

    :param variables: set for the command
    :param prefix: shell text before the command
    :param folder: of the environment; None for the worker's own
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    prefix: str = ""
    folder: Path | None = None


def environment_identity(project: Project, manager: str) -> dict[str, Any]:
    """Return what an environment is made from, as JSON can hold it.

    ``local`` is the worker's Python as it is now: its version, and the names and versions of its packages.

    :raises ProjectError: the definition is wrong
    """
    identity: dict[str, Any] = {"manager": manager, "machine": platform.machine()}
    if manager == "conda":
        declared = read_conda_file(project)
        return {
            **identity,
            "definition": asdict(declared),
            "files": hashes_of(declared.pip, declared.constraints, project),
        }
    if manager == "local":
        return {**identity, "python": _worker_python(), "packages": _worker_packages()}
    wanted = read_python_environment(project)
    requirements = [list(wanted.build_requirements), list(wanted.requirements)]
    files = hashes_of([*wanted.build_requirements, *wanted.requirements], wanted.constraints, project)
    python = found_version(wanted.python, os.environ) if wanted.python else _worker_python()
    return {**identity, "python": python, "requirements": requirements, "files": files}


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
    :param settings: how conda environments are made
    """

    cache: Cache
    variables: Mapping[str, str] = field(repr=False)
    log: Callable[[str], None]
    settings: LocalSettings = field(default_factory=LocalSettings)

    @contextlib.contextmanager
    def activation(self, project: Project, manager: str) -> Iterator[Activation]:
        """Yield how to use the project's environment, which stays during the block; build it if no task did.

        :raises ProjectError: the definition is wrong, or a tool is missing
        :raises StepFailedError: the build fails
        """
        if manager == "local":
            # The worker's own Python, also where Airflow was started without activating its environment.
            yield Activation({"PATH": self._path(Path(sys.executable).parent)})
        elif manager == "conda":
            with self._conda(project) as activation:
                yield activation
        else:
            with self._pip(project, manager) as folder:
                yield Activation({"PATH": self._path(folder / "bin"), "VIRTUAL_ENV": str(folder)}, folder=folder)

    @contextlib.contextmanager
    def _pip(self, project: Project, manager: str) -> Iterator[Path]:
        wanted = read_python_environment(project)
        if wanted.warning:
            self.log(f"{project.environment_file}: {wanted.warning}")
        both = [wanted.build_requirements, wanted.requirements]  # of which an option counts for its own only
        every = [line for lines in both for line in lines]
        python = found_version(wanted.python, self.variables)
        hashes = hashes_of(every, wanted.constraints, project)
        key = _key(manager, python, both, hashes)

        def make(folder: Path) -> None:
            self.log(f"Building the {manager} environment {folder} (once; later steps share it).")
            creation, install = _python_tools(manager, self._python(wanted.python, manager, project), folder)
            self._run(project, creation, variables={"PATH": path_without_shims(self.variables)})
            for requirements in filter(None, both):
                self._install(project, folder, install, requirements)
            check_unchanged(every, hashes, project, self.cache.root)
            _describe(folder, project, manager)

        with self.cache.entry("environments", key, make, has_python) as folder:
            yield folder

    def _python(self, wanted: str, manager: str, project: Project) -> str:
        """Return the interpreter to build with, or the versions that uv is to find (it may have some of its own)."""
        try:
            specifier(wanted or "3")
        except InvalidSpecifier as error:
            raise ProjectError(
                f"{project.environment_file}: {wanted[:80]!r} is no version of Python; write one such as '3.11'."
            ) from error
        if found := find_python(wanted, self.variables):
            return found
        if manager == "uv":
            return wanted
        raise ProjectError(
            f"{project.environment_file}: env_manager 'virtualenv' finds no Python {wanted} on this worker; install "
            f"it (pyenv install {wanted}), change the version, or use env_manager 'uv'."
        )

    def _path(self, first: Path) -> str:
        return os.pathsep.join([str(first), self.variables.get("PATH", os.defpath)])

    @contextlib.contextmanager
    def _conda(self, project: Project) -> Iterator[Activation]:
        file = project.environment_file
        assert file is not None
        declared = read_conda_file(project)
        if ignored := conda_environment.ignored_variables(declared):
            self.log(f"{file}: 'variables' cannot set {', '.join(ignored)}; its environment or the attempt does.")
        settings = CondaSettings.of(self.settings.conda_channels, self.variables)
        program = self.settings.conda_program
        if program:
            program = conda_environment.find_program(program, self.variables.get("PATH"))
        recipe = conda_environment.Recipe(declared, settings, program, file.parent)
        hashes = hashes_of(declared.pip, declared.constraints, project)
        key = _key("conda", recipe.identity(), hashes)

        def run(argv: Sequence[str], variables: Mapping[str, str]) -> None:
            self._run(project, argv, file.parent, variables, recipe.secrets())

        def make(folder: Path) -> None:
            self.log(f"Building the conda environment {folder} (once; later steps share it).")
            if not recipe.packages:
                folder.mkdir()
            elif program:
                with self.cache.workspace() as workspace:
                    recipe.create_by_program(folder, workspace, run)
            else:
                # Kept from being tidied away meanwhile; its size is known when it has grown.
                with self.cache.entry("conda_packages", "shared", Path.mkdir) as packages:
                    recipe.create(folder, packages, run)
                    self.cache.measure("conda_packages", "shared")
            if declared.pip:
                self._install(project, folder, _installer(folder), declared.pip)
                check_unchanged(declared.pip, hashes, project, self.cache.root)
            _describe(folder, project, "conda")

        with self.cache.entry("environments", key, make) as folder:
            path = self.variables.get("PATH", os.defpath)
            yield Activation(*conda_environment.activation_of(folder, declared, path), folder)

    def _install(self, project: Project, folder: Path, install: Sequence[str], requirements: Sequence[str]) -> None:
        """Install lines of requirements, the project's own packages from copies.

        One to be edited lives as long as its environment, also if the project is the copy of one attempt. And uv
        takes a folder that it has built once as built, whatever is in it now.
        """
        base, is_uv = base_of(project), Path(install[0]).name == "uv"
        lines = []
        for number, line in enumerate(requirements):
            path = Path()
            if package := local_package(line, base, top_of(project)):
                path = package.copy(folder / ("editable" if package.is_editable else "sources") / str(number))
                line = package.line_for(path)
            elif found := _NAMED_PATH.fullmatch(line):  # installers take it relative to the file, which is ours
                path = base / found["path"].strip("'\"")
                line = f"{found['option']} {shlex.quote(str(path))}" if exists(path) else line
            if is_uv and "#" in str(path) and exists(path):
                raise ProjectError(
                    f"{project.environment_file}: {line!r} has a path with '#', which uv cannot read; rename the "
                    "project's folder, or cache_dir in [mlflow_projects]."
                )
            lines.append(line)
        file = folder / "requirements.mlflow-projects.txt"
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        # In a file, uv only warns of it.
        options = ["--prerelease", "allow"] if is_uv and "--pre" in lines else []
        self._run(project, [*install, *options, "-r", str(file)], base)
        file.unlink()
        remove(folder / "sources")

    @contextlib.contextmanager
    def _uv_cache(self) -> Iterator[dict[str, str]]:
        """Yield where uv keeps packages if its own folder is on another file system, whence it could only copy.

        Nobody removes the packages during the block.
        """
        if self.variables.get("UV_CACHE_DIR"):
            yield {}
            return
        base = self.variables.get("XDG_CACHE_HOME") or Path(self.variables.get("HOME") or Path.home(), ".cache")
        folder = next(path for path in (Path(base, "uv"), *Path(base, "uv").parents) if path.exists())
        if folder.stat().st_dev == self.cache.root.stat().st_dev:
            yield {}
            return
        with self.cache.entry("uv_packages", "shared", Path.mkdir) as packages:
            yield {"UV_CACHE_DIR": str(packages)}
            self.cache.measure("uv_packages", "shared")

    def _run(
        self,
        project: Project,
        argv: Sequence[str],
        cwd: Path | None = None,
        variables: Mapping[str, str] | None = None,
        secrets: Sequence[str] = (),
    ) -> None:
        output = InstallerOutput()
        with self._uv_cache() as uv_cache:
            environment = {
                **uv_settings_from_pip(self.variables),
                **{name: value for name, value in self.variables.items() if name not in _ELSEWHERE},
                "PIP_NO_INPUT": "1",
                # uv reads no uv.toml of the project, which the key does not hold: it says whence packages come.
                "UV_PROJECT": str(self.cache.root),
                **uv_cache,
                **(variables or {}),
            }
            with ProcessTree(argv, cwd=cwd or project.root, environment=environment) as tree:
                for line in tree.lines():
                    for secret in secrets:
                        line = line.replace(secret, "***")
                    self.log(line)
                    output.take(line)
                status = tree.returncode
        if status == 0:
            return
        name = project.environment_file or project.root
        is_builder = "MLFLOW_PROJECTS_CONDA" in (variables or {})
        if status == NO_SOLUTION and is_builder:
            raise ProjectError(f"{name}: {output.last}")
        if output.refusal:
            raise ProjectError(f"{name}: {output.refusal}")
        tool = "py-rattler" if is_builder else " ".join(argv[:3])
        raise StepFailedError(
            f"The environment of {name} cannot be built: {tool} … failed with {output.last!r}; its output is "
            "in the log above."
        )


def _python_tools(manager: str, python: str, folder: Path) -> tuple[list[str], list[str]]:
    """Return the commands that create an environment and that install into it.

    :param python: an interpreter, or for uv the versions wanted
    """
    if manager == "uv":
        return [_uv(), "venv", "--quiet", "--no-project", "--python", python, str(folder)], _uv_install(folder)
    # Isolated, here and below: no module of the project's folder stands in for one of Python's.
    return [python, "-I", "-m", "venv", str(folder)], _pip_install(folder)


def _installer(folder: Path) -> list[str]:
    """Return the command that installs pip's packages into a conda environment."""
    # uv knows no Python that is older.
    is_old = any((folder / "lib" / f"python{old}").exists() for old in ("2.7", "3.5", "3.6", "3.7"))
    return _pip_install(folder) if is_old else _uv_install(folder)


def _describe(folder: Path, project: Project, manager: str) -> None:
    """Write down for people what an environment is."""
    name = "".join(letter if letter.isprintable() else " " for letter in project.name or project.root.name)
    (folder / ABOUT).write_text(f"{manager} for {name[:200]}\n", encoding="utf-8")


def _uv_install(folder: Path) -> list[str]:
    python = str(folder / "bin" / "python")
    return [_uv(), "pip", "install", "--no-progress", "--python", python]


def _pip_install(folder: Path) -> list[str]:
    isolated = [] if (folder / "lib" / "python2.7").exists() else ["-I"]  # Python 2 has no such option
    return [str(folder / "bin" / "python"), *isolated, "-m", "pip", "install", "--progress-bar", "off"]


def _uv() -> str:
    return find_uv("env_manager 'uv'")


def _key(*content: Any) -> str:
    text = json.dumps([platform.machine(), *content])
    return hashlib.sha256(text.encode()).hexdigest()[:24]
