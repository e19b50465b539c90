"""When a DAG run ends, the closing of its MLflow runs is in Airflow's own transaction, and asks MLflow nothing."""

from __future__ import annotations

import json
import logging
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from airflow.jobs.job import Job
from airflow.models.callback import Callback, TriggererCallback
from airflow.models.dagrun import DagRun
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.task_state_store import TaskStateStoreModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancehistory import TaskInstanceHistory
from airflow.models.trigger import Trigger
from airflow.sdk import DAG, BaseOperator, task_group, timezone
from airflow.serialization.serialized_objects import DagSerialization
from sqlalchemy import Column, MetaData, NullPool, Table, create_engine, insert, select
from sqlalchemy.orm import Session

from mlflow_projects import MLflowEndRunOperator, MLflowProjectOperator, MLflowStartRunOperator, mlflow_run
from mlflow_projects.exceptions import TrackingUnavailableError
from mlflow_projects.listeners import dag_run as listener
from mlflow_projects.tracking.client import Run, now
from mlflow_projects.tracking.ended_dag_run import EndedDagRun
from mlflow_projects.triggers.closing import close_runs_of_dag_run
from tests.support.memory_tracking import MemoryClient
from tests.support.tracked import CONNECTION, connected

TABLES = (
    TaskInstance, TaskInstanceHistory, TaskStateStoreModel, RenderedTaskInstanceFields, Job, Callback, Trigger,
    DagRun,
)  # fmt: skip
SUCCESS, FAILURE, BY_HAND = "success", "task_failure", "Dag Run's state was manually set to `failed`."


