"""From parameters to the command line, byte for byte as MLflow builds it.

Values may come from a DAG's trigger form, so they are untrusted: each is quoted for the shell, and
only the author of the MLproject file writes shell.
"""

from __future__ import annotations

import os
import posixpath
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.spec import EntryPoint, Parameter, Project

# What MLflow takes as a parameter's key (mlflow.utils.validation).
MAX_KEY_LENGTH = 250
_MAX_ARGUMENT = 128 * 1024  # Linux: one argument of a program (MAX_ARG_STRLEN)
_KEY_PATTERN = re.compile(r"^[/\w.\- :]*$")


@dataclass(frozen=True)
class Parameters:
    """An entry point's parameters, checked.

    :param declared: value per parameter of the MLproject, defaults included
    :param extra: values of parameters that the MLproject does not declare; the command gets them
        as ``--key value``
    """

    declared: Mapping[str, Any]
    extra: Mapping[str, Any]

    def as_record(self) -> dict[str, str]:
        """Return every parameter as text, the way the MLflow run records it."""
        return {str(key): str(value) for key, value in {**self.declared, **self.extra}.items()}


def check_parameters(project: Project, entry_point: EntryPoint, given: Mapping[str, Any]) -> Parameters:
    """Check values against the MLproject, before anything is started.

    :param given: the values that the DAG passes, by parameter name
    :raises ProjectError: a parameter is missing, is not of its type, or cannot be recorded by MLflow
    """
    where = f"{project.file or project.root}, entry point {entry_point.name!r}"
    missing = [
        name for name, parameter in entry_point.parameters.items() if name not in given and parameter.default is None
    ]
    if missing:
        raise ProjectError(
            f"{where}: no value for the parameter {', '.join(map(repr, missing))}; "
            "pass it in the operator's 'parameters' or give it a default in the MLproject."
        )
    declared = {}
    for name, parameter in entry_point.parameters.items():
        declared[name] = given.get(name, parameter.default)
        _check_type(where, parameter, declared[name])
    extra = {key: value for key, value in given.items() if key not in declared}
    parameters = Parameters(declared=declared, extra=extra)
    _check_recordable(where, parameters.as_record())
    return parameters


def build_command(
    project: Project,
    entry_point: EntryPoint,
    parameters: Parameters,
    download: Callable[[str, str], str],
    localize: Callable[[str, str], str] | None = None,
) -> str:
    """Return the shell command of an entry point with its parameters.

    :param download: called with (artifact URI, name of a folder to create) for the value of a ``path``
        parameter that is not local; returns the local path
    :param localize: called with (parameter's name, value) for a ``path`` value that is local; default: its
        absolute path on this machine
    :raises ProjectError: a ``path`` value does not exist, or the command uses an unknown placeholder
    """
    values: dict[str, str] = {}
    for position, (name, parameter) in enumerate(entry_point.parameters.items()):
        value = parameters.declared[name]
        if parameter.type == "path":
            if local_path_of(str(value)) is None:
                value = download(str(value), f"param_{position}")
            else:
                value = (localize or existing_path)(name, str(value))
        values[name] = shlex.quote(str(value))
    try:
        command = entry_point.command.format(**values)
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        raise ProjectError(
            f"{project.file}: 'entry_points.{entry_point.name}.command' cannot be filled in "
            f"({type(error).__name__}: {error}); every {{name}} must be a parameter of the entry point, "
            "and a literal brace is written twice."
        ) from None
    extras = [f"--{shlex.quote(str(k))} {shlex.quote(str(v))}" for k, v in parameters.extra.items()]
    return " ".join([command, *extras])


def check_length(entry_point: EntryPoint, command: str) -> None:
    """Refuse a command that Linux cannot start."""
    if len(command.encode()) >= _MAX_ARGUMENT:
        raise ProjectError(
            f"The command of entry point {entry_point.name!r} has {len(command.encode())} bytes; Linux "
            f"takes at most {_MAX_ARGUMENT}. Put long values into a file and pass its path."
        )


def is_recordable(key: str) -> bool:
    """Tell whether MLflow takes a parameter of that name (mlflow.utils.validation)."""
    path_like = key in ("", ".") or key.startswith(("/", "..")) or posixpath.normpath(key) != key
    return len(key) <= MAX_KEY_LENGTH and not path_like and bool(_KEY_PATTERN.match(key))


def local_path_of(uri: str) -> str | None:
    """Return the path that a plain path or ``file:`` URI means, or None for another kind of URI."""
    parsed = urlparse(uri)
    if not parsed.scheme or (parsed.scheme == "file" and not parsed.netloc):
        return url2pathname(parsed.path if uri.startswith("file:") else uri)
    return None


def existing_path(name: str, value: str) -> str:
    """Return the absolute path that a ``path`` parameter means.

    :raises ProjectError: no such file or folder
    """
    local = local_path_of(value)
    if not local or not Path(local).exists():  # "" would mean the worker's own folder
        raise ProjectError(f"Parameter {name!r} is the path {value!r}, but no such file or folder exists.")
    return os.path.abspath(local)  # noqa: PTH100  (Path.absolute keeps "..", MLflow's command does not)


def _check_type(where: str, parameter: Parameter, value: Any) -> None:
    text = str(value)
    if parameter.type in ("int", "float"):
        try:
            {"int": int, "float": float}[parameter.type](text)
        except ValueError:
            raise ProjectError(
                f"{where}: parameter {parameter.name!r} must be of type {parameter.type}, not {text[:100]!r}."
            ) from None
    if parameter.type in ("uri", "path"):
        try:
            scheme = urlparse(text).scheme
        except ValueError as error:
            raise ProjectError(
                f"{where}: parameter {parameter.name!r} is no valid {parameter.type} ({error}): {text[:100]!r}."
            ) from None
        if parameter.type == "uri" and not scheme:
            raise ProjectError(
                f"{where}: parameter {parameter.name!r} must be a URI with a scheme such as s3://, "
                f"not {text[:100]!r}."
            )


def _check_recordable(where: str, record: Mapping[str, str]) -> None:
    for key, text in record.items():
        if "\0" in text:
            raise ProjectError(f"{where}: parameter {key[:100]!r} holds a NUL character; remove it.")
        if not is_recordable(key):
            raise ProjectError(
                f"{where}: MLflow does not take the parameter name {key[:100]!r}; use letters, digits, "
                f"'_', '-', '.', ' ', ':' and '/' (not as a path), at most {MAX_KEY_LENGTH} characters."
            )
