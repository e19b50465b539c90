"""The same shapes as in faults.py, each step a SageMaker training job; watched by the worker or by a trigger."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG

from mlflow_projects import MLflowProjectOperator, mlflow_run

SHELL = str(Path(__file__).resolve().parents[2] / "projects" / "shell")
PARAMS = {"command": "true", "parameters": {}, "config": {}}


def build(name: str, mode: str, *, step: dict[str, Any] | None = None, **dag: Any) -> None:
    """Make a DAG of one job below a parent run; its command knows the try's number as $TRY.

    Each mode signs its requests with a key of its own, so that AWS can fail one and not the other.
    """
    with DAG(
        f"{name}_{mode}", schedule=None, params=PARAMS, render_template_as_native_obj=True, max_active_runs=8, **dag
    ):
        with mlflow_run("parent", experiment_name="faults of jobs"):
            MLflowProjectOperator(
                task_id="step",
                uri=SHELL,
                parameters="{{ dict(params.parameters, command='TRY=%s; %s' % (ti.try_number, params.command)) }}",
                backend="sagemaker",
                backend_config="{{ params.config }}",
                deferrable=mode == "deferred",
                aws_conn_id=f"aws_{mode}",
                poll_interval=1,
                **step or {},
            )


for mode in ("watched", "deferred"):
    build("job", mode)
    build("job_again", mode, step={"retries": 1, "retry_delay": timedelta(seconds=1)})
    build("job_short_run", mode, dagrun_timeout=timedelta(hours=1))  # strikes by Stack.let_time_out
build("job_limited", "watched", step={"execution_timeout": timedelta(hours=1)})  # strikes by SIGALRM
build("job_limited", "deferred", step={"execution_timeout": timedelta(seconds=15)})  # the trigger's own clock
