"""A DAG for the entry points of a project, one step each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow_projects.cli import python_source as py
from mlflow_projects.cli.python_source import Call, Name
from mlflow_projects.cli.scaffold import path_expression
from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.spec import EntryPoint, Parameter, Project, load_project
from mlflow_projects.project.yaml_files import read_yaml

DEPENDS_ON = "depends_on"
_TYPES = {"int": "integer", "float": "number"}
_TAKEN = ["DAG", "Param", "Path", "PROJECT", "MLflowProjectOperator", "mlflow_run", "start_run", "end_run"]


def project_dag(folder: Path, dag_id: str, file: Path) -> str:
    """Return the text of a DAG file.

    Which step comes after which is said by ``depends_on`` lists below the entry points, a key that MLflow ignores;
    where there are none, each comes after the one before it in the file.

    :param folder: with an MLproject that has entry points
    :param file: where the DAG will be, for the path to the project
    :raises ProjectError: the MLproject cannot be read, has no entry points, or its ``depends_on`` cannot be followed
    """
    project = load_project(folder)
    if project.file is None or not project.entry_points:
        raise ProjectError(f"{project.file or folder} has no entry points; add some, or name another project.")
    order = _order(project)
    params = _params(project)
    taken = list(_TAKEN)
    variables = {}
    for name in project.entry_points:
        variables[name] = py.identifier(name, taken)
        taken.append(variables[name])
    group = py.identifier(str(project.name or dag_id), taken, "project")
    arguments: list[tuple[str, Any]] = [("", dag_id), ("schedule", None)]
    if params:
        arguments.append(("params", {name: param for name, (param, _) in params.items()}))
    arguments.append(("doc_md", Name("__doc__")))
    imports = "DAG, Param" if params else "DAG"
    lines = [
        f'"""The entry points of {Path(project.root).name}, one step each."""',
        "",
        "from pathlib import Path",
        "",
        f"from airflow.sdk import {imports}",
        "from mlflow_projects import MLflowProjectOperator, mlflow_run",
        "",
        f"PROJECT = {path_expression(folder, file)}",
        "",
        py.source(Call("with DAG", arguments), 0, 0, 1) + ":",
        "    " + py.source(Call("with mlflow_run", [("", group), ("experiment_name", dag_id)]), 4, 0, 1) + ":",
    ]
    edges = [(before, name) for name in project.entry_points for before in order[name]]
    named = {name for edge in edges for name in edge}
    for name, entry in project.entry_points.items():
        head = f"{variables[name]} = " if name in named else ""
        step = Call("MLflowProjectOperator", _arguments(variables[name], entry, params))
        lines.append("        " + head + py.source(step, 8, len(head)))
    if not any(_declared(project).values()) and edges:
        lines.append(f"        # In the file's order: no entry point says {DEPENDS_ON}.")
        lines.append("        " + " >> ".join(variables.values()))
    else:
        lines += [
            f"        {_listed([variables[before] for before in order[name]])} >> {variables[name]}"
            for name in project.entry_points
            if order[name]
        ]
    return "\n".join(lines) + "\n"


def params_without_default(folder: Path) -> list[str]:
    """Return the params of a project's DAG that a DAG run needs a value for."""
    params = _params(load_project(folder)).items()
    return [name for name, (param, _) in params if not any(argument == "" for argument, _ in param.arguments)]


def _arguments(
    task_id: str, entry: EntryPoint, params: Mapping[str, tuple[Call, Sequence[tuple[str, str]]]]
) -> list[tuple[str, Any]]:
    arguments: list[tuple[str, Any]] = [("task_id", task_id), ("uri", Name("str(PROJECT)"))]
    if entry.name != "main":
        arguments.append(("entry_point", entry.name))
    own = {
        name: f"{{{{ {py.param(param)} }}}}"
        for param, (_, users) in params.items()
        for user, name in users
        if user == entry.name
    }
    if own:
        arguments.append(("parameters", {name: own[name] for name in entry.parameters if name in own}))
    return arguments


def _params(project: Project) -> dict[str, tuple[Call, list[tuple[str, str]]]]:
    """Return {DAG param: (its declaration, entry points and parameters that get it)}; equal ones are shared."""
    found: dict[str, tuple[Call, list[tuple[str, str]]]] = {}
    for entry in project.entry_points.values():
        for name, parameter in entry.parameters.items():
            key = name
            call = _param(name, parameter, "")
            if name in found and found[name][0] != call:
                key = f"{entry.name}.{name}"
                call = _param(name, parameter, entry.name)
            found.setdefault(key, (call, []))[1].append((entry.name, name))
    return found


def _param(name: str, parameter: Parameter, section: str) -> Call:
    kind = json_type(parameter)
    arguments: list[tuple[str, Any]] = []
    if parameter.default is not None:
        default = parameter.default
        is_number = isinstance(default, int | float) and not isinstance(default, bool)
        if kind == "string" or not is_number:
            kind, default = "string", str(default)
        arguments.append(("", default))
    arguments += [("type", kind), ("title", py.title(name))]
    return Call("Param", [*arguments, ("section", section)] if section else arguments)


def json_type(parameter: Parameter) -> str:
    """Return JSON's name of a parameter's type."""
    return _TYPES.get(str(parameter.type), "string")


def _declared(project: Project) -> dict[str, list[str]]:
    assert project.file is not None
    content = read_yaml(project.file).get("entry_points") or {}
    found = {}
    for name in project.entry_points:
        said = content[name].get(DEPENDS_ON) or [] if isinstance(content.get(name), dict) else []
        where = f"{project.file}: 'entry_points.{name}.{DEPENDS_ON}'"
        if not isinstance(said, list) or not all(isinstance(one, str) for one in said):
            raise ProjectError(f"{where} must be a list of entry points.")
        if unknown := [one for one in said if one not in project.entry_points or one == name]:
            raise ProjectError(f"{where} names {unknown[0]!r}, which is no other entry point.")
        found[name] = said
    return found


def _order(project: Project) -> dict[str, list[str]]:
    """Return {entry point: those that come before it}."""
    found = _declared(project)
    names = list(project.entry_points)
    if not any(found.values()):
        return {name: names[index - 1 : index] if index else [] for index, name in enumerate(names)}
    left = dict(found)
    while left:
        free = [name for name, before in left.items() if not any(one in left for one in before)]
        if not free:
            raise ProjectError(f"{project.file}: {DEPENDS_ON} of {', '.join(left)} goes in a circle.")
        for name in free:
            del left[name]
    return found


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"[{', '.join(names)}]"
