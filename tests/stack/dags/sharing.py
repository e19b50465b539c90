"""Mapped steps that last until the file ``told`` exists, so that two workers take some each."""

from datetime import datetime
from pathlib import Path

from airflow.sdk import DAG

from mlflow_projects import MLflowProjectOperator, mlflow_run

with DAG(
    "stack_sharing", schedule=None, start_date=datetime(2026, 1, 1), params={"told": "/dev/null"}, tags=["test"]
):
    with mlflow_run("sharing", experiment_name="stack_sharing"):
        MLflowProjectOperator.partial(
            task_id="slow",
            uri=str(Path(__file__).parent / "slow"),
        ).expand(parameters=[{"number": str(number), "told": "{{ params.told }}"} for number in range(8)])
