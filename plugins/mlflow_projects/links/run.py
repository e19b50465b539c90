"""The button from an Airflow task to its MLflow run."""

from __future__ import annotations

from mlflow_projects.links.pushed import PushedLink


class MLflowRunLink(PushedLink):
    """Leads to the run in MLflow's UI."""

    name = "MLflow run"
