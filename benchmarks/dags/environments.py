"""A project whose command does next to nothing, with its own environment and with the worker's."""

from pathlib import Path

from airflow.sdk import DAG

from mlflow_projects import MLflowProjectOperator

PROJECT = Path(__file__).resolve().parents[1] / "projects" / "environment"

with DAG("with_uv", schedule=None) as with_uv:
    MLflowProjectOperator(task_id="step", uri=str(PROJECT), env_manager="uv")

with DAG("with_local", schedule=None) as with_local:
    MLflowProjectOperator(task_id="step", uri=str(PROJECT), env_manager="local")