class Airflow:
    """The tables of Airflow's database that are read or written."""

    def __init__(self, folder: Path) -> None:
        self.engine = create_engine(f"sqlite:///{folder}/tables.db", poolclass=NullPool)
        plain = MetaData()  # without the keys to many other tables
        self.tables = {
            model: Table(
                model.__tablename__,
                plain,
                *(Column(one.name, one.type, primary_key=one.primary_key) for one in model.__table__.columns),
            )
            for model in TABLES
        }
        plain.create_all(self.engine)

    @contextmanager
    def session(self) -> Iterator[Session]:
        with Session(self.engine) as session:
            yield session
            session.commit()

    def add(self, model: Any, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(insert(self.tables[model]).values(**values))

    def task(self, task_id: str, state: str, map_index: int = -1) -> None:
        own = {"dag_id": "dag", "run_id": "r1", "map_index": map_index}
        self.add(TaskInstance, id=uuid.uuid4(), task_id=task_id, state=state, try_number=1, **own)

    def left(self, task_id: str, value: Any, map_index: int = -1, **of: Any) -> None:
        """Leave what a task keeps of its run in Airflow's task state store."""
        own = {"dag_id": "dag", "run_id": "r1", "map_index": map_index, "dag_run_id": 1, "key": "mlflow_run", **of}
        row = {"task_id": task_id, "value": json.dumps(value), "updated_at": timezone.utcnow()}
        self.add(TaskStateStoreModel, **row, **own)

    def earlier_try(self, task_id: str, state: str, number: int, map_index: int = -1) -> None:
        own = {"dag_id": "dag", "run_id": "r1", "map_index": map_index, "try_number": number, "state": state}
        self.add(TaskInstanceHistory, task_instance_id=uuid.uuid4(), task_id=task_id, **own)

    def triggerer(self, seconds_ago: float = 0) -> None:
        beat = timezone.utcnow() - timedelta(seconds=seconds_ago)
        self.add(Job, id=1, job_type="TriggererJob", state="running", latest_heartbeat=beat)

    def end(self, dag: DAG | None, state: str, message: str, scheduler: int | None = 7, cleared: int = 0) -> None:
        """End the DAG run as the scheduler does, commit, and wait for the listener's thread."""
        with self.session() as session:
            of_run = {"dag_id": "dag", "run_id": "r1", "state": state, "clear_number": cleared}
            self.add(DagRun, id=1, scheduled_by_job_id=scheduler, **of_run)
            run = session.scalar(select(DagRun))
            assert run is not None
            run.dag = DagSerialization.from_dict(DagSerialization.to_dict(dag)) if dag else None
            getattr(listener, f"on_dag_run_{state}")(dag_run=run, msg=message)
        listener.threads().shutdown(wait=True)
        listener.threads.cache_clear()

    def rows(self) -> list[dict[str, Any]]:
        """Return what waits for the triggerer."""
        with self.session() as session:
            found = session.scalars(select(TriggererCallback)).all()
            path = f"{close_runs_of_dag_run.__module__}.{close_runs_of_dag_run.__name__}"
            assert all((one.data["path"], one.state, one.priority_weight) == (path, "queued", 0) for one in found)
            assert len(session.scalars(select(Trigger)).all()) == len(found), "each is a trigger"
            return [one.data["kwargs"] for one in found]


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    made = Airflow(tmp_path_factory.mktemp("airflow"))
    monkeypatch.setattr("airflow.utils.session.create_session", made.session)
    return made


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> MemoryClient:
    return connected(monkeypatch)


def dag_of(*, lone: bool = False, group: bool = True) -> DAG:
    with DAG("dag", schedule=None) as dag:
        before = BaseOperator(task_id="before")
        if group:
            with mlflow_run("g", mlflow_conn_id=CONNECTION) as pipeline:
                first = MLflowProjectOperator(task_id="a", uri="/project")
                first >> MLflowProjectOperator(task_id="b", uri="/project")
            before >> pipeline
        if lone:
            MLflowProjectOperator(task_id="lone", uri="/project", mlflow_conn_id="other")
    return dag


def test_a_success_of_which_the_end_task_said_all_needs_nothing(client: MemoryClient, airflow: Airflow) -> None:
    airflow.triggerer()
    airflow.task("g.end_run", "success")
    airflow.end(dag_of(), "success", SUCCESS)
    assert (airflow.rows(), client.calls) == ([], [])


def test_after_a_clear_a_success_takes_the_failure_back(airflow: Airflow) -> None:
    airflow.triggerer()
    airflow.task("g.end_run", "success")
    airflow.end(dag_of(), "success", SUCCESS, cleared=1)
    assert airflow.rows()[0]["ended"]["state"] == "success"


def test_what_a_lost_try_leaves_may_come_after_the_end_task(airflow: Airflow) -> None:
    """A request of a start task that was killed may still be at work in the server."""
    airflow.triggerer()
    airflow.task("g.end_run", "success")
    airflow.earlier_try("g.start_run", "failed", 1)
    airflow.end(dag_of(), "success", SUCCESS)
    assert airflow.rows()[0]["ended"]["failed"] == [["g.start_run", 1, [-1]]]


def test_a_dag_without_our_tasks_needs_nothing(client: MemoryClient, airflow: Airflow) -> None:
    airflow.triggerer()
    airflow.end(dag_of(group=False), "failed", FAILURE)
    assert (airflow.rows(), client.calls) == ([], [])


def test_a_dag_that_airflow_no_longer_has_needs_nothing(airflow: Airflow) -> None:
    airflow.triggerer()
    airflow.end(None, "failed", FAILURE)
    assert airflow.rows() == []


@pytest.mark.parametrize(
    ("lone", "end", "state", "message"),
    [
        (True, "success", "success", SUCCESS),  # a step of its own
        (False, "failed", "success", SUCCESS),  # the end task could not reach the server
        (False, "success", "success", BY_HAND.replace("failed", "success")),
        (False, "success", "failed", FAILURE),  # a task behind the group
        (False, None, "failed", "timed_out"),
    ],
)
def test_else_a_row_waits_for_the_triggerer_and_nobody_is_asked(
    client: MemoryClient, airflow: Airflow, lone: bool, end: str | None, state: str, message: str
) -> None:
    airflow.triggerer()
    if end:
        airflow.task("g.end_run", end)
    airflow.end(dag_of(lone=lone), state, message)
    [row] = airflow.rows()
    assert (
        row["conn_ids"] == ([CONNECTION, "other"] if lone else [CONNECTION])
        or sorted(row["conn_ids"]) == row["conn_ids"]
    )
    assert {key: row["ended"][key] for key in ("dag_id", "run_id", "state")} == {
        "dag_id": "dag", "run_id": "r1", "state": state,
    }  # fmt: skip
    assert client.calls == []


@pytest.mark.parametrize(
    ("state", "message", "status", "reason", "groups"),
    [
        ("failed", "timed_out", "KILLED", "the DAG run ran out of time (dagrun_timeout)", None),
        ("failed", BY_HAND, "FAILED", "a person marked the DAG run failed", None),
        ("failed", "", "FAILED", "a person marked the DAG run failed", None),
        ("failed", "all_tasks_deadlocked", "FAILED", "the DAG run ended (all_tasks_deadlocked)", None),
        (
            "failed", FAILURE, "FAILED", "the DAG run ended (task_failure)",
            {"g.start_run": {"g.a failed; g.b could not run": [-1]}},
        ),
    ],
)  # fmt: skip
def test_the_row_says_how_it_ended(
    airflow: Airflow, state: str, message: str, status: str, reason: str, groups: Any
) -> None:
    airflow.triggerer()
    airflow.task("g.a", "failed")
    airflow.task("g.b", "upstream_failed")
    airflow.task("before", "failed")
    airflow.end(dag_of(), state, message)
    [row] = airflow.rows()
    ended = row["ended"]
    assert (ended["status"], ended["reason"], ended["groups"]) == (status, reason, groups)
    assert sorted(ended["failed"]) == [["before", 1, [-1]], ["g.a", 1, [-1]]]


def test_tries_that_failed_before_are_told_too(airflow: Airflow) -> None:
    """A try that was killed while it took back its success may have no later one that does it."""
    airflow.triggerer()
    airflow.earlier_try("g.a", "failed", 1)
    airflow.earlier_try("g.b", "failed", 1, 3)
    airflow.earlier_try("g.b", "success", 2, 3)
    airflow.task("g.a", "skipped")
    airflow.task("g.b", "failed", 0)
    airflow.end(dag_of(), "success", SUCCESS, cleared=1)
    [row] = airflow.rows()
    assert sorted(row["ended"]["failed"]) == [["g.a", 1, [-1]], ["g.b", 1, [0, 3]]]


def test_each_index_of_a_mapped_group_is_judged_by_itself(airflow: Airflow) -> None:
    with DAG("dag", schedule=None) as dag:

        @task_group
        def each(number: int) -> None:
            with mlflow_run("g", mlflow_conn_id=CONNECTION):
                MLflowProjectOperator(task_id="a", uri="/project")

        each.expand(number=[1, 2])
    airflow.triggerer()
    airflow.task("each.g.a", "failed", 0)
    airflow.task("each.g.a", "failed", 2)
    airflow.task("each.g.a", "success", 1)
    airflow.end(dag, "failed", FAILURE)
    [row] = airflow.rows()
    assert row["ended"]["groups"] == {"each.g.start_run": {"each.g.a failed": [0, 2]}}


def test_a_connection_that_only_the_run_knows_is_read_from_it(airflow: Airflow) -> None:
    with DAG("dag", schedule=None) as dag:
        MLflowProjectOperator(task_id="a", uri="/project", mlflow_conn_id="{{ params.server }}")
        MLflowProjectOperator.partial(task_id="m", uri="/project").expand(mlflow_conn_id=["one", "two"])
        MLflowProjectOperator(task_id="plain", uri="/project")
    airflow.triggerer()
    for number, (task_id, conn_id) in enumerate([("a", "rendered"), ("m", "one"), ("m", "two"), ("plain", "never")]):
        own = {"dag_id": "dag", "run_id": "r1", "task_id": task_id, "map_index": number}
        airflow.add(RenderedTaskInstanceFields, rendered_fields={"mlflow_conn_id": conn_id}, **own)
    airflow.end(dag, "failed", FAILURE)
    assert airflow.rows()[0]["conn_ids"] == ["mlflow_default", "one", "rendered", "two"]


def test_the_row_names_the_runs_that_may_be_open_and_how_they_were_opened(airflow: Airflow) -> None:
    airflow.triggerer()
    tags = {"airflow.task_id": "g.a"}
    for number, (task_id, state) in enumerate([("g.start_run", "success"), ("g.a", "failed"), ("g.b", "success")]):
        airflow.task(task_id, state)
        airflow.left(task_id, {"run_id": f"id {number}", "tags": tags, "handle": {}})
    airflow.task("lone", "skipped", 3)
    airflow.left("lone", {"run_id": "of a map", "tags": {}}, 3)
    airflow.left("lone", {"run_id": "of nobody", "tags": {}}, 4)
    airflow.left("g.a", {"run_id": "of another run", "tags": {}}, dag_run_id=2)
    airflow.left("g.a", {"run_id": "of somebody else", "tags": {}}, key="other")
    for map_index, kept in enumerate(["an address", {"run_id": "of an earlier release"}]):
        airflow.task("g.a", "failed", map_index)
        airflow.left("g.a", kept, map_index)
    airflow.end(dag_of(lone=True), "failed", "timed_out")
    assert airflow.rows()[0]["ended"]["opened"] == {"id 0": tags, "id 1": tags, "of a map": {}}


@pytest.mark.parametrize(("end", "told"), [("success", [-1]), ("failed", []), ("skipped", [])])
def test_the_row_says_whose_end_task_has_spoken_and_which_end_it_is(airflow: Airflow, end: str, told: Any) -> None:
    airflow.triggerer()
    airflow.task("g.end_run", end)
    airflow.end(dag_of(), "failed", "timed_out", cleared=2)
    ended = airflow.rows()[0]["ended"]
    assert (ended["told"], ended["clears"]) == ({"g.start_run": told}, 2)


def test_each_index_of_a_mapped_group_has_its_end_task(airflow: Airflow) -> None:
    with DAG("dag", schedule=None) as dag:

        @task_group
        def each(number: int) -> None:
            with mlflow_run("g", mlflow_conn_id=CONNECTION):
                MLflowProjectOperator(task_id="a", uri="/project")

        each.expand(number=[1, 2])
        MLflowStartRunOperator(task_id="without_end", mlflow_conn_id=CONNECTION)
    airflow.triggerer()
    for index, state in enumerate(["success", "skipped", "success"]):
        airflow.task("each.g.end_run", state, index)
    airflow.end(dag, "failed", "timed_out")
    assert airflow.rows()[0]["ended"]["told"] == {"each.g.start_run": [0, 2]}


# --- where no triggerer lives ---


def parent(client: MemoryClient) -> Run:
    tags = {"airflow.dag_id": "dag", "airflow.run_id": "r1", "airflow.task_id": "g.start_run"}
    own = {"airflow.map_index": "-1", "mlflow_projects.role": "parent"}
    return client.create_run("0", "parent", now(), {**tags, **own})


@pytest.mark.parametrize("scheduler", [7, None], ids=["a scheduler", "airflow dags test"])
def test_without_a_triggerer_it_is_done_at_once(
    client: MemoryClient, airflow: Airflow, scheduler: int | None
) -> None:
    run = parent(client)
    if scheduler is None:
        airflow.triggerer()  # one of another process, which may never see this DAG
    airflow.end(dag_of(), "failed", "timed_out", scheduler)
    assert client.get_run(run.run_id).status == "KILLED"
    assert airflow.rows() == []
    assert (client.settings.timeout, client.settings.max_retries) == (10.0, 2)


def test_a_triggerer_that_is_away_gets_its_row_all_the_same(client: MemoryClient, airflow: Airflow) -> None:
    run = parent(client)
    airflow.triggerer(seconds_ago=3600)
    airflow.end(dag_of(), "failed", "timed_out")
    assert client.get_run(run.run_id).status == "KILLED"
    assert len(airflow.rows()) == 1


@pytest.mark.parametrize(
    ("minutes", "trigger", "status"),
    [
        (10, {}, "KILLED"),
        (1, {}, "RUNNING"),
        (10, {"triggerer_id": 5}, "RUNNING"),
        (10, {"queue": "of another"}, "RUNNING"),
    ],
)
def test_a_triggerer_that_takes_no_callbacks_is_none(
    client: MemoryClient, airflow: Airflow, minutes: int, trigger: dict[str, Any], status: str
) -> None:
    run = parent(client)
    airflow.triggerer()
    made = timezone.utcnow() - timedelta(minutes=minutes)
    airflow.add(Trigger, id=1, classpath="of.somebody", kwargs="", created_date=made, **trigger)
    airflow.end(dag_of(), "failed", "timed_out")
    assert client.get_run(run.run_id).status == status
    with airflow.session() as session:
        assert len(session.scalars(select(TriggererCallback)).all()) == 1


def test_an_airflow_without_such_callbacks_does_it_at_once(
    client: MemoryClient, airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = parent(client)
    airflow.triggerer()
    monkeypatch.setitem(sys.modules, "airflow.models.callback", ModuleType("without it"))
    airflow.end(dag_of(), "failed", "timed_out")
    assert client.get_run(run.run_id).status == "KILLED"


def test_a_server_that_is_away_is_a_warning(
    client: MemoryClient, airflow: Airflow, caplog: pytest.LogCaptureFixture
) -> None:
    run = parent(client)

    def away(method: str, _: Any) -> None:
        raise TrackingUnavailableError(f"{method}: no answer")

    client.before = away
    airflow.end(dag_of(), "failed", FAILURE)
    assert "The runs of dag r1 could not be closed, and no triggerer lives to try it again; the DAG " in caplog.text
    assert "janitor, or the command mlflow-projects janitor, does it later: " in caplog.text
    assert "no answer" in caplog.text
    assert client.calls[-1] == "close"
    client.before = lambda *_: None
    assert client.get_run(run.run_id).status == "RUNNING"


@pytest.mark.parametrize(
    ("own", "other", "is_closed"),
    [("failed", "running", True), ("running", "failed", False), (None, "running", True)],
    ids=["committed", "not yet", "gone"],
)
def test_runs_are_closed_once_airflow_has_the_end_in_its_database(
    own: str | None, other: str, is_closed: bool,
    client: MemoryClient, airflow: Airflow, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run = parent(client)
    waited: list[float] = []
    monkeypatch.setattr(listener.time, "sleep", waited.append)
    airflow.add(DagRun, id=1, dag_id="dag", run_id="r2", state=other)
    airflow.add(DagRun, id=2, dag_id="another", run_id="r1", state=other)
    if own:
        airflow.add(DagRun, id=3, dag_id="dag", run_id="r1", state=own)
    ended = EndedDagRun("dag", "r1", "failed", "KILLED", "out of time", None)
    listener._later(ended, [CONNECTION], may_load_mlflow=True)
    listener.threads().shutdown(wait=True)
    listener.threads.cache_clear()
    assert client.get_run(run.run_id).status == ("KILLED" if is_closed else "RUNNING")
    assert waited == ([] if is_closed else [0.2] * 50)


def test_a_scheduler_never_imports_mlflow_for_it(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    (tmp_path / "mlflow.db").touch()
    client = connected(monkeypatch, f"sqlite:///{tmp_path}/mlflow.db")
    parent(client)
    client.calls.clear()
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    caplog.set_level(logging.INFO, listener.__name__)
    airflow.end(dag_of(), "failed", FAILURE)
    assert client.calls == []
    assert "are left to the janitor" in caplog.text


def test_airflow_dags_test_closes_runs_in_a_file_too(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "mlflow.db").touch()
    client = connected(monkeypatch, f"sqlite:///{tmp_path}/mlflow.db")
    run = parent(client)
    airflow.end(dag_of(), "failed", FAILURE, None)
    assert client.get_run(run.run_id).status == "FINISHED", "no task of the group failed"


def test_a_database_that_is_not_there_is_not_made(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    client = connected(monkeypatch, f"sqlite:///{tmp_path}/mlflow.db")
    caplog.set_level(logging.INFO, listener.__name__)
    airflow.end(dag_of(), "failed", FAILURE, None)
    assert (client.calls, caplog.text, [*tmp_path.iterdir()]) == ([], "", [])


def test_a_start_task_without_a_group_stands_for_the_dag(airflow: Airflow) -> None:
    with DAG("dag", schedule=None) as dag:
        start = MLflowStartRunOperator(task_id="start", mlflow_conn_id=CONNECTION)
        start >> MLflowProjectOperator(task_id="a", uri="/project", parent_run_id=start.output)
    airflow.triggerer()
    airflow.task("a", "failed")
    airflow.end(dag, "failed", FAILURE)
    assert airflow.rows()[0]["ended"]["groups"] == {"start": {"a failed": [-1]}}


def test_an_end_task_without_a_group_does_not_speak_for_the_steps_beside_it(airflow: Airflow) -> None:
    with DAG("dag", schedule=None) as dag:
        start = MLflowStartRunOperator(task_id="start", mlflow_conn_id=CONNECTION)
        step = MLflowProjectOperator(task_id="a", uri="/project", parent_run_id=start.output)
        start >> step >> MLflowEndRunOperator(task_id="end", run_id=start.output, mlflow_conn_id=CONNECTION)
        MLflowProjectOperator(task_id="lone", uri="/project", mlflow_conn_id=CONNECTION)
    airflow.triggerer()
    airflow.task("end", "success")
    airflow.end(dag, "success", SUCCESS)
    assert len(airflow.rows()) == 1
