"""The button from an Airflow task to the model version that it made, moved or waited for."""

from __future__ import annotations

from mlflow_projects.links.pushed import PushedLink


class MLflowModelLink(PushedLink):
    """Leads to the model version in MLflow's UI."""

    name = "MLflow model"
