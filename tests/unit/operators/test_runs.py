"""The parent run of a DAG run is opened once, and closed last with what its group did."""

from __future__ import annotations

import subprocess
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator, task_group
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from mlflow_projects import MLflowEndRunOperator, MLflowStartRunOperator, mlflow_run
from mlflow_projects.exceptions import TrackingUnavailableError
from mlflow_projects.tracking.client import Run, now
from mlflow_projects.tracking.closing import as_it_ended
from mlflow_projects.tracking.tags import dag_run_tag, own_tags_of
from tests.support.memory_tracking import MemoryClient, opened_again, statuses
from tests.support.tracked import CONNECTION, TaskInstance, at, connected, running, written

REASON = "mlflow_projects.reason"
START, END = "pipeline.start_run", "pipeline.end_run"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> MemoryClient:
    return connected(monkeypatch)


def step(task_id: str) -> BaseOperator:
    return BaseOperator(task_id=task_id)


def dag_of(*shape: str, **group: Any) -> DAG:
    """Return a DAG: ``before >> pipeline(a >> b, …) >> after``; each shape names tasks that follow each other."""
    with DAG("dag", schedule=None) as dag:
        before, after = step("before"), step("after")
        with mlflow_run("pipeline", mlflow_conn_id=CONNECTION, **group) as pipeline:
            for chain in shape or ("a",):
                above = None
                for name in chain.split():
                    one = step(name)
                    if above is not None:
                        above >> one
                    above = one
        before >> pipeline >> after
    dag.fileloc = "/no/such/folder/dag.py"
    return dag


def start(dag: DAG, ti: TaskInstance | None = None, **context: Any) -> dict[str, Any]:
    """Run the start task, and leave its XCom as Airflow does."""
    ti = ti or TaskInstance(START)
    answer: dict[str, Any] = running(dag.get_task(ti.task_id), ti, **context)
    assert ti.map_index is not None
    ti.returned[ti.task_id, ti.map_index] = answer
    return answer


# --- opened ---


