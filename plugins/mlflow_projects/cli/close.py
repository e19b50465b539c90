"""``mlflow-projects close``: a person ends one MLflow run that nobody else will."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow_projects.tracking.client import Run

HELP = "close one MLflow run that is open although nobody works on it any more"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what may follow the sub-command's name."""
    parser.add_argument("run_id", metavar="RUN_ID", help="the MLflow run's id")
    parser.add_argument("--reason", required=True, help="why, in one sentence; it is written into the run")
    parser.add_argument(
        "--status", choices=("KILLED", "FAILED"), default="KILLED", help="what it becomes; default: KILLED"
    )


def run(arguments: argparse.Namespace) -> int:
    """Close the run, after what is open below it, and print what was closed.

    :raises ProjectError: it is closed, or its DAG run still runs; no reason is given
    """
    from mlflow_projects.backends.registry import stop_job_of
    from mlflow_projects.cli.airflow_side import dag_run_state, tracking_settings
    from mlflow_projects.exceptions import ProjectError
    from mlflow_projects.tracking.client import OPEN_STATUSES
    from mlflow_projects.tracking.closing import abandon, close_open_descendants
    from mlflow_projects.tracking.connect import connect
    from mlflow_projects.tracking.record import user_name
    from mlflow_projects.tracking.tags import DAG_ID, DAG_RUN_ID

    def stop(run: Run) -> None:
        stop_job_of(run, print)

    if not arguments.reason.strip():
        raise ProjectError("--reason is empty; say in one sentence why the run is closed.")
    reason = f"closed by {user_name() or 'hand'}: {arguments.reason}"
    client = connect(replace(tracking_settings(), access="change"))
    try:
        run = client.get_run(arguments.run_id)
        if run.status not in OPEN_STATUSES:
            raise ProjectError(f"Run {run.run_id} ({run.name}) is {run.status}; only an open run can be closed.")
        dag_id, dag_run_id = run.tags.get(DAG_ID, ""), run.tags.get(DAG_RUN_ID, "")
        state = dag_run_state(dag_id, dag_run_id)
        if state in ("queued", "running"):
            raise ProjectError(
                f"DAG run {dag_run_id} of {dag_id} is {state}; mark or clear its task in Airflow, then the run is "
                "closed with it."
            )
        closed = close_open_descendants(client, run, reason, stop)
        stop(run)
        written = abandon(client, run, reason, arguments.status)
        if written is None:
            raise ProjectError(f"Run {run.run_id} ({run.name}) was deleted in MLflow; restore it first.")
    finally:
        client.close()
    for one in closed:
        print(f"{'KILLED':8} {one.run_id}  {one.name}")
    print(f"{written:8} {run.run_id}  {run.name}")
    return 0
