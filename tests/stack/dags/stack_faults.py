"""DAGs that the faults of the stack are done to; their steps run what the DAG run's conf says."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from mlflow_projects import MLflowModelVersionSensor, MLflowProjectOperator, mlflow_run

# In containers tests/stack/faults.yaml mounts it.
PROJECTS = os.environ.get("STACK_FAULTS_PROJECTS", "/opt/stack_faults/projects")
EXPERIMENT = "faults of the stack"
RETRIES: dict[str, Any] = {"retries": 2, "retry_delay": timedelta(seconds=3)}

with DAG("stack_step", schedule=None, params={"command": "true"}):
    with mlflow_run("parent", experiment_name=EXPERIMENT):
        MLflowProjectOperator(
            task_id="step", uri=f"{PROJECTS}/shell", parameters={"command": "{{ params.command }}"}, **RETRIES
        )

with DAG("stack_many", schedule=None, params={"command": "true"}):
    with mlflow_run("parent", experiment_name=EXPERIMENT):
        many = MLflowProjectOperator.partial(
            task_id="step", uri=f"{PROJECTS}/shell", parameters={"command": "{{ params.command }}"}, **RETRIES
        ).expand(run_name=[f"step {number}" for number in range(4)])
        after = MLflowProjectOperator(task_id="after", uri=f"{PROJECTS}/shell", parameters={"command": "true"})
        many >> after

with DAG("stack_uploads", schedule=None, params={"told": "none"}):
    with mlflow_run("parent", experiment_name=EXPERIMENT):
        MLflowProjectOperator(
            task_id="step",
            uri=f"{PROJECTS}/uploads",
            parameters={"told": "{{ params.told }}"},
            **{**RETRIES, "retries": 9},  # some may meet what is still broken
        )

with DAG("stack_deferred", schedule=None, params={"model": "none"}):
    with mlflow_run("parent", experiment_name=EXPERIMENT):
        wait = MLflowModelVersionSensor(
            task_id="wait", name="{{ params.model }}", deferrable=True, poke_interval=1, timeout=180
        )
        wait >> MLflowProjectOperator(task_id="step", uri=f"{PROJECTS}/shell", parameters={"command": "true"})
