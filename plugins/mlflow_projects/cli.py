"""The console command ``mlflow-projects``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_projects import __version__
from mlflow_projects.exceptions import ProjectError, TrackingError

if TYPE_CHECKING:
    from rich.table import Table

    from mlflow_projects.tracking.client import Artifact, TrackingClient
    from mlflow_projects.tracking.tree import RunNode

_STATUS_COLOURS = {"FINISHED": "green", "FAILED": "red", "KILLED": "magenta", "RUNNING": "cyan"}
_WIDTH_WITHOUT_TERMINAL = 150
_MAX_FILES = 8  # of a run; the others are in MLflow


def main(argv: Sequence[str] | None = None) -> int:
    """Run a sub-command; return 0 for success, 1 for an error that was printed in one sentence."""
    parser = argparse.ArgumentParser(prog="mlflow-projects", description="MLflow Projects on Airflow.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    tree = commands.add_parser("tree", help="show the MLflow runs of a DAG run as a table")
    tree.add_argument("dag_id")
    tree.add_argument("run_id", nargs="?", help="the DAG run; default: the newest one that MLflow knows")
    commands.add_parser("janitor", help="close MLflow runs that are open although their DAG run ended")
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "janitor":
            return _janitor()
        return _tree(arguments.dag_id, arguments.run_id)
    except (ProjectError, TrackingError) as error:
        print(f"mlflow-projects: {error}", file=sys.stderr)
        return 1


def _tree(dag_id: str, run_id: str | None) -> int:
    from rich.console import Console

    from mlflow_projects.tracking.client import connect
    from mlflow_projects.tracking.settings import settings_from_environment
    from mlflow_projects.tracking.tree import last_dag_run_id, run_tree

    settings = settings_from_environment()
    database = Path(settings.uri.removeprefix("sqlite:///"))
    if settings.uri.startswith("sqlite:///") and not database.exists():
        raise TrackingError(f"There is no database {database}; name the right one in MLFLOW_TRACKING_URI.")
    client = connect(settings)
    try:
        dag_run_id = run_id or last_dag_run_id(client, dag_id)
        tops = run_tree(client, dag_id, dag_run_id) if dag_run_id else []
        if not tops:
            which = f"DAG run {run_id!r} of DAG {dag_id!r}" if run_id else f"DAG {dag_id!r}"
            raise TrackingError(f"{client.settings.uri} holds no run of {which}.")
        console = Console()
        if not console.is_terminal:
            console = Console(width=_WIDTH_WITHOUT_TERMINAL)
        console.print(_table(client, f"{dag_id} · {dag_run_id}", tops))
    finally:
        client.close()
    return 0


def _janitor() -> int:
    from airflow.configuration import conf
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    from mlflow_projects.backends.base import stop_job_of
    from mlflow_projects.hooks.mlflow_hook import MLflowHook
    from mlflow_projects.tracking.client import Run
    from mlflow_projects.tracking.janitor import tidy

    def state(dag_id: str, run_id: str) -> str | None:
        with create_session() as session:
            found = session.scalar(select(DagRun.state).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
        return None if found is None else str(found)

    def stop(run: Run) -> None:
        stop_job_of(run, print)

    client = MLflowHook().get_conn()
    try:
        closed = tidy(client, state, conf.get("api", "base_url", fallback="http://localhost:8080"), stop)
    finally:
        client.close()
    for run in closed:
        print(f"{run.status:8} {run.run_id}  {run.name}  ({run.dag_id} {run.dag_run_id})")
    print(f"{len(closed)} run(s) closed.")
    return 0


def _table(client: TrackingClient, title: str, tops: Sequence[RunNode]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), caption=escape(f"tracking server: {client.settings.uri}"))
    for heading in ("run", "status", "time", "parameters", "metrics", "artifacts"):
        table.add_column(heading, overflow="fold")
    table.add_column("run id", no_wrap=True)
    for top in tops:
        for depth, node in top.walk():
            run = node.run
            colour = _STATUS_COLOURS.get(run.status, "yellow")
            seconds = f"{(run.end_time - run.start_time) / 1000:.1f} s" if run.end_time and run.start_time else ""
            table.add_row(
                escape("  " * depth + ("└ " if depth else "") + run.name),
                f"[{colour}]{run.status}[/]",
                seconds,
                escape("\n".join(f"{key}={_short(value)}" for key, value in sorted(run.params.items()))),
                escape("\n".join(f"{key}={value:g}" for key, value in sorted(run.metrics.items()) if _is_shown(key))),
                escape("\n".join(_shown_files(node.artifacts))),
                run.run_id,
            )
    return table


def _shown_files(files: Sequence[Artifact]) -> list[str]:
    """Name a few files, those of the upper folders first, and say that there are more."""
    upper = sorted(files, key=lambda file: file.path.count("/"))
    more = ["… and more"] if len(upper) > _MAX_FILES else []
    return [f"{file.path} ({file.size} B)" for file in upper[:_MAX_FILES]] + more


def _short(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else f"…{text[-limit:]}"


def _is_shown(metric: str) -> bool:
    """Leave out what a training job cost, but for one figure."""
    return not metric.startswith("sagemaker/") or metric == "sagemaker/billable_seconds"


if __name__ == "__main__":
    sys.exit(main())
