"""A success that Airflow did not take is withdrawn as soon as the task has reported it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator

from mlflow_projects import MLflowProjectOperator
from mlflow_projects.listeners.task_instance import on_task_instance_failed, on_task_instance_success
from mlflow_projects.tracking.client import Run
from tests.support.memory_tracking import MemoryClient
from tests.support.tracked import CONNECTION, TaskInstance, connected, context_of, prepared, written

REASON = "mlflow_projects.reason"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MemoryClient:
    monkeypatch.setenv("AIRFLOW__MLFLOW_PROJECTS__CACHE_DIR", str(tmp_path / "cache"))
    return connected(monkeypatch)


def succeeded(client: MemoryClient, folder: Path, ti: TaskInstance) -> tuple[Any, Run]:
    """Run a step to its good end in this process, as a task process does; return it with its run."""
    folder = folder / "project"
    folder.mkdir()
    (folder / "MLproject").write_text("entry_points: {main: {command: 'true'}}")
    with DAG("dag", schedule=None) as dag:
        MLflowProjectOperator(task_id="step", uri=str(folder), env_manager="local", mlflow_conn_id=CONNECTION)
    context = context_of(dag, ti)
    step = prepared(dag.get_task("step"), context)
    answer = step.execute(context)
    run = client.get_run(answer["run_id"])
    assert run.status == "FINISHED"
    return step, run


def reported(task: Any, ti: TaskInstance) -> None:
    """Tell the listener as Airflow does after the report."""
    ti.task = task
    on_task_instance_success(previous_state=None, task_instance=ti)


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        ("failed", "Airflow had set the task to failed before its success was reported"),
        ("success", None),
        ("queued", None),  # cleared after it was a success
    ],
)
def test_a_step_asks_whether_airflow_took_its_success(
    client: MemoryClient, tmp_path: Path, after: str, reason: str | None
) -> None:
    ti = TaskInstance("step", states={("step", -1): "running"})
    step, run = succeeded(client, tmp_path, ti)
    writes = written(client)
    ti.states["step", -1] = after
    reported(step, ti)
    read = client.get_run(run.run_id)
    assert (read.status, read.tags.get(REASON)) == ("KILLED" if reason else "FINISHED", reason)
    assert (read.end_time or 0) >= (run.end_time or 0) > 0
    assert writes == ([(run.name, {"tags": {REASON: reason}}), (run.name, "KILLED")] if reason else [])


def test_a_task_that_failed_after_its_good_end_takes_the_success_back(client: MemoryClient, tmp_path: Path) -> None:
    ti = TaskInstance("step", states={("step", -1): "running"})
    ti.task, run = succeeded(client, tmp_path, ti)
    on_task_instance_failed(previous_state=None, task_instance=ti, error=TypeError("of a post_execute"))
    read = client.get_run(run.run_id)
    assert (read.status, read.end_time) == ("FAILED", run.end_time)
    assert read.tags[REASON] == "the task failed after its end: TypeError: of a post_execute"


def test_a_success_is_taken_back_once(client: MemoryClient, tmp_path: Path) -> None:
    """In ``airflow dags test`` the next try has this very task, and may fail before it has a run."""
    ti = TaskInstance("step", states={("step", -1): "running"})
    ti.task, run = succeeded(client, tmp_path, ti)
    on_task_instance_failed(previous_state=None, task_instance=ti, error=TypeError("of the first try"))
    on_task_instance_failed(previous_state=None, task_instance=ti, error=TypeError("of the second"))
    assert client.get_run(run.run_id).tags[REASON] == "the task failed after its end: TypeError: of the first try"


def test_another_task_is_left_alone(client: MemoryClient) -> None:
    with DAG("dag", schedule=None):
        other = BaseOperator(task_id="step")
        ours = MLflowProjectOperator(task_id="ours", uri=".", mlflow_conn_id=CONNECTION)  # that never ran
    reported(other, TaskInstance("step", states={("step", -1): "failed"}))
    reported(ours, TaskInstance("ours", states={("ours", -1): "failed"}))
    on_task_instance_success(previous_state=None, task_instance=object())
    on_task_instance_failed(previous_state=None, task_instance=object(), error=None)
    on_task_instance_failed(previous_state=None, task_instance=TaskInstance("ours", task=ours), error="x")
    assert client.calls == []


def test_a_process_that_never_loaded_our_operator_does_not_load_it(monkeypatch: pytest.MonkeyPatch) -> None:
    step = MLflowProjectOperator(task_id="step", uri=".")
    ours = ("mlflow_projects.operators.step", "mlflow_projects.operators.project")
    for name in ours:
        monkeypatch.delitem(sys.modules, name)
    reported(step, TaskInstance("step"))
    assert not {*ours} & sys.modules.keys()
