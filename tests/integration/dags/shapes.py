"""Shapes of graphs: mapped steps, nested groups, a step without a group, a time-out."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, task

from mlflow_projects import MLflowEndRunOperator, MLflowProjectOperator, MLflowStartRunOperator, mlflow_run

SHELL = str(Path(__file__).resolve().parents[2] / "projects" / "shell")

with DAG("mapped", schedule=None):
    with mlflow_run("parent", experiment_name="mapped"):
        MLflowProjectOperator.partial(
            task_id="step", uri=SHELL, map_index_template="{{ task.parameters['command'] }}"
        ).expand(parameters=[{"command": f"echo number {n}"} for n in range(3)])

with DAG("nested", schedule=None):
    with mlflow_run("outer", experiment_name="nested"):
        first = MLflowProjectOperator(task_id="first", uri=SHELL, parameters={"command": "true"})
        with mlflow_run("inner") as inner:
            MLflowProjectOperator(task_id="second", uri=SHELL, parameters={"command": "true"})
        first >> inner

with DAG("by_hand", schedule=None):
    start = MLflowStartRunOperator(task_id="start", experiment_name="by_hand", run_name="mine")
    step = MLflowProjectOperator(
        task_id="step",
        uri=SHELL,
        parameters={"command": "true"},
        parent_run_id=start.output,
        run_name="named {{ ds }}",
        tags={"team": "blue"},
    )
    end = MLflowEndRunOperator(task_id="end", run_id=start.output)
    start >> step >> end

with DAG("alone", schedule=None):
    MLflowProjectOperator(task_id="step", uri=SHELL, parameters={"command": "true"})

with DAG("timed_out", schedule=None):
    with mlflow_run("parent", experiment_name="timed_out"):
        MLflowProjectOperator(
            task_id="step",
            uri=SHELL,
            parameters={"command": "echo waiting as $$; exec sleep 600"},
            execution_timeout=timedelta(hours=1),
        )

with DAG("failing_pipeline", schedule=None):
    with mlflow_run("parent", experiment_name="failing"):
        bad = MLflowProjectOperator(task_id="bad", uri=SHELL, parameters={"command": "echo the last words; exit 3"})
        never = MLflowProjectOperator(task_id="never", uri=SHELL, parameters={"command": "true"})
        bad >> never

with DAG("tolerated_failure", schedule=None):
    with mlflow_run("parent", experiment_name="failing"):
        bad = MLflowProjectOperator(task_id="bad", uri=SHELL, parameters={"command": "exit 3"})

        @task(trigger_rule="all_done")
        def clean_up() -> None:
            """Run whatever happened before."""

        bad >> clean_up()


def report_gets_lost(_: object, result: object = None) -> None:
    """Fail after the step's own end."""
    raise RuntimeError("the report of the success gets lost")


with DAG("lost_report", schedule=None):
    with mlflow_run("parent", experiment_name="lost_report"):
        MLflowProjectOperator(
            task_id="step",
            uri=SHELL,
            parameters={"command": "true"},
            post_execute=report_gets_lost,
            retries=1,
            retry_delay=timedelta(0),
        )
