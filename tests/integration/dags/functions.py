"""Functions as attempts: what they log, where, and how they end."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, task, task_group
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from mlflow_projects import MLflowProjectOperator, MLflowTaskOperator, artifact, mlflow_run, mlflow_task
from tests.support.measured import SCRIPT

SHELL = str(Path(__file__).resolve().parents[2] / "projects" / "shell")


def step(name: str, **parameters: Any) -> MLflowProjectOperator:
    """Return a step that only records what it is given."""
    return MLflowProjectOperator(task_id=name, uri=SHELL, parameters={"command": "true", **parameters})


@task.mlflow
def measure(rate: float, /, name: str = "x", *, deep: bool = True, more: Any = None) -> dict[str, Any]:
    """Log all that a run has."""
    import mlflow

    mlflow.log_metric("rate", rate)
    mlflow.log_param("name", "mine")
    mlflow.set_tag("own", "yes")
    mlflow.log_text("content", "file.txt")
    with mlflow.start_run(nested=True, run_name="inner"):
        mlflow.log_metric("inside", 1)
    run = mlflow.active_run()
    assert run is not None
    return {"run": run.info.run_id, "more": more}


@task.mlflow(log_to="parent")
def into_parent(name: str) -> None:
    """Log to the parent run, as a script that opens a run by itself would."""
    import mlflow

    with mlflow.start_run():
        mlflow.log_metric(name, 1)


@mlflow_task
def plain(number: int) -> int:
    """Need nothing of MLflow."""
    return number + 1


@task
def environment_of_next() -> dict[str, Any]:
    """Look for what a function's task may have left in its process (dag.test has one for all)."""
    mlflow = sys.modules.get("mlflow")
    return {
        "variables": sorted(name for name in os.environ if name.startswith("MLFLOW_RUN")),
        "active": bool(mlflow and mlflow.active_run()),
        "uri": os.environ.get("MLFLOW_TRACKING_URI", ""),
    }


with DAG("functions", schedule=None, params={"rate": 0.25}):
    with mlflow_run("parent", experiment_name="functions"):
        measured = measure("{{ params.rate }}", more=[1, 2])
        measured >> into_parent.override(task_id="one")("a") >> environment_of_next()
        measured >> into_parent.override(task_id="two")("b")
        plain.partial().expand(number=[1, 2])
        step("reads", file=artifact(measured, "file.txt"), text=f"{artifact(measured, 'x')}", value=measured["more"])

    @task_group
    def group(number: int) -> None:
        """Have a parent run for each index."""
        with mlflow_run("inner"):
            plain(number)

    group.expand(number=[5, 6])


def ending(how: str) -> Any:
    """End in a way."""
    import mlflow

    mlflow.log_metric("begun", 1)
    if how == "fail":
        raise ValueError("no such luck")
    if how == "fail for good":
        raise AirflowFailException("never again")
    if how == "skip":
        raise AirflowSkipException("nothing new")
    if how == "exit":
        sys.exit(3)
    if how == "finished by itself":
        mlflow.end_run("FAILED")
    return object() if how == "return what no XCom holds" else None


with DAG("function_ends", schedule=None, params={"how": "", "log_to": "own"}):
    with mlflow_run("parent", experiment_name="functions"):
        MLflowTaskOperator(
            task_id="step", python_callable=ending, op_args=["{{ params.how }}"], log_to="{{ params.log_to }}"
        )


def measured() -> None:
    """Work until MLflow has measured the machine once."""
    import mlflow

    run = mlflow.active_run()
    assert run is not None
    end = time.monotonic() + 120
    while not mlflow.get_run(run.info.run_id).data.metrics and time.monotonic() < end:
        time.sleep(0.1)


with DAG("function_measures", schedule=None):
    MLflowTaskOperator(task_id="step", python_callable=measured, system_metrics=True)
    MLflowProjectOperator(
        task_id="project",
        uri=SHELL,
        system_metrics=True,
        env_manager="local",
        parameters={"command": f"{sys.executable} -c '{SCRIPT}'"},
    )  # fmt: skip

with DAG("kept_output", schedule=None):
    MLflowProjectOperator(
        task_id="step",
        uri=SHELL,
        log_output=True,
        env_manager="local",
        parameters={"command": "echo one; echo two >&2"},
    )

with DAG("function_after_open_run", schedule=None):

    @task
    def leave_open() -> str:
        """Open a run and forget it, as scripts do that end with their process."""
        import mlflow

        return str(mlflow.start_run(run_name="left open").info.run_id)

    @task.mlflow
    def measure_after(left: str) -> str:
        """Log, and open a run of its own below it."""
        import mlflow

        mlflow.log_metric("own", 1)
        with mlflow.start_run(nested=True, run_name="inner") as run:
            return str(run.data.tags["mlflow.parentRunId"])

    @task
    def end_it(after: str) -> str:
        """Return the run that is active again."""
        import mlflow

        run = mlflow.active_run()
        mlflow.end_run()
        return run.info.run_id if run else ""

    end_it(measure_after(leave_open()))
