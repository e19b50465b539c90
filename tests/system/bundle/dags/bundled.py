"""Two steps of one project that lies beside the DAG's folder, as a user's repository has it."""

from datetime import datetime
from pathlib import Path

from airflow.sdk import DAG

from mlflow_projects import MLflowProjectOperator, mlflow_run

PROJECTS = Path(__file__).resolve().parents[1] / "projects"

with DAG("bundled", schedule=None, start_date=datetime(2026, 1, 1), params={"gate": "", "target": ""}):
    with mlflow_run("bundled", experiment_name="bundled"):
        first = MLflowProjectOperator(
            task_id="first", uri=f"{PROJECTS}/words", parameters={"gate": "{{ params.gate }}"}, entry_point="wait"
        )
        first >> MLflowProjectOperator(
            task_id="second", uri=f"{PROJECTS}/words", parameters={"target": "{{ params.target }}"}
        )
