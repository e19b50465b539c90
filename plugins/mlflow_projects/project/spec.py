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

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.paths import is_file, is_folder
from mlflow_projects.project.yaml_files import SpecError, read_yaml

# Those that mean something; any other type is text, as in MLflow.
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
    :param environment_kind: which kind of environment is declared, or None
    :param environment_file: the file that defines it (never for ``docker_env``)
    :param docker_env: the ``docker_env`` mapping as written
    :param broken: what is wrong with the entry points that cannot be used
    :param top: the folder of all that came with the project, if it was fetched
    """

    root: Path
    file: Path | None
    name: str | None
    entry_points: Mapping[str, EntryPoint]
    environment_kind: EnvironmentKind | None = None
    environment_file: Path | None = None
    docker_env: Mapping[str, Any] | None = None
    broken: Mapping[str, SpecError] = field(default_factory=dict)
    top: Path | None = None

    def entry_point(self, name: str) -> EntryPoint:
        """Return the entry point of that name, or the script of that file name.

        A name that ends in ``.py``, ``.sh`` or ``.R`` and is not declared runs that file of the project, as
        MLflow does.

        :raises ProjectError: neither an entry point nor a script of the project, or an entry point that is wrong
        """
        if name in self.broken:
            raise self.broken[name]
        if name in self.entry_points:
            return self.entry_points[name]
        quoted = shlex.quote(name)
        commands = {
            ".py": f"python {quoted}",
            ".sh": f"{os.environ.get('SHELL', 'bash')} {quoted}",
            ".R": f"Rscript -e \"mlflow::mlflow_source('{quoted}')\" --args",
        }
        suffix = os.path.splitext(name)[1]  # noqa: PTH122  (Path would ignore a slash at the end)
        declared = f"its entry points: {', '.join(self.entry_points) or 'none'}"
        if suffix not in commands:
            where = self.file or f"{self.root} (a folder with no MLproject file)"
            raise ProjectError(
                f"{where} has no entry point {name!r} ({declared}); name one of these, "
                "or a .py, .sh or .R file of the project."
            )
        try:
            script = (self.root / name).resolve()
            is_there = script.is_relative_to(self.root.resolve()) and is_file(script)
        except (ValueError, OSError, RuntimeError):  # a NUL, half a character, a circle of links
            is_there = False
        if not is_there:
            raise ProjectError(f"Entry point {name!r} is neither declared ({declared}) nor a file in {self.root}.")
        if suffix == ".R" and quoted != name:  # it stands inside of quotes
            raise ProjectError(f"Entry point {name!r}: name the file with letters, digits and @%+=:,./-_ only.")
        return EntryPoint(name=name, command=commands[suffix])


def load_project(root: Path) -> Project:
    """Read a project's folder.

    :param root: the folder; the file in it is called MLproject, in any case of letters
    An entry point that is wrong is no error as long as another one is used.

    :raises ProjectError: no such folder, or an MLproject file that cannot be used
    """
    if not is_folder(root):
        raise ProjectError(f"{root} is not a folder; a project is a folder with an MLproject file.")
    file = mlproject_file(root)
    content = read_yaml(file) if file else {}
    entry_points, broken = {}, {}
    for name, value in mapping_of(file, ("entry_points",), content.get("entry_points")).items():
        try:
            entry_points[str(name)] = parse_entry_point(file, str(name), value)
        except SpecError as error:
            broken[str(name)] = error
    environment, environment_file = find_environment(root, file, content)
    docker_env = content.get("docker_env") if environment == "docker_env" else None
    return Project(
        root=root,
        file=file,
        name=content.get("name"),
        entry_points=entry_points,
        environment_kind=environment,
        environment_file=environment_file,
        docker_env=docker_env,
        broken=broken,
    )


def mlproject_file(root: Path) -> Path | None:
    """Return the MLproject file of a folder, its name in any case of letters, or None; a folder is none.

    :raises SpecError: the folder cannot be read
    """
    try:
        return next((f for f in sorted(root.iterdir()) if f.name.lower() == "mlproject" and not f.is_dir()), None)
    except OSError as error:
        raise SpecError(f"{root} cannot be read: {error.strerror}; let the Airflow worker read it.") from error


def mapping_of(file: Path | None, key: tuple[str, ...], value: Any) -> dict[Any, Any]:
    """Return the value of a key that must be a mapping; nothing is an empty one.

    :raises SpecError: it is something else
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SpecError(f"{file}: {_named(key)} must be a mapping, not {type(value).__name__}.", key)
    return value


