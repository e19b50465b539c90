"""When a DAG run ends, its parent runs get the same verdict, however often Airflow says so."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import Column, MetaData, StaticPool, Table, create_engine, insert
from sqlalchemy.orm import Session

from mlflow_projects.exceptions import TrackingUnavailableError
from mlflow_projects.listeners import dag_run as listener
from mlflow_projects.tracking.client import Run, now
from tests.support.memory_tracking import MemoryClient, statuses
from tests.support.tracked import CONNECTION, connected, written

REASON = "mlflow_projects.reason"
START = "MLflowStartRunOperator"
PERSON, TIMED_OUT = "the DAG run failed (marked by a person)", "the DAG run failed (timed_out)"


class Airflow:
    """The two tables of Airflow's database that are read, in memory."""

    def __init__(self) -> None:
        self.engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        tables, plain = TaskInstance.metadata.tables, MetaData()  # without the keys to many other tables
        self.tables = {
            model: Table(name, plain, *(Column(column.name, column.type) for column in tables[name].columns))
            for model in (TaskInstance, XComModel)
            if (name := model.__tablename__)
        }
        plain.create_all(self.engine)

    @contextmanager
    def session(self) -> Iterator[Session]:
        with Session(self.engine) as session:
            yield session

    def ran(self, task_id: str, value: Any, *, operator: str = START, key: str = "return_value", **of: Any) -> None:
        """Note a task and what it left as XCom."""
        own = {"dag_id": "dag", "run_id": "r1", "task_id": task_id, "map_index": -1, **of}
        text = XComModel.serialize_value(value)
        with self.engine.begin() as connection:
            connection.execute(insert(self.tables[TaskInstance]).values(operator=operator, **own))
            connection.execute(insert(self.tables[XComModel]).values(key=key, value=text, **own))


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Airflow:
    made = Airflow()
    monkeypatch.setattr("airflow.utils.session.create_session", made.session)
    return made


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> MemoryClient:
    return connected(monkeypatch)


def parent(client: MemoryClient, airflow: Airflow, task_id: str = "start", **of: Any) -> Run:
    """Open a parent run as a start task does."""
    run = client.create_run("0", task_id, now(), {"mlflow_projects.role": "parent"})
    airflow.ran(task_id, {"run_id": run.run_id, "mlflow_conn_id": CONNECTION}, **of)
    return run


def ended(state: str, message: str = "") -> None:
    """Tell the listener as Airflow does, and wait for its thread."""
    dag_run: Any = SimpleNamespace(dag_id="dag", run_id="r1")
    getattr(listener, f"on_dag_run_{state}")(dag_run=dag_run, msg=message)
    listener._pool().shutdown(wait=True)
    listener._pool.cache_clear()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [f"{one.levelname} {one.getMessage()}" for one in caplog.records if one.name == listener.__name__]


@pytest.mark.parametrize(
    ("state", "message", "status", "reason"),
    [
        ("success", "success", "FINISHED", ""),
        ("failed", "task_failure", "FAILED", "the DAG run failed (task_failure)"),
        ("failed", "", "FAILED", PERSON),
        ("failed", "timed_out", "KILLED", TIMED_OUT),
    ],
)
def test_an_open_parent_gets_the_verdict_of_its_dag_run(
    client: MemoryClient, airflow: Airflow, state: str, message: str, status: str, reason: str
) -> None:
    run = parent(client, airflow)
    writes = written(client)
    for _ in range(2):  # Airflow may say it twice
        ended(state, message)
    assert writes == [("start", {"tags": {REASON: reason}}), ("start", status)]
    read = client.get_run(run.run_id)
    assert read.status == status
    assert (read.end_time or 0) >= (read.start_time or 0)
    assert client.calls[-2:] == ["close", "get_run"], "our own get_run comes after it"
    assert (client.settings.timeout, client.settings.max_retries) == (10.0, 2)


def test_what_is_open_below_is_closed_first(client: MemoryClient, airflow: Airflow) -> None:
    top = parent(client, airflow)
    step = client.create_run("0", "step", now(), {"mlflow.parentRunId": top.run_id})
    nested = client.create_run("0", "nested", now(), {"mlflow.parentRunId": step.run_id})
    stranger = client.create_run("0", "stranger", now(), {})
    writes = written(client)
    ended("failed", "timed_out")
    why = {"tags": {REASON: TIMED_OUT}}
    assert writes == [(name, write) for name in ("nested", "step", "start") for write in (why, "KILLED")]
    assert statuses(client, (top, step, nested, stranger)) == {
        "start": "KILLED", "step": "KILLED", "nested": "KILLED", "stranger": "RUNNING",
    }  # fmt: skip


