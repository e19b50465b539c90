"""The only file that Airflow's plugin loader loads from this folder (see .airflowignore)."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin


class MLflowProjectsPlugin(AirflowPlugin):
    """Shows under Admin → Plugins that this folder is the one in use."""

    name = "mlflow_projects"
