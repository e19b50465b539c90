"""The only file that Airflow's plugin loader loads from this folder (see .airflowignore)."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from mlflow_projects.listeners import dag_run


class MLflowProjectsPlugin(AirflowPlugin):
    """Closes parent runs when their DAG run ends, however it ends."""

    name = "mlflow_projects"
    listeners = [dag_run]  # noqa: RUF012
