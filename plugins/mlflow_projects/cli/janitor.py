"""``mlflow-projects janitor``: the DAG of that name, as a command."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow_projects.tracking.client import Run

HELP = "close MLflow runs that are open although their DAG run ended"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what may follow the sub-command's name: nothing."""


def run(arguments: argparse.Namespace) -> int:  # noqa: ARG001
    """Look once, close, and print what was closed.

    :raises ProjectError: Airflow has no database, so there is nothing to compare with
    """
    from mlflow_projects.backends.registry import stop_job_of
    from mlflow_projects.cli.airflow_side import dag_run_state, database_is_made, read_connections_from_database
    from mlflow_projects.config import airflow_url
    from mlflow_projects.exceptions import ProjectError
    from mlflow_projects.hooks.mlflow_hook import MLflowHook
    from mlflow_projects.tracking.connect import connect
    from mlflow_projects.tracking.janitor import close_leftovers

    if not database_is_made():
        raise ProjectError("Airflow has no database here; set AIRFLOW_HOME, or make it with: airflow db migrate")

    def stop(run: Run) -> None:
        stop_job_of(run, print)

    read_connections_from_database()
    client = connect(replace(MLflowHook().settings, access="change"))
    try:
        closed = close_leftovers(client, dag_run_state, airflow_url(), stop)
    finally:
        client.close()
    for one in closed:
        print(f"{one.status:8} {one.run_id}  {one.name}  ({one.dag_id} {one.dag_run_id})")
    print(f"{len(closed)} run(s) closed.")
    return 0
