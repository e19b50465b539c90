"""What a person types next, after a command has written a DAG."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path


def print_next(dag_id: str, project: Path, file: Path, missing: Sequence[str] = ()) -> None:
    """Print the commands that check the project and run the DAG once.

    :param project: what to check
    :param file: the DAG's
    :param missing: params of the DAG that have no default
    """
    from airflow.configuration import conf

    from mlflow_projects.cli.airflow_side import database_is_made

    commands = [f"mlflow-projects check {shlex.quote(short(project))}"]
    if not file.is_relative_to(Path(conf.get("core", "dags_folder")).expanduser().absolute()):
        commands.insert(0, f"export AIRFLOW__CORE__DAGS_FOLDER={shlex.quote(str(file.parent))}")
    if not database_is_made():
        commands.append("airflow db migrate")
    values = f" --conf {shlex.quote(json.dumps(dict.fromkeys(missing, 'VALUE')))}" if missing else ""
    commands += [f"airflow dags test {dag_id}{values}", f"mlflow-projects tree {dag_id}"]
    print("\nNext:")
    for command in commands:
        print(f"  {command}")


def short(path: Path) -> str:
    """Return a path as seen from this folder, if it is below it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
