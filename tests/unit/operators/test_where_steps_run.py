"""Airflow's own arguments that say where a task runs reach the scheduler: queue, pool, executor, executor_config."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.sdk import DAG, TaskGroup
from airflow.serialization.serialized_objects import DagSerialization

from mlflow_projects import MLflowProjectOperator, mlflow_run

TEMPLATE = {"pod_template_file": "/opt/airflow/pods/gpu.yaml"}


def as_the_scheduler_has_it(dag: DAG) -> dict[str, Any]:
    """Return the tasks after the way through Airflow's database."""
    return DagSerialization.from_dict(DagSerialization.to_dict(dag)).task_dict


def dag() -> DAG:
    return DAG("where", schedule=None, start_date=datetime(2026, 1, 1))


def test_a_step_keeps_its_place_and_its_priority() -> None:
    place: dict[str, Any] = {
        "queue": "gpu",
        "pool": "cards",
        "pool_slots": 2,
        "priority_weight": 7,
        "executor_config": TEMPLATE,
    }
    with dag() as made:
        MLflowProjectOperator(task_id="one", uri="/p", **place)
        MLflowProjectOperator.partial(task_id="many", uri="/p", **place).expand(parameters=[{"a": 1}, {"a": 2}])
    tasks = as_the_scheduler_has_it(made)
    for name in ("one", "many"):
        assert {key: getattr(tasks[name], key) for key in place} == place


def test_the_groups_default_args_count_for_all_its_tasks_unless_start_and_end_have_their_own() -> None:
    with dag() as made:
        with mlflow_run("plain", default_args={"queue": "gpu", "executor_config": TEMPLATE}):
            MLflowProjectOperator(task_id="step", uri="/p")
        own: dict[str, Any] = {"queue": "default", "executor_config": {}}
        with mlflow_run("light", default_args={"queue": "gpu", "executor_config": TEMPLATE}, start_end_args=own):
            MLflowProjectOperator(task_id="step", uri="/p")
            with TaskGroup("inner"):
                MLflowProjectOperator(task_id="step", uri="/p")
    tasks = as_the_scheduler_has_it(made)
    places = {name: (task.queue, task.executor_config) for name, task in tasks.items()}
    there, light = ("gpu", TEMPLATE), ("default", {})
    assert places == {
        "plain.start_run": there, "plain.step": there, "plain.end_run": there,
        "light.start_run": light, "light.step": there, "light.inner.step": there, "light.end_run": light,
    }  # fmt: skip


def test_start_and_end_may_have_an_executor_of_their_own() -> None:
    with dag() as made:
        with mlflow_run("pods", start_end_args={"executor": "LocalExecutor"}):
            MLflowProjectOperator(task_id="step", uri="/p")
    executors = {name: task.executor for name, task in as_the_scheduler_has_it(made).items()}
    assert executors == {"pods.start_run": "LocalExecutor", "pods.step": None, "pods.end_run": "LocalExecutor"}
