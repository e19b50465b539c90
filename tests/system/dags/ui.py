"""DAGs for the tests in the browser."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Param

from mlflow_projects import MLflowProjectOperator, mlflow_run

PROJECTS = Path(os.environ["AIRFLOW_HOME"]) / "projects"

with DAG(
    "curves",
    schedule=None,
    default_args={"retries": 1, "retry_delay": timedelta(0)},
    params={"waits": Param("no", enum=["yes", "no"]), "code": Param(0, type="integer")},
):
    with mlflow_run("training", experiment_name="curves"):
        train = MLflowProjectOperator(
            task_id="train", uri=f"{PROJECTS}/curves", parameters={"waits": "{{ params.waits }}", "steps": 60}
        )
        check = MLflowProjectOperator(
            task_id="check", uri=f"{PROJECTS}/curves", parameters={"code": "{{ params.code }}", "steps": 5}
        )
        train >> check

# Twenty nights in seconds: the scheduler itself ends the task, and the test writes what it would have measured.
with DAG("nightly", schedule=None, max_active_runs=32, max_active_tasks=32):
    EmptyOperator(task_id="train")
