"""An attempt's run is opened once, closed with the truth, and what nobody works on any more is closed for it."""

from __future__ import annotations

import getpass
import itertools
import json
import os
import time
from dataclasses import replace
from typing import Any

import pytest

from mlflow_projects.exceptions import ProjectError, TrackingError, TrackingUnavailableError
from mlflow_projects.tracking.client import Run, now
from mlflow_projects.tracking.closing import close_abandoned, close_open_descendants, withdraw
from mlflow_projects.tracking.lookup import parents_of_task
from mlflow_projects.tracking.record import (
    Outcome,
    RunRecord,
    SourceTags,
    TaskIdentity,
    resolve_experiment,
)
from mlflow_projects.tracking.tags import dag_run_tag
from tests.support.memory_tracking import MemoryClient, statuses
from tests.support.tracked import written

TASK = TaskIdentity("dag", "run 1", "train", 2, "attempt-7", 3, "2026-01-02T00:00:00+00:00", "http://airflow/t")
REASON, ENDED_AS = "mlflow_projects.reason", "mlflow_projects.ended_as"


@pytest.fixture
def client() -> MemoryClient:
    return MemoryClient()


def record(client: MemoryClient, name: str = "train", **changes: Any) -> RunRecord:
    task = replace(TASK, attempt_id=f"attempt of {name}")
    return replace(RunRecord(client, "0", name, task, SourceTags("src")), **changes)


def refusing(client: MemoryClient, method: str, error: Exception, times: int = 10**6) -> None:
    """Let the server refuse the next calls of a method."""
    left = times

    def before(called: str, _: tuple[Any, ...]) -> None:
        nonlocal left
        if called == method and left:
            left -= 1
            raise error

    client.before = before


# --- what a run says from its first second on ---


