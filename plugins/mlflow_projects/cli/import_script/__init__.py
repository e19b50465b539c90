"""``mlflow-projects import``: a DAG from a script that runs MLflow Projects one after the other.

The script is run with MLflow's calls recorded instead of executed, as often as it takes to see where its options go.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlflow_projects.cli.next_steps import print_next, short
from mlflow_projects.exceptions import ProjectError

NAME = "import"
HELP = "write a DAG from a script that calls mlflow.run or mlflow.projects.run"
DESCRIPTION = (
    f"{HELP[0].upper()}{HELP[1:]}. The script runs a few times in a copy of its folder, with MLflow's calls "
    "recorded: its projects do not run, and there is no network."
)
_DAG_ID = re.compile(r"[\w.-]+", re.ASCII)
_OF_ANY_FOLDER = ("main", "run", "driver", "pipeline", "run_pipeline")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what may follow the sub-command's name."""
    parser.add_argument(
        "script", metavar="SCRIPT", type=Path, help="the script (.py), or a folder with an MLproject that names it"
    )
    parser.add_argument(
        "-e", "--entry-point", metavar="NAME", default="main",
        help="with a folder: the entry point that runs the script; default: main",
    )  # fmt: skip
    parser.add_argument(
        "-P", dest="values", metavar="NAME=VALUE", action="append", default=[],
        help="the value of an option of the script (with a folder: of a parameter of the entry point); it becomes "
             "the default in the DAG; repeat -P for more options",
    )  # fmt: skip
    parser.add_argument(
        "--dag-id", metavar="ID", help="default: the script's name; for main.py and the like, its folder's name"
    )
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help="the DAG's file; default: DAG_ID.py in Airflow's DAGs folder"
    )
    parser.add_argument(
        "--root", metavar="FOLDER", type=Path,
        help="the folder that holds the script, its projects and all files that it reads; default: the script's git "
             "repository, else the folder you are in, else the script's folder",
    )  # fmt: skip
    parser.add_argument(
        "--python", metavar="PATH", default=sys.executable,
        help="the Python that has mlflow and the script's packages; default: the one of this command",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", metavar="N", type=float, default=60.0,
        help="the longest time for one recording of the script; default: 60",
    )  # fmt: skip
    parser.add_argument(
        "--partial", action="store_true",
        help="if the script decides on a result of a step, write the steps before that place",
    )  # fmt: skip
    parser.add_argument(
        "--verify", action="store_true", help="also run the script and the DAG once each, for real, and compare them"
    )
    parser.usage = "%(prog)s [options] SCRIPT [-- ARG ...]"
    parser.epilog = "What stands after -- are more arguments of the script, as they are."
    parser.set_defaults(args=[])


def run(arguments: argparse.Namespace) -> int:
    """Write the DAG file and print what a person should know.

    :raises ProjectError: the script cannot be imported; nothing was written
    """
    from mlflow_projects.cli.import_script.dag_source import DagSource
    from mlflow_projects.cli.import_script.flow import trace
    from mlflow_projects.cli.import_script.recording import Recorder

    values = _values(arguments.values)
    script, declared, command_line = _script(arguments, values)
    dag_id = arguments.dag_id or _dag_id(script.file)
    if not _DAG_ID.fullmatch(dag_id):
        raise ProjectError(f"{dag_id!r} cannot be a DAG's id; take letters, digits, '_', '-' and '.'.")
    file = _target(arguments.out, dag_id)
    _check_file_name(file, script.root)
    print(f"Recording {script.name}; its projects do not run ...", flush=True)
    with Recorder(arguments.python) as recorder:
        plan = trace(recorder, script, values, command_line, declared, partial=arguments.partial)
    dag = DagSource(plan, script, dag_id, file)
    dag.text()
    rows = _verified(script, arguments.python, plan, dag_id) if arguments.verify else []
    try:
        dag.write()
    except OSError as error:
        raise ProjectError(f"{file} cannot be written: {error.strerror}.") from error
    print(f"Made: {short(file)}")
    for note in dag.notes():
        print(f"  {note}")
    if arguments.verify:
        print("\nThe script and the DAG, run once each:")
    for row in rows:
        print(f"  {row.name}: {'; '.join(row.problems) or 'same command, parameters, metrics, artifacts'}")
        print(f"    {row.command}")
    print_next(dag_id, script.root, file)
    return 1 if any(row.problems for row in rows) else 0