def test_a_parent_that_was_closed_otherwise_keeps_its_end(client: MemoryClient, airflow: Airflow) -> None:
    other, same = parent(client, airflow, "other"), parent(client, airflow, "same")
    client.update_run(other.run_id, "FINISHED", 1234)
    client.update_run(same.run_id, "FAILED", 5678)
    straggler = client.create_run("0", "straggler", now(), {"mlflow.parentRunId": same.run_id})
    assert listener.settle("dag", "r1", "FAILED", "why") == 1
    reads = [client.get_run(run.run_id) for run in (other, same)]
    assert [(run.status, run.end_time, run.tags.get(REASON)) for run in reads] == [
        ("FAILED", 1234, "why"), ("FAILED", 5678, None),
    ]  # fmt: skip
    assert client.get_run(straggler.run_id).status == "KILLED", "below a parent that needs no change too"


def test_every_start_task_of_the_dag_run_counts_and_nothing_else(client: MemoryClient, airflow: Airflow) -> None:
    ours = [
        parent(client, airflow, "one"),
        parent(client, airflow, "two", map_index=0),
        parent(client, airflow, "two", map_index=1),
    ]
    theirs = [
        parent(client, airflow, "step", operator="MLflowProjectOperator"),
        parent(client, airflow, "of another dag", dag_id="another"),
        parent(client, airflow, "of another run", run_id="r2"),
        parent(client, airflow, "another key", key="else"),
    ]
    airflow.ran("no run", {"status": "RUNNING"})
    airflow.ran("empty", {"run_id": ""})
    airflow.ran("text", "a text with run_id in it")
    assert listener.settle("dag", "r1", "FINISHED", "") == 3
    assert {client.get_run(run.run_id).status for run in ours} == {"FINISHED"}
    assert {client.get_run(run.run_id).status for run in theirs} == {"RUNNING"}
    assert client.calls.count("close") == 3


def test_a_start_that_names_no_connection_means_the_default_one(
    client: MemoryClient, airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", '{"conn_type": "mlflow", "host": "http://tracking.test"}')
    run = client.create_run("0", "start", now(), {})
    airflow.ran("start", {"run_id": run.run_id})
    assert listener.settle("dag", "r1", "FAILED", "why") == 1
    assert client.get_run(run.run_id).status == "FAILED"


def test_a_server_that_is_away_is_a_warning(
    client: MemoryClient, airflow: Airflow, caplog: pytest.LogCaptureFixture
) -> None:
    run = parent(client, airflow)

    def away(method: str, _: Any) -> None:
        raise TrackingUnavailableError(f"{method}: no answer")

    client.before = away
    caplog.set_level(logging.INFO, listener.__name__)
    ended("success")
    assert said(caplog) == ["WARNING The parent run of dag r1 could not be settled: get_run: no answer"]
    assert client.calls[-1] == "close"
    client.before = lambda *_: None
    assert client.get_run(run.run_id).status == "RUNNING"
    ended("success")
    assert client.get_run(run.run_id).status == "FINISHED"


def test_a_job_that_cannot_be_stopped_holds_nothing_up(
    client: MemoryClient, airflow: Airflow, caplog: pytest.LogCaptureFixture
) -> None:
    top = parent(client, airflow)
    job = {"mlflow.parentRunId": top.run_id, "mlflow_projects.job": '{"backend": "no such backend"}'}
    step = client.create_run("0", "step", now(), job)
    caplog.set_level(logging.INFO, listener.__name__)
    assert listener.settle("dag", "r1", "FAILED", "why") == 1
    assert f"The job of run {step.run_id} cannot be stopped" in caplog.text
    assert client.get_run(step.run_id).status == "KILLED"


def test_the_scheduler_never_imports_mlflow_for_it(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = connected(monkeypatch, "sqlite:////no/such.db")
    run = parent(client, airflow)
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    client.calls.clear()
    caplog.set_level(logging.INFO, listener.__name__)
    assert listener.settle("dag", "r1", "FAILED", "why") == 0
    assert client.calls == []
    assert said(caplog) == ["INFO The parent run of dag r1 is left to the janitor: sqlite:////no/such.db"]
    monkeypatch.setitem(sys.modules, "mlflow", ModuleType("mlflow"))
    assert listener.settle("dag", "r1", "FAILED", "why") == 1
    assert client.get_run(run.run_id).status == "FAILED"
