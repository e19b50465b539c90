"""What is wrong with a project's folder, each problem with file and line, before any task runs it.

The rules are those of :mod:`mlflow_projects.project`, which stops at the first problem; here all are collected. An
error makes a task fail for certain. A warning is what runs, but is hardly meant or may fail.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_projects.cli.script_names import scripts_of
from mlflow_projects.cli.yaml_lines import Lines
from mlflow_projects.exceptions import ProjectError, one_line
from mlflow_projects.project import quoting, shell_syntax
from mlflow_projects.project.command import check_type, is_recordable
from mlflow_projects.project.paths import exists
from mlflow_projects.project.placeholders import placeholders
from mlflow_projects.project.spec import (
    PARAMETER_TYPES,
    EntryPoint,
    EnvironmentKind,
    Parameter,
    Project,
    find_environment,
    mapping_of,
    mlproject_file,
    parse_entry_point,
    parse_parameter,
)
from mlflow_projects.project.yaml_files import MAX_BYTES, SpecError, read_yaml
from mlflow_projects.public_uri import public_text

Key = tuple[str, ...]

_TOP_KEYS = ("name", "entry_points", "python_env", "conda_env", "docker_env", "databricks_spark_job")
_ENTRY_POINT_KEYS = ("parameters", "command", "depends_on")  # the last is for `mlflow-projects new --from`
_PARAMETER_KEYS = ("type", "default", "description")
_DOCKER_KEYS = ("image", "volumes", "environment")
_MEANT = {"str": "string", "text": "string", "integer": "int", "double": "float", "number": "float"}
_MAX_JUDGED = 100  # parameters of an entry point, and unknown keys of a mapping
_MAX_COMMANDS = 2**15  # characters of all commands of a file that are looked into
_SKIPPED_FOLDERS = ("node_modules", "site-packages", "__pycache__", "build", "dist")


@dataclass(frozen=True)
class Finding:
    """A problem at a line of a file; its text is what editors understand as a place to jump to.

    :param line: counted from 1
    :param is_error: False for a warning
    """

    file: Path
    line: int
    message: str
    is_error: bool = True

    def __str__(self) -> str:
        kind = "error" if self.is_error else "warning"
        return one_line(f"{self.file}:{self.line}: {kind}: {public_text(self.message)}")


@dataclass(frozen=True)
class Report:
    """All that was found in one project.

    :param environment: what the project declares, if that could be told
    """

    root: Path
    findings: Sequence[Finding]
    environment: EnvironmentKind | None


def find_projects(path: Path) -> list[Path]:
    """Return every folder at or below a path that holds an MLproject file, in order of their names.

    :param path: a folder, or an MLproject file; hidden folders and those of tools are not entered
    """
    if path.is_file() and path.name.lower() == "mlproject":
        return [path.parent]
    found = []
    for folder, below, files in os.walk(path):
        below[:] = sorted(name for name in below if not name.startswith(".") and name not in _SKIPPED_FOLDERS)
        if any(name.lower() == "mlproject" for name in files):
            found.append(Path(folder))
    return found


def is_template(root: Path) -> bool:
    """Tell whether a folder is a template of projects (cookiecutter's ``{{name}}``) and none itself."""
    return "{{" in str(root.absolute())


def lint_project(root: Path) -> Report:
    """Look for every problem of a project.

    :param root: a folder with an MLproject file
    :raises ProjectError: it holds none
    """
    file = mlproject_file(root)
    if file is None:
        raise ProjectError(f"{root} holds no MLproject file.")
    try:
        content = read_yaml(file)
    except SpecError as error:
        return Report(root, [Finding(file, error.line or 1, _without_place(error, file))], None)
    linter = _Linter(root, file, content)
    linter.look()
    return Report(root, sorted(linter.findings, key=lambda finding: (finding.file, finding.line)), linter.environment)


class _AnyVariable(dict[str, str]):
    """The variables of a worker that is not this one: it may have any that a command can get."""

    def __contains__(self, name: object) -> bool:
        from mlflow_projects.backends.local.withheld_variables import is_withheld

        # Of these a connection says some.
        return str(name).startswith("MLFLOW_TRACKING_") or not is_withheld(str(name))

    def __missing__(self, name: str) -> str:
        return f"/any/{name}"


class _Linter:
    def __init__(self, root: Path, file: Path, content: Mapping[str, Any]) -> None:
        self.root, self.file, self.content = root, file, content
        self.lines = Lines(file)
        self._left = _MAX_COMMANDS
        self.findings: list[Finding] = []
        self.environment: EnvironmentKind | None = None

    def look(self) -> None:
        for line, key, first in self.lines.repeated():
            message = f"'{key}' is given twice (also in line {first}); the last one counts."
            self.findings.append(Finding(self.file, line, message, is_error=False))
        self._unknown_keys((), self.content, _TOP_KEYS)
        try:
            entry_points = mapping_of(self.file, ("entry_points",), self.content.get("entry_points"))
        except SpecError as error:
            entry_points = {}
            self._spec_error(error)
        else:
            if not entry_points:
                message = "no entry point is declared; a task must then name a .py, .sh or .R file as entry_point."
                self._warn((), message)
        for name, value in entry_points.items():
            self._entry_point(str(name), value)
        self._environment()

    def _entry_point(self, name: str, value: Any) -> None:
        key = ("entry_points", name)
        try:
            content = mapping_of(self.file, key, value)
            declared = mapping_of(self.file, (*key, "parameters"), content.get("parameters"))
        except SpecError as error:
            self._spec_error(error)
            return
        self._unknown_keys(key, content, _ENTRY_POINT_KEYS)
        for parameter, declaration in declared.items():
            self._parameter((*key, "parameters", str(parameter)), declaration)
        try:
            entry_point = parse_entry_point(self.file, name, {**content, "parameters": None})
        except SpecError as error:
            self._spec_error(error)
            return
        self._command((*key, "command"), entry_point, [str(parameter) for parameter in declared])

    def _parameter(self, key: Key, declaration: Any) -> None:
        if isinstance(declaration, dict):
            self._unknown_keys(key, declaration, _PARAMETER_KEYS)
        try:
            parameter = parse_parameter(self.file, key, declaration)
        except SpecError as error:
            self._spec_error(error)
            return
        if not is_recordable(parameter.name):
            self._error(key, f"MLflow does not take the parameter name {parameter.name!r}; take another one.")
        if parameter.type not in PARAMETER_TYPES:
            kind, name = parameter.type.lower(), ".".join(key)
            known = _MEANT.get(kind) or next(iter(difflib.get_close_matches(kind, PARAMETER_TYPES, n=1)), "string")
            self._warn(key, f"'{name}' has the unknown type {parameter.type!r}, which counts as text; use '{known}'.")
        if isinstance(declaration, dict) and "default" in declaration and parameter.default is None:
            self._warn((*key, "default"), "a default of null is none; write '' for an empty text, or leave it out.")
        if parameter.default is not None:
            self._default((*key, "default"), parameter)

    def _default(self, key: Key, parameter: Parameter) -> None:
        try:
            check_type(f"the default of '{'.'.join(key[:-1])}'", parameter, parameter.default)
        except ProjectError as error:
            # A number's default is used as it is written; another one fails only where the DAG passes no value.
            self._warn(key, str(error))

    def _command(self, key: Key, entry_point: EntryPoint, declared: Sequence[str]) -> None:
        command = entry_point.command
        try:
            parts = placeholders("the command", command)
            names = {field for _, field, _, _ in parts if field is not None}
            names |= {name for _, _, form, _ in parts for name in re.findall(r"\{(\w+)", form or "")}
            command.format(**dict.fromkeys([*names, *declared], "1"))
        except ProjectError as error:
            self._error(key, str(error))
            return
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            self._error(key, f"the command cannot be filled in ({error}); a literal brace is written twice.")
            return
        for name in sorted(names - set(declared)):
            self._error(
                key,
                f"the command uses {{{name}}}, but '{name}' is no parameter of '{entry_point.name}'; declare it, or "
                "write a literal brace twice.",
            )
        for name in declared:
            if name not in names:
                self._warn(
                    ("entry_points", entry_point.name, "parameters", name),
                    f"the command of '{entry_point.name}' does not use the parameter '{name}', so its value has no "
                    f"effect; write {{{name}}} into the command, or remove it.",
                )
        if len(command) > self._left:
            self._warn(
                key,
                f"the file's commands have more than {_MAX_COMMANDS} characters up to here; it is not looked into.",
            )
            return
        self._left -= len(command)
        self._quoted_places(key, command, names, sorted(declared))
        try:
            scripts = list(scripts_of(command))
        except shell_syntax.TooComplexError as error:
            self._warn(key, f"nothing can be said of what stands {error}.")
            return
        # The image of a docker_env may have files of its own, where `mlflow run` without --build-image looks.
        in_image = bool(self.content.get("docker_env"))
        say = self._warn if in_image else self._error
        end = "; fine if the image's WORKDIR has it: backend_config={'docker_workdir': 'image'}" if in_image else ""
        for script, is_first, is_program in scripts:
            path = self.root / script
            if not exists(path):
                message = f"the command runs {script!r}, but the project holds no such file"
                if is_first:
                    say(key, f"{message}{end}.")
                else:
                    self._warn(key, f"{message}; fine if it is made before, or may be missing.")
            elif is_first and is_program and not os.access(path, os.X_OK):
                say(key, f"the command runs {script!r}, which is not executable; run: chmod +x {script}")

    def _quoted_places(self, key: Key, command: str, names: Iterable[str], declared: Sequence[str]) -> None:
        for name in declared[:_MAX_JUDGED]:
            marks = quoting.Marks()
            try:
                filled = command.format(**{**dict.fromkeys([*names, *declared], "1"), name: marks})
            except ValueError:  # a parameter is the format of another one
                continue
            found = quoting.places(filled, [mark for mark in marks.given if mark in filled])
            place = next((place for place in found if place.quoted), None)
            if place is None:
                continue
            try:
                place.write("it's $(date)")
                problem = (
                    "inside of quotes, where plain `mlflow run` (not this library) lets a value such as $(…) run"
                )
            except quoting.PlaceError as error:
                problem = f"{error}, so that only values of letters, digits and @%+=:,./-_ are taken"
            self._warn(key, f"{{{name}}} stands {problem}; write {{{name}}} as a word of its own, without quotes.")

    def _environment(self) -> None:
        from mlflow_projects.project.conda_file import read_conda_file
        from mlflow_projects.project.python_environment import read_python_environment

        try:
            self.environment, file = find_environment(self.root, self.file, self.content)
        except SpecError as error:
            self._spec_error(error)
            return
        docker_env = self.content.get("docker_env")
        for name in ("python_env", "conda_env", "docker_env", "entry_points"):
            if name in self.content and not self.content[name]:
                self._warn((name,), f"'{name}' is empty and counts for nothing; fill it in, or remove it.")
        if self.environment == "docker_env" and isinstance(docker_env, dict):
            self._unknown_keys(("docker_env",), docker_env, _DOCKER_KEYS)
            self._docker_env(docker_env)
        if file is None:
            return
        project = Project(self.root, self.file, None, {}, self.environment, file)
        is_conda = self.environment == "conda_env"
        try:
            if is_conda:
                read_conda_file(project)
        except ProjectError as error:
            self._environment_error(file, error)
            return
        try:
            declared = read_python_environment(project)
        except ProjectError as error:
            self._environment_error(file, error, is_error=not is_conda)  # env_manager conda may well take it
            return
        if declared.warning:
            message = f"With env_manager 'uv': {declared.warning[0].lower()}{declared.warning[1:]}"
            self.findings.append(Finding(file, 1, message, is_error=False))
        wanted = declared.requirements
        if not any(line.lower().startswith("mlflow") for line in wanted) and self._imports_mlflow():
            message = "'mlflow' is missing in 'dependencies', but a script of the project imports it."
            self.findings.append(Finding(file, 1, message, is_error=False))

    def _environment_error(self, file: Path, error: ProjectError, *, is_error: bool = True) -> None:
        line = getattr(error, "line", None) or 1
        self.findings.append(Finding(file, line, _without_place(error, file), is_error=is_error))

    def _docker_env(self, docker_env: Mapping[str, Any]) -> None:
        from mlflow_projects.backends.local.docker_env import declared_variables, volumes_of

        project = Project(self.root, self.file, None, {}, self.environment, None, dict(docker_env))
        for key, look in (("volumes", volumes_of), ("environment", declared_variables)):
            try:
                look(project, _AnyVariable())
            except ProjectError as error:
                self._error(("docker_env", key), _without_place(error, self.file))

    def _imports_mlflow(self) -> bool:
        pattern = re.compile(r"^\s*(import|from) mlflow\b", re.MULTILINE)
        scripts = filter(Path.is_file, self.root.glob("*.py"))
        return any(pattern.search(_beginning(script)) for script in scripts)

    def _unknown_keys(self, key: Key, content: Mapping[Any, Any], known: Sequence[str]) -> None:
        unknown = [name for name in map(str, content) if name not in known]
        place = f" in '{'.'.join(key)}'" if key else ""
        for name in unknown[:_MAX_JUDGED]:
            if meant := difflib.get_close_matches(name, known, n=1):
                self._warn(
                    (*key, name), f"unknown key '{name}'{place}, which MLflow ignores; do you mean '{meant[0]}'?"
                )
            else:
                self._warn(
                    (*key, name), f"unknown key '{name}'{place}, which MLflow ignores; it knows {_listed(known)}."
                )
        if more := unknown[_MAX_JUDGED:]:
            self._warn((*key, more[0]), f"and {len(more)} more unknown keys{place}, which MLflow ignores.")

    def _spec_error(self, error: SpecError) -> None:
        self._error(error.key, _without_place(error, self.file))

    def _error(self, key: Key, message: str) -> None:
        self.findings.append(Finding(self.file, self.lines.of(key), message))

    def _warn(self, key: Key, message: str) -> None:
        self.findings.append(Finding(self.file, self.lines.of(key), message, is_error=False))


def _beginning(script: Path) -> str:
    """Return the text of a script as far as imports stand; what is larger is hardly a script."""
    try:
        with script.open(encoding="utf-8", errors="replace") as opened:
            return opened.read(MAX_BYTES)
    except OSError:
        return ""


def _without_place(error: ProjectError, file: Path) -> str:
    """Return an error's sentence without the file and line that it begins with."""
    return re.sub(rf"^{re.escape(str(file))}(:\d+)?:? ", "", str(error))


def _listed(words: Sequence[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)
