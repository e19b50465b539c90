"""What Airflow loads besides operators: the plugin, declared once however the library was installed."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from mlflow_projects.hooks import macros
from mlflow_projects.listeners import dag_run, preload, task_instance
from mlflow_projects.ui import EXTERNAL_VIEWS, fastapi_app


def mlflow_variable(*arguments: Any, **named: Any) -> str:
    """Return one of the variables of :func:`mlflow_projects.mlflow_environment`; a macro."""
    from mlflow_projects.operators import environment

    return environment.mlflow_variable(*arguments, **named)


def mlflow_value(*arguments: Any) -> Any:
    """Return the metric or the parameter that a template of ``step.metric("…")`` names; a macro."""
    from mlflow_projects.operators import references

    return references.mlflow_value(*arguments)


class MLflowProjectsPlugin(AirflowPlugin):
    """Keeps MLflow's story the same as Airflow's, and shows it: the tabs "MLflow" of a DAG and of a DAG run."""

    name = "mlflow_projects"
    macros = [macros.mlflow_run_url, macros.mlflow_reason, macros.mlflow_tree, mlflow_value, mlflow_variable]  # noqa: RUF012
    listeners = [dag_run, preload, task_instance]  # noqa: RUF012
    external_views = EXTERNAL_VIEWS

    @cached_property
    def fastapi_apps(self) -> list[Any]:  # type: ignore[override]
        """The app behind the tabs, built on first use: only the API server asks, and it costs 1.5 s."""
        return [fastapi_app()]