def _verified(script: Any, python: str, plan: Any, dag_id: str) -> Any:
    import tempfile

    from mlflow_projects.cli.import_script.verify import verify

    print("Running the script, then the DAG: this takes as long as both ...", flush=True)
    with tempfile.TemporaryDirectory(prefix="mlflow-projects-verify-") as folder:
        return verify(script, python, plan, dag_id, Path(folder).resolve())


def _values(given: list[str]) -> dict[str, str]:
    found = {}
    for one in given:
        name, sign, value = one.partition("=")
        if not sign or not name:
            raise ProjectError(f"-P {one!r} is not NAME=VALUE; write for example -P epochs=3.")
        found[name] = value
    return found


def _script(
    arguments: argparse.Namespace, values: Mapping[str, str]
) -> tuple[Any, list[dict[str, Any]] | None, Callable[[Mapping[str, Any]], list[str]] | None]:
    from mlflow_projects.cli.import_script.recording import Script

    path, here = arguments.script.expanduser().resolve(), Path.cwd().resolve()
    if not path.exists():
        raise ProjectError(f"{arguments.script} does not exist; name a script, or a folder with an MLproject.")
    declared = command_line = None
    if path.is_dir():
        folder = path
        file, declared, command_line = _of_entry_point(path, arguments.entry_point)
        if missing := [one["name"] for one in declared if one["required"] and one["name"] not in values]:
            raise ProjectError(
                f"Entry point {arguments.entry_point!r} needs values; pass "
                f"{' '.join(f'-P {name}=VALUE' for name in missing)}."
            )
    else:
        file, folder = path, here if path.is_relative_to(here) else path.parent
    if file.suffix != ".py":
        raise ProjectError(f"{arguments.script} is no Python script (.py) and no folder with an MLproject.")
    root = (arguments.root or _root_of(file, folder)).expanduser().resolve()
    if not file.is_relative_to(root):
        raise ProjectError(f"--root {arguments.root} does not hold {arguments.script}.")
    folder = folder if folder.is_relative_to(root) else file.parent
    script = Script(file, root, folder, arguments.args, arguments.seconds)
    return script, declared, command_line


def _of_entry_point(
    folder: Path, name: str
) -> tuple[Path, list[dict[str, Any]], Callable[[Mapping[str, Any]], list[str]]]:
    """Return the script of an entry point, its parameters as options, and what makes arguments of their values."""
    from mlflow_projects.cli.project_dag import json_type
    from mlflow_projects.project.command import build_command, check_parameters
    from mlflow_projects.project.spec import load_project

    project = load_project(folder)
    entry = project.entry_point(name)
    declared = [
        {"name": one.name, "type": json_type(one), "default": one.default, "choices": [],
         "help": "", "required": one.default is None}
        for one in entry.parameters.values()
    ]  # fmt: skip

    def arguments(values: Mapping[str, Any]) -> list[str]:
        parameters = check_parameters(project, entry, values)
        return shlex.split(build_command(project, entry, parameters, lambda uri, _: uri))[2:]

    first = shlex.split(entry.command)[:2]
    file = folder / (first[1] if len(first) == 2 else "")
    if not first or not Path(first[0]).name.startswith("python") or not file.is_file():
        raise ProjectError(
            f"{project.file}: the command of entry point {name!r} is not 'python SCRIPT …'; name the script itself."
        )
    return file.resolve(), declared, arguments


def _root_of(file: Path, folder: Path) -> Path:
    """Return the folder to copy: the script's git repository, else the one in which it is run."""
    for above in file.parents:
        if (above / ".git").exists():
            return above
    return folder


def _dag_id(file: Path) -> str:
    name = file.parent.name if file.stem in _OF_ANY_FOLDER else file.stem
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII) or "imported"


def _check_file_name(file: Path, root: Path) -> None:
    """Refuse a file that would hide a module: Airflow puts the DAGs folder on Python's path."""
    from importlib.util import find_spec

    found = find_spec(file.stem) if file.stem.isidentifier() else None
    if found is not None and found.origin is not None and not Path(found.origin).resolve().is_relative_to(root):
        raise ProjectError(
            f"{file.name} would hide the Python module {file.stem!r}, which is installed here; give another --dag-id "
            "or --out."
        )


def _target(out: Path | None, dag_id: str) -> Path:
    if out is None:
        from airflow.configuration import conf

        out = Path(conf.get("core", "dags_folder")) / f"{dag_id}.py"
    file = out.expanduser().absolute()
    if file.exists():
        raise ProjectError(f"{file} is there already; nothing was written. Take another --out, or remove it.")
    return file
