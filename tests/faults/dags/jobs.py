"""The same shapes as in faults.py, each step a SageMaker training job; watched by the worker or by a trigger."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG

from mlflow_projects import MLflowProjectOperator, mlflow_run

SHELL = str(Path(__file__).resolve().parents[2] / "projects" / "shell")
PARAMS = {"command": "true", "parameters": {}, "config": {}}


def build(dag_id: str, *, deferrable: bool, step: dict[str, Any] | None = None, **dag: Any) -> None:
    """Make a DAG of one job below a parent run; its command knows the try's number as $TRY."""
    with DAG(dag_id, schedule=None, params=PARAMS, render_template_as_native_obj=True, max_active_runs=8, **dag):
        with mlflow_run("parent", experiment_name="faults of jobs"):
            MLflowProjectOperator(
                task_id="step",
                uri=SHELL,
                parameters="{{ dict(params.parameters, command='TRY=%s; %s' % (ti.try_number, params.command)) }}",
                backend="sagemaker",
                backend_config="{{ params.config }}",
                deferrable=deferrable,
                poll_interval=1,
                **step or {},
            )


for mode, deferrable in (("watched", False), ("deferred", True)):
    build(f"job_{mode}", deferrable=deferrable)
    build(f"job_again_{mode}", deferrable=deferrable, step={"retries": 1, "retry_delay": timedelta(seconds=1)})
    build(f"job_limited_{mode}", deferrable=deferrable, step={"execution_timeout": timedelta(seconds=8)})
    build(f"job_short_run_{mode}", deferrable=deferrable, dagrun_timeout=timedelta(seconds=10))
