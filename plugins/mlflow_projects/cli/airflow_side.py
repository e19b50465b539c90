"""What the sub-commands ask Airflow, outside of any task."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow_projects.tracking.server import TrackingSettings


def database_is_made() -> bool:
    """Tell whether Airflow's database may be asked; ask no SQLite file into being."""
    from airflow.configuration import conf

    from mlflow_projects.tracking.server import sqlite_file

    file = sqlite_file(conf.get("database", "sql_alchemy_conn"))
    return file is None or file.is_file()


def read_connections_from_database() -> None:
    """Let hooks of this process read connections from Airflow's database, as Airflow's own servers do.

    Without a task, Airflow 3.3 looks at environment variables and secrets backends only, unless the process says what
    it is (``ensure_secrets_backend_loaded`` in ``airflow.sdk.execution_time.supervisor``).
    """
    if database_is_made():
        os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")


def dag_run_state(dag_id: str, run_id: str) -> str | None:
    """Return Airflow's state of a DAG run; None if it knows none, or has no database here."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    if not database_is_made():
        return None
    with create_session() as session:
        found = session.scalar(select(DagRun.state).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
    return None if found is None else str(found)


def tracking_settings() -> TrackingSettings:
    """Return how a person at this shell reaches the tracking server.

    ``MLFLOW_TRACKING_URI`` counts first, because it needs no Airflow; then the connection ``mlflow_default``.

    :raises ProjectError: a setting holds what it cannot hold
    """
    from mlflow_projects.tracking.server import settings_from_environment

    if os.environ.get("MLFLOW_TRACKING_URI"):
        return settings_from_environment()
    from mlflow_projects.hooks.mlflow_hook import MLflowHook

    read_connections_from_database()
    return MLflowHook().settings
