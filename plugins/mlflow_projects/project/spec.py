"""The MLproject file: its rules, as MLflow has them, with errors that name file and key.

The source of the rules is ``mlflow.projects._project_spec`` (MLflow 3.17) and
https://mlflow.org/docs/latest/ml/projects. A differential test runs both over the same files.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from mlflow_projects.exceptions import ProjectError

PARAMETER_TYPES = ("string", "float", "int", "path", "uri")
EnvironmentKind = Literal["python_env", "conda_env", "docker_env"]
_ENVIRONMENT_KEYS: tuple[EnvironmentKind, ...] = ("python_env", "conda_env", "docker_env")


@dataclass(frozen=True)
class Parameter:
    """A declared parameter of an entry point."""

    name: str
    type: str = "string"
    default: Any = None


@dataclass(frozen=True)
class EntryPoint:
    """A named command of a project.

    :param command: the command with ``{name}`` where a parameter's value goes
    """

    name: str
    command: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


@dataclass(frozen=True)
class Project:
    """A project's folder and what its MLproject file says.

    :param file: the MLproject file, or None for a folder without one
    :param environment: which kind of environment is declared, or None
    :param environment_file: the file that defines it (never for ``docker_env``)
    :param docker_env: the ``docker_env`` mapping as written
    """

    root: Path
    file: Path | None
    name: str | None
    entry_points: Mapping[str, EntryPoint]
    environment: EnvironmentKind | None = None
    environment_file: Path | None = None
    docker_env: Mapping[str, Any] | None = None

    def entry_point(self, name: str) -> EntryPoint:
        """Return the entry point of that name, or the script of that file name.

        A name that ends in ``.py`` or ``.sh`` and is not declared runs that file of the project, as
        MLflow does.

        :raises ProjectError: neither an entry point nor a script of the project
        """
        if name in self.entry_points:
            return self.entry_points[name]
        interpreters = {".py": "python", ".sh": os.environ.get("SHELL", "bash")}
        suffix = os.path.splitext(name)[1]  # noqa: PTH122  (Path would ignore a slash at the end)
        declared = f"its entry points: {', '.join(self.entry_points) or 'none'}"
        if suffix not in interpreters:
            where = self.file or f"{self.root} (a folder with no MLproject file)"
            raise ProjectError(
                f"{where} has no entry point {name!r} ({declared}); name one of these, "
                "or a .py or .sh file of the project."
            )
        script = (self.root / name).resolve()
        if not script.is_relative_to(self.root.resolve()) or not script.is_file():
            raise ProjectError(f"Entry point {name!r} is neither declared ({declared}) nor a file in {self.root}.")
        return EntryPoint(name=name, command=f"{interpreters[suffix]} {shlex.quote(name)}")


def load_project(root: Path) -> Project:
    """Read a project's folder.

    :param root: the folder; the file in it is called MLproject, in any case of letters
    :raises ProjectError: no such folder, or an MLproject file that cannot be used
    """
    if not root.is_dir():
        raise ProjectError(f"{root} is not a folder; a project is a folder with an MLproject file.")
    file = next((f for f in sorted(root.iterdir()) if f.name.lower() == "mlproject" and f.is_file()), None)
    content = _read_yaml(file) if file else {}
    entry_points = {
        str(name): _entry_point(file, str(name), value)
        for name, value in _mapping(file, "entry_points", content.get("entry_points")).items()
    }
    if content.get("databricks_spark_job") is not None:
        raise ProjectError(f"{file}: 'databricks_spark_job' runs on Databricks only; declare 'entry_points' instead.")
    environment, environment_file = _environment(root, file, content)
    docker_env = content.get("docker_env") if environment == "docker_env" else None
    if environment == "docker_env" and not (isinstance(docker_env, dict) and docker_env.get("image")):
        raise ProjectError(f"{file}: 'docker_env' needs an 'image'.")
    _check_docker_lists(file, docker_env or {})
    return Project(
        root=root,
        file=file,
        name=content.get("name"),
        entry_points=entry_points,
        environment=environment,
        environment_file=environment_file,
        docker_env=docker_env,
    )


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ProjectError(f"{file} cannot be read: {error}.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"{file}:{mark.line + 1}" if mark else str(file)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ProjectError(f"{line}: not valid YAML ({problem}); mend this line.") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ProjectError(f"{file}: the file must be a mapping with 'name' and 'entry_points'.")
    return content


def _mapping(file: Path | None, key: str, value: Any) -> dict[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ProjectError(f"{file}: '{key}' must be a mapping, not {type(value).__name__}.")
    return value


def _entry_point(file: Path | None, name: str, value: Any) -> EntryPoint:
    key = f"entry_points.{name}"
    content = _mapping(file, key, value)
    command = content.get("command")
    if not isinstance(command, str) or not command.strip():
        raise ProjectError(f"{file}: '{key}.command' is missing; give the command line to run.")
    parameters = {
        str(parameter): _parameter(file, f"{key}.parameters.{parameter}", str(parameter), declared)
        for parameter, declared in _mapping(file, f"{key}.parameters", content.get("parameters")).items()
    }
    return EntryPoint(name=name, command=command, parameters=parameters)


def _parameter(file: Path | None, key: str, name: str, declared: Any) -> Parameter:
    if isinstance(declared, str):
        parameter = Parameter(name=name, type=declared)
    elif isinstance(declared, dict):
        parameter = Parameter(name=name, type=declared.get("type", "string"), default=declared.get("default"))
    else:
        raise ProjectError(f"{file}: '{key}' must be a type or a mapping with 'type' and 'default'.")
    if parameter.type not in PARAMETER_TYPES:
        raise ProjectError(
            f"{file}: '{key}' has the unknown type {parameter.type!r}; use one of {', '.join(PARAMETER_TYPES)}."
        )
    return parameter


def _check_docker_lists(file: Path | None, docker_env: Mapping[str, Any]) -> None:
    for key, kinds, form in (
        ("volumes", (str,), "strings such as '/host/path:/container/path'"),
        ("environment", (str, list), "variable names to copy, or of [name, value] lists to set"),
    ):
        value = docker_env.get(key) or []
        if not isinstance(value, list) or not all(isinstance(item, kinds) for item in value):
            raise ProjectError(f"{file}: 'docker_env.{key}' must be a list of {form}.")


def _environment(
    root: Path, file: Path | None, content: Mapping[str, Any]
) -> tuple[EnvironmentKind | None, Path | None]:
    declared = [key for key in _ENVIRONMENT_KEYS if key in content]
    if len(declared) > 1:
        raise ProjectError(f"{file}: {' and '.join(map(repr, declared))} exclude each other; keep one.")
    if declared == ["docker_env"]:
        return "docker_env", None
    for key in declared:
        if not content[key]:
            continue
        if not isinstance(content[key], str):
            raise ProjectError(f"{file}: '{key}' must be the name of a file in the project.")
        path = root / content[key]
        if not path.is_file():
            raise ProjectError(f"{file}: '{key}' names {content[key]!r}, but {path} does not exist.")
        return key, path
    # MLflow also takes these files when the MLproject does not mention them.
    if (root / "python_env.yaml").is_file():
        return "python_env", root / "python_env.yaml"
    if (root / "conda.yaml").is_file():
        return "conda_env", root / "conda.yaml"
    return None, None
