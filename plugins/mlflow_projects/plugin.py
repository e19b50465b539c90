"""What Airflow loads besides operators: the plugin, declared once however the library was installed."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from mlflow_projects.listeners import dag_run, task_instance


class MLflowProjectsPlugin(AirflowPlugin):
    """Keeps MLflow's story the same as Airflow's when a step or a DAG run ends, however it ends."""

    name = "mlflow_projects"
    listeners = [dag_run, task_instance]  # noqa: RUF012
