"""Shapes of faults.py whose step is a function: it executes whatever Python its DAG run's conf says."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, task

from mlflow_projects import mlflow_run

RETRY = {"retries": 1, "retry_delay": timedelta(seconds=1)}
PARAMS = {"command": "", "told": ""}


def fail_afterwards(context: Any, result: Any) -> None:
    """Fail a task whose work was done, as an extension of somebody else may."""
    raise ValueError("after the work")


def execute(command: str, told: str, ti: Any = None) -> None:
    """Execute Python; it may say that it has begun, and wait until it is told to go on.

    :param told: a file; beside it ``<told>.begun`` says that the function runs
    """
    import mlflow

    def begin() -> None:
        Path(f"{told}.begun").touch()

    def wait() -> None:
        begin()
        deadline = time.monotonic() + 300  # a fault that fails must not leave it here for ever
        while not Path(told).exists() and time.monotonic() < deadline:
            time.sleep(0.05)

    exec(command, {"mlflow": mlflow, "time": time, "begin": begin, "wait": wait, "number": ti.try_number})


def step(**more: Any) -> Any:
    """Return a task of the function, with the DAG run's conf."""
    return task.mlflow(task_id="step", **more)(execute)("{{ params.command }}", "{{ params.told }}")


def build(
    dag_id: str, *, mlflow_conn_id: str = "mlflow_default", more: dict[str, Any] | None = None, **dag: Any
) -> None:
    """Make a DAG of such a step and a function after it, below one parent run."""
    with DAG(dag_id, schedule=None, params=PARAMS, max_active_runs=8, **dag):
        with mlflow_run("parent", experiment_name="faults", mlflow_conn_id=mlflow_conn_id):

            @task.mlflow(mlflow_conn_id=mlflow_conn_id)
            def after() -> None:
                """Come after it."""

            step(mlflow_conn_id=mlflow_conn_id, **more or {}) >> after()


build("function")
build("function_again", more=RETRY)
build("function_limited", more={"execution_timeout": timedelta(hours=1)})
build("function_short_run", dagrun_timeout=timedelta(hours=1))
build("function_late_error", more={"post_execute": fail_afterwards})
build("function_of_parent", more={"log_to": "parent", **RETRY})
for way in ("way_0", "way_1", "way_2"):
    build(f"function_{way}", mlflow_conn_id=way, dagrun_timeout=timedelta(hours=1))
    build(f"function_{way}_again", more=RETRY, mlflow_conn_id=way)

for dag_id, more in (("function_alone", {}), ("function_alone_late_error", {"post_execute": fail_afterwards})):
    with DAG(dag_id, schedule=None, params=PARAMS, dagrun_timeout=timedelta(hours=1)):
        step(experiment_name="faults of functions", **more)
