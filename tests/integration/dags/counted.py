"""One task of Airflow's own and one step of ours, whose requests are counted."""

from __future__ import annotations

from pathlib import Path

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

from mlflow_projects import MLflowProjectOperator, mlflow_run

SHELL = Path(__file__).resolve().parents[2] / "projects" / "shell"

with DAG("counted", schedule=None):
    bash = BashOperator(task_id="bash", bash_command="echo done")
    with mlflow_run("parent", experiment_name="counted") as parent:
        MLflowProjectOperator(
            task_id="step", uri=str(SHELL), parameters={"command": "echo done"}, env_manager="local"
        )
    bash >> parent