def test_a_run_says_where_it_comes_from(client: MemoryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ada")
    source = SourceTags("git@x#sub", "PROJECT", "main", "local", "abc", "trunk", "https://git/x", True, "f00")
    run = record(
        client, task=TASK, source=source, parent_run_id="above", supersedes="before",
        parameters={"ü": "1e-05"}, more_tags={"team": "blue", "mlflow_projects.role": "mine", "none": ""},
    ).open()  # fmt: skip
    assert (run.name, run.experiment_id, run.status, run.end_time) == ("train", "0", "RUNNING", None)
    assert run.tags == {
        "mlflow.runName": "train",
        "mlflow.user": "ada",
        "mlflow.parentRunId": "above",
        "mlflow.source.name": "git@x#sub",
        "mlflow.source.type": "PROJECT",
        "mlflow.source.git.commit": "abc",
        "mlflow.source.git.branch": "trunk",
        "mlflow.source.git.repoURL": "https://git/x",
        "mlflow.source.git.dirty": "true",
        "mlflow.project.entryPoint": "main",
        "mlflow.project.backend": "local",
        "mlflow.note.content": "[Airflow task train, DAG run run 1, try 2](http://airflow/t)",
        "mlflow_projects.source.sha256": "f00",
        "mlflow_projects.supersedes": "before",
        "mlflow_projects.parameters": '{"ü": "1e-05"}',
        "mlflow_projects.attempt_id": "attempt-7",
        "mlflow_projects.role": "mine",
        "airflow.dag_id": "dag",
        "airflow.run_id": "run 1",
        "airflow.task_id": "train",
        "airflow.map_index": "3",
        "airflow.try_number": "2",
        "airflow.logical_date": "2026-01-02T00:00:00+00:00",
        "airflow.task_url": "http://airflow/t",
        dag_run_tag("dag", "run 1"): "1",
        "team": "blue",
    }


def test_what_is_not_known_is_no_tag(client: MemoryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_242_424)
    with pytest.raises((OSError, KeyError)):
        getpass.getuser()
    run = record(client, task=TaskIdentity("d", "r", "t", 1, "a"), more_tags={"count": 3, "long": "x" * 9000}).open()
    assert run.tags == {
        "mlflow.runName": "train",
        "mlflow.source.name": "src",
        "mlflow.source.type": "PROJECT",
        "mlflow_projects.attempt_id": "a",
        "mlflow_projects.role": "step",
        "airflow.dag_id": "d",
        "airflow.run_id": "r",
        "airflow.task_id": "t",
        "airflow.map_index": "-1",
        "airflow.try_number": "1",
        dag_run_tag("d", "r"): "1",
        "count": "3",
        "long": "x" * 8000,
    }


def test_a_task_instance_has_one_name_for_all_its_tries() -> None:
    assert TASK.key == replace(TASK, try_number=9, attempt_id="b", url="").key == "dag-train-9f47f14a294ea90c"
    others = [replace(TASK, **{name: "x"}) for name in ("dag_id", "run_id", "task_id")]
    keys = {task.key for task in (TASK, replace(TASK, map_index=4), *others)}
    assert len(keys) == 5
    assert replace(TASK, dag_id="a-b", task_id="c").key != replace(TASK, dag_id="a", task_id="b-c").key
    odd = replace(TASK, dag_id=".ünï/..//", task_id="t " * 60).key
    assert odd.startswith("n-t-t-t")
    assert len(odd) < 100
    assert set(odd) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


# --- opened once ---


def test_an_answer_that_is_lost_makes_no_second_run(client: MemoryClient) -> None:
    def lose_the_answer(method: str, arguments: tuple[Any, ...]) -> None:
        if method == "create_run":
            client.before = lambda *_: None
            client.create_run(*arguments)
            raise TrackingUnavailableError("the answer is lost")

    record(client, "another").open()
    client.before = lose_the_answer
    opened = record(client)
    run = opened.open()
    assert [found.name for found in client.search_runs(["0"], "")] == ["another", "train"]
    assert run == opened.run == opened.find() == client.get_run(run.run_id)
    assert run.name == "train"


@pytest.mark.parametrize(("away", "asked"), [(1, 2), (2, 3), (3, 3), (9, 3)])
def test_a_server_that_is_away_is_asked_three_times(client: MemoryClient, away: int, asked: int) -> None:
    refusing(client, "create_run", TrackingUnavailableError("away"), away)
    opened = record(client)
    if away < 3:
        assert opened.open().status == "RUNNING"
    else:
        with pytest.raises(TrackingUnavailableError, match="away"):
            opened.open()
        assert opened.run is None
    assert client.calls.count("create_run") == asked


def test_a_refusal_is_not_asked_again(client: MemoryClient) -> None:
    refusing(client, "create_run", TrackingError("no"))
    with pytest.raises(TrackingError, match="no"):
        record(client).open()
    assert client.calls == ["create_run"]


# --- closed with the truth ---


def test_a_success_is_written_at_the_end(client: MemoryClient) -> None:
    asked: list[Run] = []

    def success_tags(run: Run) -> dict[str, str]:
        asked.append(run)
        return {"key": "complete"}

    opened = record(client, parameters={"lr": "1e-05", "text": "y" * 7000}, success_tags=success_tags)
    run = opened.open()
    client.log_batch(run.run_id, params={"lr": "0.00001"})
    writes = written(client)
    closed = opened.close(Outcome("FINISHED", "", "ignored", 0, {"cost": 1.5}, {"fact": "f", "unknown": ""}))
    tags = {"fact": "f", "key": "complete", ENDED_AS: f"FINISHED {closed.end_time}"}
    expected = {"params": {"text": "y" * 6000}, "tags": tags, "metrics": {"cost": 1.5}}
    assert writes == [("train", expected), ("train", "FINISHED")]
    assert [(one.run_id, dict(one.params)) for one in asked] == [(run.run_id, {"lr": "0.00001"})]
    assert closed.status == "FINISHED"
    read = client.get_run(run.run_id)
    assert (read.status, read.params["lr"], read.metrics) == ("FINISHED", "0.00001", {"cost": 1.5})
    assert REASON not in read.tags
    assert read.start_time is not None
    assert read.end_time is not None
    assert read.end_time >= read.start_time


def test_a_success_with_nothing_to_do_is_no_result_to_be_used_again(client: MemoryClient) -> None:
    opened = record(client, success_tags=lambda _: {"key": "complete"})
    run = opened.open()
    opened.close(Outcome("FINISHED", "skipped", facts={REASON: "skipped"}))
    tags = client.get_run(run.run_id).tags
    assert (tags[REASON], "key" in tags) == ("skipped", False)


@pytest.mark.parametrize("status", ["FAILED", "KILLED"])
def test_another_end_says_why(client: MemoryClient, status: Any) -> None:
    opened = record(client, success_tags=lambda _: {"key": "complete"})
    run = opened.open()
    client.update_run(run.run_id, "FINISHED", 1)  # a project that swallowed its own error
    writes = written(client)
    closed = opened.close(Outcome(status, "why", "last words", 0, facts={"fact": "f"}))
    assert closed.status == status
    tags = {"fact": "f", REASON: "why", "mlflow_projects.output_tail": "last words", "mlflow_projects.exit_code": "0"}
    tags[ENDED_AS] = f"{status} {closed.end_time}"
    assert writes == [("train", {"tags": tags}), ("train", status)]
    assert client.get_run(run.run_id).status == status


def test_a_command_that_never_ran_has_no_exit_code(client: MemoryClient) -> None:
    opened = record(client)
    run = opened.open()
    writes = written(client)
    closed = opened.close(Outcome("FAILED", "no such file"))
    tags = {REASON: "no such file", ENDED_AS: f"FAILED {closed.end_time}"}
    assert writes == [("train", {"tags": tags}), ("train", "FAILED")]
    assert client.get_run(run.run_id).tags[REASON] == "no such file"


@pytest.mark.parametrize("status", ["FINISHED", "FAILED"])
def test_who_opens_it_again_and_is_killed_does_not_change_its_end(client: MemoryClient, status: Any) -> None:
    opened = record(client, parameters={"lr": "1"})
    run = opened.open()
    closed = opened.close(Outcome(status, "" if status == "FINISHED" else "why"))
    client.update_run(run.run_id, "RUNNING")  # a project of another step: mlflow.start_run(run_id=…)
    assert close_abandoned(client, run.run_id, "its worker is lost", lambda _: None)
    read = client.get_run(run.run_id)
    assert (read.status, read.end_time) == (status, closed.end_time)


def test_nothing_is_logged_where_there_is_nothing_to_say(client: MemoryClient) -> None:
    opened = record(client)
    opened.open()
    writes = written(client)
    opened.close(Outcome("FINISHED"))
    assert writes == [("train", "FINISHED")]


def test_a_project_that_gave_its_own_run_up_is_known_by_its_tags_all_the_same(client: MemoryClient) -> None:
    opened = record(client)
    run = opened.open()
    client.log_batch(run.run_id, tags={REASON: "mine", "airflow.run_id": "mine"})
    client.update_run(run.run_id, "KILLED", 1)
    assert opened.close(Outcome("FINISHED")).status == "KILLED"
    assert client.get_run(run.run_id).tags["airflow.run_id"] == run.tags["airflow.run_id"]


@pytest.mark.parametrize("outcome", [Outcome("FINISHED"), Outcome("FAILED", "later", metrics={"a": 1})])
def test_a_run_that_was_given_up_stays_as_it_is(client: MemoryClient, outcome: Outcome) -> None:
    opened = record(client, parameters={"lr": "1"})
    run = opened.open()
    assert close_abandoned(client, run.run_id, "its worker is lost", lambda _: None)
    before = client.get_run(run.run_id)
    writes = written(client)
    assert opened.close(outcome) == before == client.get_run(run.run_id)
    assert writes == []
    assert before.status == "KILLED"


@pytest.mark.parametrize("outcome", [Outcome("FINISHED"), Outcome("FAILED", "exit status 3")])
def test_the_outcome_counts_although_a_person_deleted_the_run(client: MemoryClient, outcome: Outcome) -> None:
    lines: list[str] = []
    opened = record(client, log=lines.append)
    run = opened.open()
    client.delete_run(run.run_id)
    assert opened.close(outcome).status == outcome.status
    assert lines == [f"Run {run.run_id} was deleted in MLflow; it stays as it is."]


def test_an_open_run_with_an_old_reason_is_closed(client: MemoryClient) -> None:
    opened = record(client, more_tags={REASON: "of its last time"})
    run = opened.open()
    assert opened.close(Outcome("FINISHED")).status == "FINISHED"
    assert client.get_run(run.run_id).status == "FINISHED"


def test_closing_before_opening_is_a_mistake(client: MemoryClient) -> None:
    with pytest.raises(AssertionError, match=r"open\(\) comes first"):
        record(client).close(Outcome("FINISHED"))


# --- found ---


def test_an_experiment_that_another_task_makes_meanwhile_is_taken(client: MemoryClient) -> None:
    def another_is_faster(method: str, arguments: tuple[Any, ...]) -> None:
        if method == "create_experiment":
            client.before = lambda *_: None
            client.create_experiment(*arguments)

    client.before = another_is_faster
    found = resolve_experiment(client, "shared")
    assert found == client.experiment_id("shared") == resolve_experiment(client, "shared")
    assert client.calls.count("create_experiment") == 2, "once by us, once by the other"


@pytest.mark.parametrize("name", ["e" * 257, "nul \0", "half \ud800"])
def test_a_name_that_the_database_refuses_is_a_sentence_before_anybody_is_asked(
    client: MemoryClient, name: str
) -> None:
    with pytest.raises(
        ProjectError, match=r"^'experiment_name' (has 257 characters; MLflow takes 256|is '(nul|half) )"
    ):
        resolve_experiment(client, name)
    assert client.calls == []


def test_an_experiment_that_is_hidden_is_named() -> None:
    class Hiding(MemoryClient):
        def experiment_id(self, name: str) -> None:
            self.calls.append(name)

    hiding = Hiding()
    with pytest.raises(TrackingError) as caught:
        resolve_experiment(hiding, "Default")
    assert str(caught.value) == "The experiment 'Default' can neither be found nor created."
    assert hiding.calls == ["Default", "create_experiment"] * 2


def test_a_server_that_makes_no_experiment_says_why(client: MemoryClient) -> None:
    refusing(client, "create_experiment", TrackingError("you may not", "PERMISSION_DENIED"))
    with pytest.raises(TrackingError, match="you may not"):
        resolve_experiment(client, "mine")
    assert client.calls == ["experiment_id", "create_experiment"]


def test_the_newest_parent_of_the_start_task_is_found_and_no_other(client: MemoryClient) -> None:
    tags = {**TASK.tags(), "mlflow_projects.role": "parent"}
    assert parents_of_task(client, TASK.tags()) == []
    client.create_run("0", "older", 10, tags)
    client.create_run("0", "newest", 20, tags)
    client.create_run("0", "oldest", 5, tags)
    for key in ("airflow.task_id", "airflow.map_index", "mlflow_projects.role"):
        client.create_run("0", f"another {key}", 30, {**tags, key: "step"})
    for others in (replace(TASK, dag_id="another"), replace(TASK, run_id="another")):
        client.create_run("0", "of others", 30, {**others.tags(), "mlflow_projects.role": "parent"})
    client.create_run(client.create_experiment("another"), "elsewhere", 30, tags)
    for task in (TASK, replace(TASK, try_number=3, attempt_id="another try")):
        everywhere, there = parents_of_task(client, task.tags()), parents_of_task(client, task.tags(), ["0"])
        assert [run.name for run in everywhere] == ["elsewhere", "newest", "older", "oldest"]
        assert there == everywhere[1:]


# --- closed for it ---


class Family:
    """A step with open and closed runs below it, and runs of others.

    top ─ nested ─ deep;  top ─ done (FINISHED) ─ late;  stranger;  of-stranger
    """

    def __init__(self, client: MemoryClient) -> None:
        self.client = client
        self.moments = itertools.count(now() - 1000)  # no two runs start in one millisecond
        self.top = self.make("top")
        self.nested = self.make("nested", self.top.run_id)
        self.stranger = self.make("stranger")
        self.done = self.make("done", self.top.run_id)
        client.update_run(self.done.run_id, "FINISHED", 77)
        self.late = self.make("late", self.done.run_id)
        self.deep = self.make("deep", self.nested.run_id)
        self.of_stranger = self.make("of-stranger", self.stranger.run_id)
        self.writes = written(client)

    def make(self, name: str, parent: str = "") -> Run:
        return self.client.create_run("0", name, next(self.moments), {"mlflow.parentRunId": parent} if parent else {})

    def stop(self, run: Run) -> None:
        assert self.client.get_run(run.run_id).status == "RUNNING", "the job outside stops before its run is closed"
        self.writes.append((run.name, "stopped"))

    def closed(self, *names: str, reason: str = "gone") -> list[tuple[Any, ...]]:
        """Return what is written to close these runs, in that order."""
        steps = [(name, ("stopped", {"tags": {REASON: reason}}, "KILLED")) for name in names]
        return [(name, write) for name, writes in steps for write in writes]

    def states(self) -> dict[str, str]:
        runs = (self.top, self.nested, self.deep, self.done, self.late, self.stranger, self.of_stranger)
        return statuses(self.client, runs)


def test_a_run_that_nobody_works_on_is_closed_after_what_is_below_it(client: MemoryClient) -> None:
    family = Family(client)
    assert close_abandoned(client, family.top.run_id, "gone", family.stop) is True
    assert family.writes == family.closed("deep", "late", "nested", "top")
    assert family.states() == {
        "top": "KILLED", "nested": "KILLED", "deep": "KILLED", "done": "FINISHED", "late": "KILLED",
        "stranger": "RUNNING", "of-stranger": "RUNNING",
    }  # fmt: skip
    for run in (family.top, family.nested, family.deep, family.late):
        end = client.get_run(run.run_id).end_time
        assert end is not None
        assert end >= (run.start_time or 0)
    assert client.get_run(family.done.run_id).end_time == 77
    family.writes.clear()
    assert close_abandoned(client, family.top.run_id, "again", family.stop) is False
    assert close_abandoned(client, "0" * 32, "no such run", family.stop) is False
    assert family.writes == []


def test_only_what_is_below_a_run_is_closed(client: MemoryClient) -> None:
    family = Family(client)
    closed = close_open_descendants(client, family.nested, "gone", family.stop)
    assert [run.name for run in closed] == ["deep"]
    assert family.writes == family.closed("deep")


@pytest.mark.parametrize(("status", "also_finished", "changed"), [
    ("FINISHED", False, False), ("FINISHED", True, True), ("FAILED", True, False), ("KILLED", True, False),
])  # fmt: skip
def test_a_closed_run_loses_its_success_only_where_it_is_asked_for(
    client: MemoryClient, status: Any, also_finished: bool, changed: bool
) -> None:
    run = record(client).open()
    client.update_run(run.run_id, status, 1234)
    writes = written(client)
    assert close_abandoned(client, run.run_id, "why", lambda _: None, also_finished=also_finished) is changed
    assert writes == ([("train", {"tags": {REASON: "why"}}), ("train", "KILLED")] if changed else [])
    assert client.get_run(run.run_id).end_time == 1234


def test_a_success_stays_where_nothing_else_is_said(client: MemoryClient) -> None:
    run = record(client).open()
    client.update_run(run.run_id, "FINISHED", 1234)
    assert close_abandoned(client, run.run_id, "why", lambda _: None) is False
    assert client.get_run(run.run_id).status == "FINISHED"


def test_a_success_that_is_withdrawn_keeps_its_end(client: MemoryClient) -> None:
    run = record(client).open()
    withdraw(client, replace(run, end_time=1234), "why")
    read = client.get_run(run.run_id)
    assert (read.status, read.end_time, read.tags[REASON]) == ("KILLED", 1234, "why")
    endless = record(client, "endless").open()
    withdraw(client, endless, "why")
    assert (client.get_run(endless.run_id).end_time or 0) >= (endless.start_time or 0)


def test_a_parent_that_is_gone_makes_no_child_of_ours(client: MemoryClient) -> None:
    family = Family(client)
    family.make("orphan", "f" * 32)
    family.make("own-parent", f"{7:032x}")
    below = {run.name for run in close_open_descendants(client, family.top, "gone", family.stop)}
    assert below == {"nested", "deep", "late"}


def test_runs_that_name_each_other_as_parent_end_the_search(client: MemoryClient) -> None:
    root = record(client, "root").open()
    one = client.create_run("0", "one", now(), {})
    two = client.create_run("0", "two", now(), {"mlflow.parentRunId": one.run_id})
    client.log_batch(one.run_id, tags={"mlflow.parentRunId": two.run_id})
    three = client.create_run("0", "three", now(), {})
    client.log_batch(three.run_id, tags={"mlflow.parentRunId": three.run_id})
    client.create_run("0", "four", now(), {"mlflow.parentRunId": two.run_id})
    assert close_open_descendants(client, root, "gone", lambda _: None) == []


def test_a_server_that_goes_away_is_no_missing_run(client: MemoryClient) -> None:
    family = Family(client)
    refusing(client, "get_run", TrackingUnavailableError("away"))
    with pytest.raises(TrackingUnavailableError):
        close_abandoned(client, family.top.run_id, "gone", family.stop)
    refusing(client, "search_runs", TrackingUnavailableError("away"))
    with pytest.raises(TrackingUnavailableError):
        close_open_descendants(client, family.top, "gone", family.stop)
    assert "update_run" not in client.calls[-3:]


def test_the_time_is_in_milliseconds_since_1970() -> None:
    assert abs(now() / 1000 - time.time()) < 3600


def test_parameters_are_announced_as_json(client: MemoryClient) -> None:
    run = record(client, parameters={"b": "2", "a": "ü"}).open()
    assert json.loads(run.tags["mlflow_projects.parameters"]) == {"b": "2", "a": "ü"}
