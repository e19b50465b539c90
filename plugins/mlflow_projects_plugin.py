"""The only file that Airflow's plugin loader loads from this folder (see .airflowignore)."""

from __future__ import annotations

from mlflow_projects.plugin import MLflowProjectsPlugin

__all__ = ["MLflowProjectsPlugin"]