def parse_entry_point(file: Path | None, name: str, value: Any) -> EntryPoint:
    """Read one item of ``entry_points``.

    :raises SpecError: no command, or a parameter that cannot be used
    """
    key = ("entry_points", name)
    content = mapping_of(file, key, value)
    command = content.get("command")
    if not isinstance(command, (str, type(None))):
        kind = type(command).__name__
        raise SpecError(
            f"{file}: {_named((*key, 'command'))} is no text ({kind}); write the command line as one.", key
        )
    if not command or not command.strip():
        raise SpecError(f"{file}: {_named((*key, 'command'))} is missing; give the command line to run.", key)
    parameters = {
        str(parameter): parse_parameter(file, (*key, "parameters", str(parameter)), declared)
        for parameter, declared in mapping_of(file, (*key, "parameters"), content.get("parameters")).items()
    }
    return EntryPoint(name=name, command=command, parameters=parameters)


def parse_parameter(file: Path | None, key: tuple[str, ...], declared: Any) -> Parameter:
    """Read one item of an entry point's ``parameters``.

    :param key: where it stands; the last part is the parameter's name
    :raises SpecError: neither a type nor a mapping
    """
    if isinstance(declared, str):
        parameter = Parameter(name=key[-1], type=declared)
    elif isinstance(declared, dict):
        parameter = Parameter(name=key[-1], type=str(declared.get("type", "string")), default=declared.get("default"))
    else:
        raise SpecError(f"{file}: {_named(key)} must be a type or a mapping with 'type' and 'default'.", key)
    return parameter


def find_environment(
    root: Path, file: Path | None, content: Mapping[str, Any]
) -> tuple[EnvironmentKind | None, Path | None]:
    """Return which environment a project declares, and the file that defines it.

    :raises SpecError: more than one is declared, the file is missing, or ``docker_env`` is incomplete
    """
    if content.get("databricks_spark_job") is not None:
        raise SpecError(
            f"{file}: 'databricks_spark_job' runs on Databricks only; declare 'entry_points' instead.",
            ("databricks_spark_job",),
        )
    declared = [key for key in _ENVIRONMENT_KEYS if key in content]
    if len(declared) > 1:
        raise SpecError(f"{file}: {' and '.join(map(repr, declared))} exclude each other; keep one.", (declared[1],))
    if declared == ["docker_env"] and content["docker_env"]:
        _check_docker(file, content["docker_env"])
        return "docker_env", None
    for key in declared:
        if not content[key]:
            continue
        if not isinstance(content[key], str):
            raise SpecError(f"{file}: '{key}' must be the name of a file in the project.", (key,))
        path = root / content[key]
        if not is_file(path):
            name = content[key][:100]
            there = f"{root / name} does not exist; correct the name, or add the file"
            raise SpecError(f"{file}: '{key}' names {name!r}, but {there}.", (key,))
        return key, path
    # MLflow also takes these files when the MLproject does not mention them.
    if (root / "python_env.yaml").is_file():
        return "python_env", root / "python_env.yaml"
    if (root / "conda.yaml").is_file():
        return "conda_env", root / "conda.yaml"
    return None, None


def _check_docker(file: Path | None, docker_env: Any) -> None:
    if not (isinstance(docker_env, dict) and docker_env.get("image")):
        raise SpecError(f"{file}: 'docker_env' needs an 'image'.", ("docker_env",))
    for key, kinds, form in (
        ("volumes", (str,), "strings such as '/host/path:/container/path'"),
        ("environment", (str, list), "variable names to copy, or of [name, value] lists to set"),
    ):
        value = docker_env.get(key) or []
        if not isinstance(value, list) or not all(isinstance(item, kinds) for item in value):
            raise SpecError(f"{file}: 'docker_env.{key}' must be a list of {form}.", ("docker_env", key))


def _named(key: tuple[str, ...]) -> str:
    return f"'{'.'.join(key)}'"
