"""The Python environment that a project declares: which tool makes it, and what is to be in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.conda_file import read_conda_file
from mlflow_projects.project.conda_to_pip import translate
from mlflow_projects.project.requirements_files import Expansion, lines_of
from mlflow_projects.project.spec import Project
from mlflow_projects.project.yaml_files import read_yaml, read_yaml_texts

ENV_MANAGERS = ("local", "uv", "virtualenv", "conda")


@dataclass(frozen=True)
class PythonEnvironment:
    """The content of a ``python_env.yaml``, or of a ``conda.yaml`` as pip's packages.

    :param python: versions such as ``3.10``, ``3.10.4`` or ``>=3.9,<3.11``, or "" for the worker's own
    :param requirements: lines as in a requirements file
    :param dropped: conda packages that are not known as packages of pip
    :param constraints: a hash of the files that requirements name with ``-c``
    """

    python: str
    build_requirements: tuple[str, ...]
    requirements: tuple[str, ...]
    dropped: tuple[str, ...] = ()
    constraints: str = ""

    @property
    def warning(self) -> str:
        """What must be said of the packages that are missing, or ""."""
        if not self.dropped:
            return ""
        return (
            f"Not installed, because pip has no package that is known to be the same: {', '.join(self.dropped)}. "
            "If the project needs one of them, name it in the 'pip' section, or use env_manager 'conda'."
        )


def choose_env_manager(project: Project, wanted: str | None, for_conda: str = "conda") -> str:
    """Return the env manager for a project; what the project declares counts when nothing is asked for.

    :param for_conda: that of a ``conda_env``
    :raises ProjectError: there is no such env manager; or conda was asked for without a ``conda_env``
    """
    if wanted not in (None, *ENV_MANAGERS):
        raise ProjectError(f"There is no env_manager {wanted!r}; use one of: {', '.join(ENV_MANAGERS)}.")
    if wanted == "conda" and project.environment_kind != "conda_env":
        raise ProjectError(f"{project.file or project.root} declares no 'conda_env'; env_manager 'conda' needs it.")
    if wanted is not None:
        return wanted
    return {"python_env": "uv", "conda_env": for_conda}.get(project.environment_kind or "", "local")


def read_python_environment(project: Project) -> PythonEnvironment:
    """Read a project's ``python_env`` (or its ``conda_env``, as pip's packages); without one, an empty environment.

    :raises ProjectError: the file has another form
    """
    file = project.environment_file
    if file is None:
        return PythonEnvironment("", (), ())
    if project.environment_kind == "conda_env":
        declared = read_conda_file(project)
        python, requirements, dropped = translate(file, declared.packages)
        return PythonEnvironment(python, (), (*requirements, *declared.pip), dropped, declared.constraints)
    content = read_yaml(file)
    expansion = Expansion(project, project.root)
    if not isinstance(content.get("python"), (str, int, float, type(None))):
        raise ProjectError(f"{file}: 'python' must be a version in quotes, such as '3.11'.")
    python = str(content.get("python") or "")
    if isinstance(content.get("python"), float):
        as_written = read_yaml_texts(file).get("python", python)  # not there where it was merged in
        if as_written != python:
            number = f"YAML reads 'python: {as_written}' as the number {python}"
            raise ProjectError(f"{file}: {number}; write it in quotes.")

    def lines(key: str) -> tuple[str, ...]:
        return expansion.of(file, lines_of(file, key, content.get(key)))

    build_requirements, requirements = lines("build_dependencies"), lines("dependencies")
    return PythonEnvironment(python, build_requirements, requirements, constraints=expansion.constraints)


def base_of(project: Project) -> Path:
    """Return the folder that a project's requirements are relative to: for conda, that of its file."""
    is_conda = project.environment_kind == "conda_env" and project.environment_file is not None
    return project.environment_file.parent if is_conda and project.environment_file else project.root
