"""The janitor as a task asks its own Airflow, closes, and reports."""

from __future__ import annotations

import pytest
from airflow.sdk import DAG

from mlflow_projects.operators.janitor import MLflowJanitorOperator
from tests.support.memory_tracking import statuses
from tests.support.tracked import CONNECTION, TaskInstance, connected, running


def test_it_closes_what_dag_runs_of_this_airflow_left(monkeypatch: pytest.MonkeyPatch) -> None:
    client = connected(monkeypatch)
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://airflow.test")
    states = {"failed": "failed", "running": "running", "gone": None}
    runs = {}
    for run_id in states:
        tags = {"airflow.dag_id": "dag", "airflow.run_id": run_id, "airflow.task_url": "http://airflow.test/dags/dag"}
        role = {"mlflow_projects.role": "parent" if run_id == "failed" else "step"}
        runs[run_id] = client.create_run("0", run_id, 1, {**tags, **role})
    elsewhere = {"airflow.dag_id": "dag", "airflow.task_url": "http://localhost:8080/dags/dag"}
    runs["of another"] = client.create_run("0", "of another", 1, elsewhere)
    with DAG("janitor", schedule=None) as dag:
        MLflowJanitorOperator(task_id="tidy", mlflow_conn_id=CONNECTION)
    ti = TaskInstance("tidy", dag_id="janitor")
    ti.dag_runs.update({("dag", run_id): state for run_id, state in states.items() if state})
    assert running(dag.get_task("tidy"), ti) == [
        {"run_id": runs[name].run_id, "name": name, "dag_id": "dag", "dag_run_id": name, "status": status}
        for name, status in (("gone", "KILLED"), ("failed", "FAILED"))
    ]
    assert statuses(client, runs.values()) == {
        "failed": "FAILED", "running": "RUNNING", "gone": "KILLED", "of another": "RUNNING",
    }  # fmt: skip


def test_an_airflow_that_names_no_address_is_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    client = connected(monkeypatch)
    monkeypatch.delenv("AIRFLOW__API__BASE_URL", raising=False)
    tags = {"airflow.dag_id": "dag", "airflow.task_url": "http://localhost:8080/dags/dag"}
    run = client.create_run("0", "run", 1, tags)
    with DAG("janitor", schedule=None) as dag:
        MLflowJanitorOperator(task_id="tidy", mlflow_conn_id=CONNECTION)
    assert [one["run_id"] for one in running(dag.get_task("tidy"), TaskInstance("tidy", dag_id="janitor"))] == [
        run.run_id
    ]