def test_the_parent_run_tells_the_dag_run(client: MemoryClient, tmp_path: Path) -> None:
    dag = dag_of(experiment_name="nightly", run_name="of tonight", tags={"team": "blue"})
    dag.fileloc = str(tmp_path / "dags" / "dag.py")
    Path(dag.fileloc).parent.mkdir()
    Path(dag.fileloc).touch()
    for command in ("init -q -b trunk", "add .", "-c user.name=a -c user.email=a@b commit -qm first",
                    "remote add origin https://me:pw@git.test/x.git"):  # fmt: skip
        subprocess.run(["git", "-C", str(tmp_path), *command.split()], check=True)
    head = subprocess.run(
        ["git", "-C", str(tmp_path), "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    )
    ti = TaskInstance(START)
    params = {"text": "hello", "num": 3, "list": ["ä"], "where": PurePosixPath("/a"), "none": None, "../x": 1}
    params["long"] = "x" * 7000
    answer = start(dag, ti, params=params)

    [run] = client.search_runs([client.experiment_id("nightly") or ""], "")
    page = f"http://tracking.test/#/experiments/{run.experiment_id}/runs/{run.run_id}"
    assert answer == {
        "run_id": run.run_id,
        "experiment_id": run.experiment_id,
        "artifact_uri": run.artifact_uri,
        "status": "RUNNING",
        "run_name": "of tonight",
        "metrics": {},
        "mlflow_conn_id": CONNECTION,
    }
    assert ti.pushed == {"_link_MLflowRunLink": page}
    assert run.params == {"text": "hello", "num": "3", "list": '["ä"]', "where": '"/a"', "long": "x" * 6000}
    expected = {
        "mlflow.source.name": dag.fileloc,
        "mlflow.source.type": "JOB",
        "mlflow.source.git.commit": head.stdout.strip(),
        "mlflow.source.git.repoURL": "https://git.test/x.git",
        "mlflow_projects.role": "parent",
        "mlflow_projects.attempt_id": ti.id,
        "airflow.dag_id": "dag",
        "airflow.run_id": "manual__1",
        "airflow.task_id": START,
        "airflow.map_index": "-1",
        "airflow.try_number": "1",
        "airflow.task_url": ti.log_url,
        dag_run_tag("dag", "manual__1"): "1",
        "team": "blue",
    }
    assert {key: run.tags.get(key) for key in expected} == expected
    assert {"mlflow.parentRunId", "mlflow.source.git.dirty"}.isdisjoint(run.tags)


def test_a_changed_dag_file_is_told(client: MemoryClient, tmp_path: Path) -> None:
    for command in ("init -q", "-c user.name=a -c user.email=a@b commit -q --allow-empty -m first"):
        subprocess.run(["git", "-C", str(tmp_path), *command.split()], check=True)
    dag = dag_of()
    dag.fileloc = str(tmp_path / "dag.py")
    Path(dag.fileloc).touch()
    assert client.get_run(start(dag)["run_id"]).tags["mlflow.source.git.dirty"] == "true"


def test_a_start_without_a_name_is_called_as_its_dag_and_its_params_are_announced(client: MemoryClient) -> None:
    with DAG("dag", schedule=None) as dag:
        MLflowStartRunOperator(task_id="start", mlflow_conn_id=CONNECTION)
    run = client.get_run(start(dag, TaskInstance("start"), params={"a": 1})["run_id"])
    assert (run.name, run.experiment_id) == ("dag", "0")
    assert run.tags["mlflow_projects.parameters"] == '{"a": "1"}'


def test_a_cleared_start_reopens_its_run(client: MemoryClient) -> None:
    dag, first = dag_of(), TaskInstance(START)
    answer = start(dag, first, params={"old": 1})
    client.update_run(answer["run_id"], "FAILED", 1234)
    writes = written(client)
    again = start(dag, at(first, try_number=2), params={"old": 2, "new": 3})
    assert again == {**answer, "status": "RUNNING"}
    assert writes == [("pipeline", "RUNNING"), ("pipeline", {"params": {"new": "3"}})]
    run = client.get_run(answer["run_id"])
    assert (run.status, run.end_time, run.params) == ("RUNNING", 1234, {"old": "1", "new": "3"})
    other = start(dag, TaskInstance(START, run_id="manual__2"))
    assert other["run_id"] != run.run_id


def test_a_reopened_run_forgets_how_it_had_ended(client: MemoryClient) -> None:
    dag, first = dag_of(), TaskInstance(START)
    answer = start(dag, first)
    opened_again(client, client.get_run(answer["run_id"]), "FINISHED 1234")
    client.update_run(answer["run_id"], "FINISHED", 1234)
    start(dag, at(first, try_number=2))
    run = client.get_run(answer["run_id"])
    assert as_it_ended(run) is run


def test_a_cleared_start_reopens_its_run_although_a_project_took_its_tags_off(client: MemoryClient) -> None:
    dag, first = dag_of(), TaskInstance(START)
    answer = start(dag, first)
    before = client.get_run(answer["run_id"])
    client.log_batch(before.run_id, tags=dict.fromkeys(own_tags_of(before.tags), "mine"))
    client.update_run(before.run_id, "KILLED", 1234)
    assert start(dag, at(first, try_number=2)) == {**answer, "status": "RUNNING"}
    assert own_tags_of(client.get_run(before.run_id).tags) == own_tags_of(before.tags)
    client.log_batch(before.run_id, tags={"airflow.run_id": "mine"})
    client.delete_run(before.run_id)
    assert start(dag, at(first, try_number=3))["run_id"] != before.run_id


def test_the_end_puts_the_parents_tags_right(client: MemoryClient) -> None:
    ending = Ending(client, dag_of())
    own = {key: ending.parent.tags[key] for key in ("airflow.run_id", "airflow.task_id", "mlflow_projects.role")}
    client.log_batch(ending.parent.run_id, tags=dict.fromkeys(own, "mine"))
    ending.end({"pipeline.a": "success"})
    tags = client.get_run(ending.parent.run_id).tags
    assert {key: tags[key] for key in own} == own


def test_nothing_is_logged_twice(client: MemoryClient) -> None:
    writes = written(client)
    start(dag_of())
    assert writes == [("pipeline", "created")]


def nested_dag() -> DAG:
    with DAG("dag", schedule=None) as dag, mlflow_run("pipeline", mlflow_conn_id=CONNECTION, experiment_name="outer"):
        with mlflow_run("inner", mlflow_conn_id=CONNECTION):
            step("a")
        MLflowStartRunOperator(task_id="given", parent_run_id={"run_id": "ab"}, mlflow_conn_id=CONNECTION)
    return dag


def test_an_inner_parent_is_a_child_of_the_outer_one(client: MemoryClient) -> None:
    dag, outer = nested_dag(), TaskInstance(START)
    above = start(dag, outer)
    below = client.get_run(start(dag, at(outer, task_id="pipeline.inner.start_run"))["run_id"])
    assert below.tags["mlflow.parentRunId"] == above["run_id"]
    assert below.experiment_id == above["experiment_id"] != "0"


def test_a_given_parent_counts_before_that_of_the_group(client: MemoryClient) -> None:
    dag, outer = nested_dag(), TaskInstance(START)
    start(dag, outer)
    given = client.get_run(start(dag, at(outer, task_id="pipeline.given"))["run_id"])
    assert given.tags["mlflow.parentRunId"] == "ab"


def test_a_server_that_is_away_is_another_try(client: MemoryClient) -> None:
    def away(method: str, _: Any) -> None:
        raise TrackingUnavailableError(f"{method}: no answer")

    client.before = away
    with pytest.raises(AirflowException, match="search_runs: no answer") as caught:
        start(dag_of())
    assert not isinstance(caught.value, AirflowFailException)
    assert client.calls[-1] == "close"


# --- closed ---


class Ending:
    """A DAG run whose parent run is open, with the means to end it."""

    def __init__(self, client: MemoryClient, dag: DAG, map_index: int = -1, end: str = END) -> None:
        self.client, self.dag, self.end_task = client, dag, end
        self.first = TaskInstance(end.replace("end_run", "start_run"), map_index=map_index)
        self.parent = client.get_run(start(dag, self.first)["run_id"])
        self.ti = at(self.first, task_id=end)

    def step(self, task_id: str, status: Any = "RUNNING", later: int = 0, **tags: str) -> Run:
        own = {"airflow.dag_id": "dag", "airflow.run_id": "manual__1", "airflow.task_id": task_id}
        own[dag_run_tag("dag", "manual__1")] = "1"
        role = {"mlflow_projects.role": "step", "airflow.map_index": "-1", "mlflow.parentRunId": self.parent.run_id}
        run = self.client.create_run(self.parent.experiment_id, task_id, now() + later, {**own, **role, **tags})
        if status != "RUNNING":
            self.client.update_run(run.run_id, status, 1234)
        return run

    def end(self, states: dict[Any, str | None], dag_run: str = "running") -> dict[str, Any]:
        """Run the end task, with states of tasks by task id or (task id, map index)."""
        self.ti.states.clear()
        self.ti.states.update({key if isinstance(key, tuple) else (key, -1): state for key, state in states.items()})
        self.ti.dag_runs["dag", "manual__1"] = dag_run
        answer: dict[str, Any] = running(self.dag.get_task(self.end_task), self.ti)
        return answer

    def reason(self) -> str | None:
        return self.client.get_run(self.parent.run_id).tags.get(REASON)


def test_a_group_that_did_its_work_is_finished(client: MemoryClient) -> None:
    ending = Ending(client, dag_of("a b"))
    client.log_metric(ending.parent.run_id, "m", 1.0)
    writes = written(client)
    answer = ending.end({"pipeline.a": "success", "pipeline.b": "success", "after": None})
    assert writes == [("pipeline", "FINISHED")]
    run = client.get_run(ending.parent.run_id)
    assert (run.status, REASON in run.tags) == ("FINISHED", False)
    assert (run.end_time or 0) >= (run.start_time or 0)
    assert answer == {
        "run_id": run.run_id, "experiment_id": "0", "artifact_uri": run.artifact_uri, "status": "FINISHED",
        "run_name": "pipeline", "metrics": {"m": 1.0}, "mlflow_conn_id": CONNECTION,
    }  # fmt: skip
    page = f"http://tracking.test/#/experiments/0/runs/{run.run_id}"
    assert ending.ti.pushed == {"_link_MLflowRunLink": page}


def test_an_end_asks_the_server_no_more_than_it_must(client: MemoryClient) -> None:
    ending = Ending(client, dag_of("a b"))
    client.calls.clear()
    ending.end({"pipeline.a": "success", "pipeline.b": "success"})
    assert client.calls == ["experiment_ids", "search_runs", "search_runs", "update_run", "close"]


def test_start_and_end_give_their_slots_back_at_once(client: MemoryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("mlflow_projects.operators.runs.let_supervisor_notice_the_end", lambda: told.append("end"))
    client.before = lambda method, arguments: told.append("asked") if told[-1:] != ["asked"] else None
    ending = Ending(client, dag_of())
    assert told == ["end", "asked"], "also where the server fails"
    ending.end({"pipeline.a": "success"})
    assert told == ["end", "asked"] * 2


@pytest.mark.parametrize(
    ("states", "reason"),
    [
        ({"pipeline.b": "failed"}, "pipeline.b failed"),
        ({"pipeline.d": "upstream_failed", "pipeline.b": "failed"}, "pipeline.b failed; pipeline.d could not run"),
        ({("pipeline.b", 0): "success", ("pipeline.b", 1): "failed"}, "pipeline.b[1] failed"),
        ({("pipeline.b", 0): "failed"}, "pipeline.b[0] failed"),
        ({"pipeline.a": "failed", "pipeline.b": "upstream_failed"}, "pipeline.a failed; pipeline.b could not run"),
        # Not a last task: those after it decide, as they do for Airflow.
        ({"pipeline.a": "failed", "pipeline.b": "success"}, None),
        ({"pipeline.b": "skipped", "pipeline.d": "removed"}, None),
        # Not of the group, or ours.
        ({"before": "failed", "after": "upstream_failed", START: "failed", END: "failed"}, None),
    ],
)
def test_the_last_tasks_of_the_group_decide(client: MemoryClient, states: dict[Any, str], reason: str | None) -> None:
    ending = Ending(client, dag_of("a b", "c d"))
    writes = written(client)
    status = ending.end(states)["status"]
    assert status == client.get_run(ending.parent.run_id).status == ("FAILED" if reason else "FINISHED")
    assert ending.reason() == reason
    assert writes == [("pipeline", {"tags": {REASON: reason}})] * bool(reason) + [("pipeline", status)]


@pytest.mark.parametrize(
    ("states", "reason"),
    [
        ({"pipeline.a": "success"}, "a person, or dagrun_timeout, failed the DAG run before its end"),
        ({"pipeline.a": "failed"}, "pipeline.a failed"),
    ],
)
def test_a_dag_run_that_a_person_failed_is_failed(client: MemoryClient, states: Any, reason: str) -> None:
    ending = Ending(client, dag_of())
    assert ending.end(states, dag_run="failed")["status"] == "FAILED"
    assert ending.reason() == reason


def test_what_is_still_open_is_killed_before_its_parent_is_closed(client: MemoryClient) -> None:
    ending = Ending(client, dag_of("a b"))
    job = {"mlflow_projects.job": '{"backend": "no such backend"}'}  # one that cannot be stopped
    straggler = ending.step("pipeline.a", **job)
    nested = client.create_run("0", "nested", now(), {"mlflow.parentRunId": straggler.run_id})
    theirs = client.create_run("0", "theirs", now(), {})
    writes = written(client)
    assert ending.end({"pipeline.b": "success"})["status"] == "FINISHED"
    why = {"tags": {REASON: "still open when pipeline.end_run ran"}}
    killed = [(name, write) for name in ("nested", "pipeline.a") for write in (why, "KILLED")]
    assert writes == [*killed, ("pipeline", "FINISHED")]
    assert statuses(client, (straggler, nested, theirs)) == {
        "pipeline.a": "KILLED", "nested": "KILLED", "theirs": "RUNNING",
    }  # fmt: skip


def test_a_run_that_a_killed_function_had_opened_again_gets_its_end_back(client: MemoryClient) -> None:
    ending = Ending(client, dag_of("a b"))
    step = opened_again(client, ending.step("pipeline.a"), "FINISHED 1234")
    ending.end({"pipeline.b": "failed"})
    run = client.get_run(step.run_id)
    assert (run.status, run.end_time, run.tags.get(REASON)) == ("FINISHED", 1234, None)


def test_a_step_that_a_last_task_did_not_wait_for_goes_on(client: MemoryClient) -> None:
    with DAG("dag", schedule=None) as dag, mlflow_run("pipeline", mlflow_conn_id=CONNECTION):
        [step("a"), step("b"), step("c")] >> BaseOperator(task_id="alarm", trigger_rule="one_failed")
    ending = Ending(client, dag)
    lost, healthy = (
        ending.step("pipeline.b", later=number, **{"airflow.try_number": f"{number}"}) for number in (1, 2)
    )
    nested = client.create_run("0", "nested", now(), {"mlflow.parentRunId": healthy.run_id})
    killed = ending.step("pipeline.c")
    states = {"a": "failed", "b": "running", "c": "failed", "alarm": "success"}
    assert ending.end({f"pipeline.{name}": state for name, state in states.items()})["status"] == "FINISHED"
    assert [client.get_run(run.run_id).status for run in (lost, healthy, nested, killed)] == [
        "KILLED", "RUNNING", "RUNNING", "KILLED",
    ]  # fmt: skip


def test_an_end_without_a_group_closes_only_what_is_below_its_run(client: MemoryClient) -> None:
    with DAG("dag", schedule=None) as dag:
        for name in ("x", "y"):
            first = MLflowStartRunOperator(task_id=f"{name}.start_run", run_name=name, mlflow_conn_id=CONNECTION)
            end = MLflowEndRunOperator(task_id=f"{name}.end_run", run_id=first.output, mlflow_conn_id=CONNECTION)
            first >> step(f"{name}.step") >> end
        step("lone")
    mine, other = (Ending(client, dag, end=f"{name}.end_run") for name in ("x", "y"))
    # Of an earlier try of the same start task, whose answer was lost.
    lost = mine.step("x.start_run", **{"mlflow.parentRunId": "", "mlflow_projects.role": "parent"})
    below = mine.step("x.step")
    elsewhere = mine.step("x.step", **{"mlflow.parentRunId": "", "mlflow_projects.role": "inner"})
    mine.end({"x.step": "success"})
    assert [client.get_run(run.run_id).status for run in (lost, below, elsewhere)] == ["KILLED"] * 3
    theirs = [other.parent, other.step("y.step"), other.step("lone", **{"mlflow.parentRunId": ""})]
    mine.end({"x.step": "success"})
    assert [client.get_run(run.run_id).status for run in theirs] == ["RUNNING"] * 3


def test_setups_and_teardowns_count_as_they_do_for_airflow(client: MemoryClient) -> None:
    with DAG("dag", schedule=None) as dag, mlflow_run("pipeline", mlflow_conn_id=CONNECTION):
        up, down = step("up").as_setup(), step("down")
        up >> step("a") >> down.as_teardown(setups=up, on_failure_fail_dagrun=True)
    ending = Ending(client, dag)
    assert ending.end({"pipeline.a": "success", "pipeline.down": "failed"})["status"] == "FAILED"
    assert ending.reason() == "pipeline.down failed"
    ending.end({"pipeline.up": "failed", "pipeline.a": "upstream_failed", "pipeline.down": "upstream_failed"})
    assert ending.reason() == "pipeline.up failed; pipeline.a, pipeline.down could not run"


def test_a_reopened_run_loses_its_old_reason(client: MemoryClient) -> None:
    ending = Ending(client, dag_of())
    client.log_batch(ending.parent.run_id, tags={REASON: "of its first time"})
    assert ending.end({"pipeline.a": "success"})["status"] == "FINISHED"
    assert ending.reason() == ""


def mapped_dag() -> DAG:
    with DAG("dag", schedule=None) as dag:

        @task_group
        def each(number: int) -> None:
            with mlflow_run("pipeline", mlflow_conn_id=CONNECTION):
                step("a")

        each.expand(number=[1, 2])
    return dag


def test_in_a_mapped_group_each_index_has_a_verdict_of_its_own(client: MemoryClient) -> None:
    dag = mapped_dag()
    endings = [Ending(client, dag, index, "each.pipeline.end_run") for index in (0, 1)]
    assert endings[0].parent.run_id != endings[1].parent.run_id
    for ending in endings:  # both start tasks left an XCom
        for other in endings:
            ending.ti.returned.update(other.first.returned)
    states = {("each.pipeline.a", 0): "failed", ("each.pipeline.a", 1): "success"}
    for ending, status, reason in zip(endings, ("FAILED", "FINISHED"), ("each.pipeline.a failed", None), strict=True):
        assert ending.end(states)["status"] == status
        assert (client.get_run(ending.parent.run_id).status, ending.reason()) == (status, reason)


def test_the_run_to_close_can_be_given(client: MemoryClient) -> None:
    given = client.create_run("0", "given", now(), {})
    for run_id in (given.run_id, {"run_id": given.run_id}):
        with DAG("dag", schedule=None) as dag:
            MLflowEndRunOperator(task_id="end", run_id=run_id, mlflow_conn_id=CONNECTION)
        ti = TaskInstance("end", states={("end", -1): "running"})
        assert running(dag.get_task("end"), ti)["run_id"] == given.run_id
    assert client.get_run(given.run_id).status == "FINISHED"


def test_an_end_in_a_group_closes_the_run_of_the_group(client: MemoryClient) -> None:
    with DAG("dag", schedule=None) as dag, mlflow_run("pipeline", mlflow_conn_id=CONNECTION):
        MLflowEndRunOperator(task_id="close", mlflow_conn_id=CONNECTION)
    first = TaskInstance(START)
    run_id = start(dag, first)["run_id"]
    assert running(dag.get_task("pipeline.close"), at(first, task_id="pipeline.close"))["run_id"] == run_id
    assert client.get_run(run_id).status == "FINISHED"


def test_an_end_without_a_run_says_what_to_pass(client: MemoryClient) -> None:
    with DAG("dag", schedule=None) as dag:
        MLflowEndRunOperator(task_id="end", mlflow_conn_id=CONNECTION)
    with pytest.raises(AirflowFailException) as caught:
        running(dag.get_task("end"), TaskInstance("end"))
    assert str(caught.value) == ("MLflowEndRunOperator has no run to close; pass the start task's output as run_id.")
