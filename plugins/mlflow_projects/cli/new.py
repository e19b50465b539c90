"""``mlflow-projects new``: a project and its DAG, ready to run and to be changed."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from mlflow_projects.cli.next_steps import print_next, short
from mlflow_projects.exceptions import ProjectError

HELP = "make a project and a DAG that runs at once, or a DAG for a project"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_LONGEST_NAME = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what may follow the sub-command's name."""
    parser.add_argument("project", metavar="PROJECT", help="its name, also that of the DAG and of the experiment")
    parser.add_argument(
        "--from", dest="existing", metavar="FOLDER", type=Path,
        help="a project that you have: write only a DAG, with a step for each entry point; the order is said by "
             "'depends_on: [NAME]' below an entry point, or is that of the file",
    )  # fmt: skip
    parser.add_argument("--dags", metavar="FOLDER", type=Path, help="for the DAG; default: Airflow's DAGs folder")
    parser.add_argument(
        "--projects", metavar="FOLDER", type=Path, help="for the project; default: 'projects' beside the DAGs folder"
    )
    parser.add_argument(
        "--python-env",
        action="store_true",
        help="give the project an environment of its own (python_env.yaml), which the first run builds",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the files and print what to type next.

    :raises ProjectError: the name cannot be used, a file is there already, or a folder cannot be written
    """
    from airflow.configuration import conf

    from mlflow_projects.cli import scaffold

    name = arguments.project
    _check_name(name)
    dags = (arguments.dags or Path(conf.get("core", "dags_folder"))).expanduser().absolute()
    dag = dags / f"{name}.py"
    if arguments.existing:
        if arguments.projects or arguments.python_env:
            raise ProjectError("--from writes no project; leave --projects and --python-env out.")
        return _of_project(name, arguments.existing.expanduser().resolve(), dag)
    project = (arguments.projects or dags.parent / "projects").expanduser().absolute() / name
    files = {
        **{project / file: text for file, text in scaffold.project_files(name, arguments.python_env).items()},
        dag: scaffold.dag_file(name, scaffold.path_expression(project, dag)),
    }
    _write(files, project)
    _tell_made(list(files))
    print_next(name, project, dag)
    return 0


def _of_project(name: str, project: Path, dag: Path) -> int:
    from mlflow_projects.cli.project_dag import params_without_default, project_dag

    _write({dag: project_dag(project, name, dag)}, dag)
    _tell_made([dag])
    missing = params_without_default(project)
    if missing:
        print(f"\nNo default: {', '.join(missing)}.")
        print('Give values in the trigger form, or pass on what an earlier step logs: STEP.artifact("PATH").')
    print_next(name, project, dag, missing)
    return 0


def _tell_made(files: list[Path]) -> None:
    print("Made:")
    for file in files:
        print(f"  {short(file)}")


def _check_name(name: str) -> None:
    """Refuse what is no DAG id, no folder's name, or the name of a module."""
    from importlib.util import find_spec

    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise ProjectError(
            f"{name[:_LONGEST_NAME]!r} cannot be a project's name; use a letter, then letters, digits, '_' and '-', "
            f"at most {_LONGEST_NAME} characters."
        )
    found = find_spec(name)
    if found is not None and found.origin is not None:
        raise ProjectError(f"{name!r} is the name of a Python module that is installed here; take another name.")


def _write(files: dict[Path, str], project: Path) -> None:
    taken = [path for path in (project, *files) if path.exists()]
    if taken:
        raise ProjectError(f"{taken[0]} is there already; nothing was written. Take another name, or remove it.")
    for file, text in files.items():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ProjectError(f"{file} cannot be written: {error.strerror}.") from error
