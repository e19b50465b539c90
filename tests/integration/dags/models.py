"""Best run, registration, promotion and waiting, everything from the params."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset

from mlflow_projects import (
    MLflowBestRunOperator,
    MLflowModelVersionSensor,
    MLflowProjectOperator,
    MLflowPromoteModelOperator,
    MLflowRegisterModelOperator,
    mlflow_run,
)

TRACKED = str(Path(__file__).resolve().parents[2] / "projects" / "tracked")
RETRY: dict[str, Any] = {"retries": 1, "retry_delay": timedelta(0)}


def lost_first_report(context: Any, result: object = None) -> None:
    """Fail after the task's own work, as if the worker died before it could report."""
    if context["params"]["lost"] and context["ti"].try_number == 1:
        raise RuntimeError("the report of the success gets lost")


with DAG("sweep", schedule=None):
    with mlflow_run("search", experiment_name="sweep"):
        runs = MLflowProjectOperator.partial(task_id="train", uri=TRACKED).expand(
            parameters=[{"loss": loss} for loss in ("nan", "0.1", "0.2")]
        )
        best = MLflowBestRunOperator(task_id="best", metric="loss")
        runs >> best

with DAG(
    "best_run",
    schedule=None,
    render_template_as_native_obj=True,
    params={
        "metric": "loss",
        "direction": "min",
        "parent_run_id": None,
        "experiment_name": None,
        "filter_string": "",
    },
):
    MLflowBestRunOperator(
        task_id="best",
        metric="{{ params.metric }}",
        direction="{{ params.direction }}",
        parent_run_id="{{ params.parent_run_id }}",
        experiment_name="{{ params.experiment_name }}",
        filter_string="{{ params.filter_string }}",
    )

with DAG(
    "model_chain",
    schedule=None,
    render_template_as_native_obj=True,
    default_args=RETRY,
    params={"name": "", "run_id": "", "model": "model", "metric": None, "direction": "min", "lost": False},
):
    registered = MLflowRegisterModelOperator(
        task_id="register",
        name="{{ params.name }}",
        run_id="{{ params.run_id }}",
        model="{{ params.model }}",
        tags={"team": "blue"},
        description="made by a test",
        alias="newest",
        outlets=[Asset("TestModel")],
        post_execute=lost_first_report,
    )
    promoted = MLflowPromoteModelOperator(
        task_id="promote",
        name="{{ params.name }}",
        version=registered.output,
        metric="{{ params.metric }}",
        direction="{{ params.direction }}",
        outlets=[Asset("TestModel@champion")],
        post_execute=lost_first_report,
    )

for dag_id, deferrable in (("wait_in_worker", False), ("wait_in_triggerer", True)):
    with DAG(
        dag_id,
        schedule=None,
        render_template_as_native_obj=True,
        params={"name": "", "alias": None, "version": None, "newer_than": None, "other_than": None},
    ):
        MLflowModelVersionSensor(
            task_id="wait",
            name="{{ params.name }}",
            alias="{{ params.alias }}",
            version="{{ params.version }}",
            newer_than="{{ params.newer_than }}",
            other_than="{{ params.other_than }}",
            deferrable=deferrable,
            poke_interval=0.5,
            timeout=600,
        )
