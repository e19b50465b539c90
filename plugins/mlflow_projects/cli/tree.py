"""``mlflow-projects tree``: the MLflow runs of a DAG run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mlflow_projects.exceptions import TrackingError
from mlflow_projects.public_uri import public_text

if TYPE_CHECKING:
    from rich.table import Table

    from mlflow_projects.tracking.client import Artifact, Run, TrackingClient
    from mlflow_projects.tracking.tree import RunNode

HELP = "show the MLflow runs of a DAG run as a table"
_STATUS_COLOURS = {"FINISHED": "green", "FAILED": "red", "KILLED": "magenta", "RUNNING": "cyan"}
_WIDTH_WITHOUT_TERMINAL = 150
_MAX_FILES = 8  # of a run; the others are in MLflow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what may follow the sub-command's name."""
    parser.add_argument("dag_id", metavar="DAG_ID")
    parser.add_argument(
        "run_id", metavar="RUN_ID", nargs="?", help="the DAG run; default: the newest one that MLflow knows"
    )
    parser.add_argument(
        "--check", action="store_true", help="tell what the records lack of the seven kinds; exit with 1 if anything"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the table; return 1 if the records were to be checked and lack something.

    :raises TrackingError: the tracking server cannot be asked, or holds no such run
    """
    from rich.console import Console

    from mlflow_projects.cli.airflow_side import tracking_settings
    from mlflow_projects.tracking.connect import connect
    from mlflow_projects.tracking.tree import last_dag_run_id, run_tree

    dag_id, run_id = arguments.dag_id, arguments.run_id
    client = connect(replace(tracking_settings(), access="read"))
    try:
        dag_run_id = run_id or last_dag_run_id(client, dag_id)
        tops = run_tree(client, dag_id, dag_run_id) if dag_run_id else []
        if not tops:
            which = f"DAG run {run_id!r} of DAG {dag_id!r}" if run_id else f"DAG {dag_id!r}"
            raise TrackingError(f"{client.settings.address} holds no run of {which}.")
        console = Console()
        if not console.is_terminal:
            console = Console(width=_WIDTH_WITHOUT_TERMINAL)
        console.print(_table(client, f"{dag_id} · {dag_run_id}", tops))
        lacking = _lacking(client, tops) if arguments.check else []
    finally:
        client.close()
    for line in lacking:
        print(line)
    return 1 if lacking else 0


def _lacking(client: TrackingClient, tops: Sequence[RunNode]) -> list[str]:
    """Return a line for each step whose record is not complete; a parent's metrics and artifacts are its steps'."""
    from mlflow_projects.tracking.completeness import kinds_missing_from
    from mlflow_projects.tracking.tags import ROLE

    steps = [node.run for top in tops for _, node in top.walk() if node.run.tags.get(ROLE) == "step"]
    found = [(run, kinds_missing_from(client, run.run_id)) for run in steps]
    return [f"{run.name} ({run.run_id}) lacks: {', '.join(kinds)}." for run, kinds in found if kinds]


def _table(client: TrackingClient, title: str, tops: Sequence[RunNode]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from mlflow_projects.tracking.tags import REUSED_FROM

    table = Table(title=escape(title), caption=escape(f"tracking server: {client.settings.address}"))
    for heading in ("run", "status", "time", "parameters", "metrics", "artifacts"):
        table.add_column(heading, overflow="fold")
    table.add_column("run id", no_wrap=True)
    for top in tops:
        for depth, node in top.walk():
            run = node.run
            reused = run.tags.get(REUSED_FROM, "")
            colour = _STATUS_COLOURS.get(run.status, "yellow")
            seconds = f"{(run.end_time - run.start_time) / 1000:.1f} s" if run.end_time and run.start_time else ""
            table.add_row(
                escape("  " * depth + ("└ " if depth else "") + run.name),
                f"[{colour}]{run.status}[/]" + (f"\nreused {escape(reused[:8])}…" if reused else ""),
                seconds,
                escape("\n".join(f"{key}={_short(public_text(value))}" for key, value in sorted(run.params.items()))),
                escape("\n".join(f"{key}={value:g}" for key, value in sorted(run.metrics.items()) if _is_shown(key))),
                escape("\n".join([*_shown_models(client, run), *_shown_files(node.artifacts)])),
                escape(run.run_id),
            )
    return table


def _shown_models(client: TrackingClient, run: Run) -> list[str]:
    """Name the models that a run logged; MLflow 3 keeps them beside its artifacts."""
    from mlflow_projects.tracking.registration import addresses_of_models

    return [f"{name} (model)" for name in addresses_of_models(client, run)]


def _shown_files(files: Sequence[Artifact]) -> list[str]:
    """Name a few files, those of the upper folders first, and say that there are more."""
    upper = sorted(files, key=lambda file: file.path.count("/"))
    more = ["… and more"] if len(upper) > _MAX_FILES else []
    return [f"{file.path} ({file.size} B)" for file in upper[:_MAX_FILES]] + more


def _short(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else f"…{text[-limit:]}"


def _is_shown(metric: str) -> bool:
    """Leave out what a training job cost, but for one figure."""
    from mlflow_projects.backends.registry import backend_names

    return metric.partition("/")[0] not in backend_names() or metric.endswith("/billable_seconds")
