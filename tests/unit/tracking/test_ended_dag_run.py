"""Every run of a DAG run that has ended gets an end, wherever it is, and the one that it deserves."""

from __future__ import annotations

from typing import Any

import pytest

from mlflow_projects.exceptions import TrackingError, TrackingUnavailableError
from mlflow_projects.tracking.client import Run
from mlflow_projects.tracking.ended_dag_run import EndedDagRun, settle, why_unsuccessful
from mlflow_projects.tracking.tags import dag_run_tag, own_tags_of
from tests.support.memory_tracking import MemoryClient, opened_again, statuses
from tests.support.tracked import written

REASON, STATE = "mlflow_projects.reason", "airflow.dag_run_state"
START = "g.start_run"


class DagRun:
    """The runs of one DAG run; each starts later than the one before."""

    def __init__(self, client: MemoryClient) -> None:
        self.client = client
        self.moment = 10**12
        self.stopped: list[str] = []
        self.log: list[str] = []

    def open(self, name: str, role: str = "step", parent: Run | None = None, place: str = "0", **tags: str) -> Run:
        self.moment += 1000
        own = {"airflow.dag_id": "dag", "airflow.run_id": "r1", "airflow.task_id": name, "airflow.map_index": "-1"}
        own |= {"mlflow_projects.role": role, **({"mlflow.parentRunId": parent.run_id} if parent else {})}
        named = {key.replace("__", "."): value for key, value in tags.items()}
        tags_of_run = {**own, **named}
        tags_of_run[dag_run_tag(tags_of_run["airflow.dag_id"], tags_of_run["airflow.run_id"])] = "1"
        return self.client.create_run(place, name, self.moment, tags_of_run)

    def parent(self, name: str = START, **of: Any) -> Run:
        return self.open(name, "parent", **of)

    def settle(self, state: str = "failed", is_over: Any = lambda: True, **told: Any) -> int:
        default = {"status": "FAILED", "reason": "why", "groups": None}
        ended = EndedDagRun("dag", "r1", state, **{**default, **told})
        return settle(self.client, ended, is_over, lambda run: self.stopped.append(run.name), self.log.append)


@pytest.fixture
def client() -> MemoryClient:
    return MemoryClient()


@pytest.fixture
def dag_run(client: MemoryClient) -> DagRun:
    return DagRun(client)


def now_of(client: MemoryClient, run: Run) -> tuple[str, str | None, str | None]:
    read = client.get_run(run.run_id)
    return read.status, read.tags.get(REASON), read.tags.get(STATE)


@pytest.mark.parametrize(
    ("told", "state", "expected"),
    [
        ({"status": "KILLED", "reason": "out of time"}, "failed", ("KILLED", "out of time", "failed")),
        ({"status": "FINISHED", "reason": "marked"}, "success", ("FINISHED", "", "success")),
        ({"groups": {START: {}}}, "failed", ("FINISHED", "", "failed")),
        ({"groups": {}}, "failed", ("KILLED", "its group is no longer in the DAG", "failed")),
        ({"groups": {START: {"g.a failed": [-1]}}}, "failed", ("FAILED", "g.a failed", "failed")),
        ({"groups": {START: {"g.a failed": [1, 2]}}}, "failed", ("FINISHED", "", "failed")),
    ],
)
def test_an_open_parent_gets_its_groups_verdict_or_that_of_who_ended_it(
    client: MemoryClient, dag_run: DagRun, told: dict[str, Any], state: str, expected: tuple[str, ...]
) -> None:
    parent = dag_run.parent()
    assert dag_run.settle(state, **told) == 1
    assert now_of(client, parent) == expected
    assert dag_run.settle(state, **told) == 0, "Airflow may say it twice"
    assert now_of(client, parent) == expected


def test_each_of_a_mapped_start_tasks_parents_stands_for_the_whole_group(
    client: MemoryClient, dag_run: DagRun
) -> None:
    parents = [dag_run.parent("start", airflow__map_index=str(index)) for index in range(2)]
    dag_run.settle(groups={"start": {"a failed": [-1]}})
    assert [now_of(client, parent) for parent in parents] == [("FAILED", "a failed", "failed")] * 2


def test_a_closed_parent_keeps_its_end_and_learns_the_dag_runs(client: MemoryClient, dag_run: DagRun) -> None:
    parent = dag_run.parent()
    client.update_run(parent.run_id, "FINISHED", 77)
    assert dag_run.settle() == 0
    assert now_of(client, parent) == ("FINISHED", None, "failed")
    assert client.get_run(parent.run_id).end_time == 77


def test_whatever_is_open_is_closed_children_first_in_every_experiment(client: MemoryClient, dag_run: DagRun) -> None:
    another = client.create_experiment("another")
    outer = dag_run.parent("start_run")
    inner = dag_run.parent(parent=outer)
    step = dag_run.open("g.a", parent=inner)
    nested = client.create_run("0", "nested", dag_run.moment, {"mlflow.parentRunId": step.run_id})
    elsewhere = dag_run.open("g.b", place=another)
    below = client.create_run(another, "below", dag_run.moment, {"mlflow.parentRunId": elsewhere.run_id})
    by_project = dag_run.open("opened by its project", role="inner", place=another)
    lone = dag_run.open("lone")
    done = dag_run.open("done")
    client.update_run(done.run_id, "FINISHED", 77)
    theirs = [
        dag_run.open("of another run", airflow__run_id="r2"),
        dag_run.open("of another dag", airflow__dag_id="another"),
        client.create_run("0", "of nobody", dag_run.moment, {}),
    ]
    writes = written(client)
    assert dag_run.settle(status="KILLED") == 8
    order = [name for name, write in writes if write == "KILLED"]
    assert sorted(order[:2]) == ["below", "nested"]
    assert order[-2:] == [START, "start_run"], "parents come last, the inner one first"
    assert dag_run.stopped == order
    ours = (nested, below, step, elsewhere, by_project, lone, inner, outer)
    assert set(statuses(client, ours).values()) == {"KILLED"}
    assert set(statuses(client, theirs).values()) == {"RUNNING"}
    assert client.get_run(done.run_id).status == "FINISHED"


def test_ours_are_found_among_thousands_of_others(client: MemoryClient, dag_run: DagRun) -> None:
    for number in range(1500):  # older than ours, left open by others
        client.create_run("0", f"other {number}", 10**9 + number, {})
    parent = dag_run.parent()
    child = client.create_run("0", "child", dag_run.moment, {"mlflow.parentRunId": parent.run_id})
    calls = len(client.calls)
    assert dag_run.settle() == 2
    assert now_of(client, child)[0] == "KILLED"
    assert len(client.calls) - calls < 10


def test_below_a_closed_run_too(client: MemoryClient, dag_run: DagRun) -> None:
    parent = dag_run.parent()
    middle = client.create_run("0", "middle", dag_run.moment, {"mlflow.parentRunId": parent.run_id})
    top = client.create_run("0", "top", dag_run.moment, {"mlflow.parentRunId": middle.run_id})
    late = client.create_run("0", "late", dag_run.moment, {"mlflow.parentRunId": top.run_id})
    circle = client.create_run("0", "circle", dag_run.moment, {})
    client.log_batch(circle.run_id, tags={"mlflow.parentRunId": circle.run_id})
    client.create_run("0", "orphan", dag_run.moment, {"mlflow.parentRunId": "f" * 32})
    for run in (parent, middle, top):
        client.update_run(run.run_id, "FINISHED", 77)
    assert dag_run.settle() == 1
    assert now_of(client, late)[:2] == ("KILLED", "why")


def test_of_two_parents_the_one_with_children_counts(client: MemoryClient, dag_run: DagRun) -> None:
    used = dag_run.parent()
    dag_run.open("g.a", parent=used)
    lost = dag_run.parent()  # its creation was answered last
    assert dag_run.settle(groups={START: {}}) == 3
    assert now_of(client, used) == ("FINISHED", "", "failed")
    assert now_of(client, lost) == ("KILLED", "another try of its start task opened a run in its place", None)


def test_of_two_parents_without_children_the_closed_one_counts(client: MemoryClient, dag_run: DagRun) -> None:
    closed, lost = dag_run.parent(), dag_run.parent()
    client.update_run(closed.run_id, "FINISHED", 77)
    dag_run.settle(groups={START: {}})
    assert (now_of(client, closed)[0], now_of(client, lost)[0]) == ("FINISHED", "KILLED")


def test_of_two_outer_parents_the_one_with_inner_parents_counts(client: MemoryClient, dag_run: DagRun) -> None:
    lost, outer = dag_run.parent("start_run"), dag_run.parent("start_run")
    client.update_run(lost.run_id, "KILLED", 77)
    dag_run.parent(parent=outer)
    dag_run.settle(groups={START: {}, "start_run": {}})
    assert (now_of(client, lost)[0], now_of(client, outer)) == ("KILLED", ("FINISHED", "", "failed"))


def test_of_two_parents_with_children_the_newest_counts(client: MemoryClient, dag_run: DagRun) -> None:
    older, newer = dag_run.parent(), dag_run.parent()
    for parent in (older, newer):
        dag_run.open("g.a", parent=parent)
    client.update_run(older.run_id, "FAILED", 77)
    dag_run.settle("success", groups={START: {}})
    assert (now_of(client, older), now_of(client, newer)) == (("FAILED", None, None), ("FINISHED", "", "success"))


def test_the_runs_of_another_airflow_are_left_alone(client: MemoryClient, dag_run: DagRun) -> None:
    ours = dag_run.open("a", airflow__task_url="http://ours/dags/dag")
    unnamed = dag_run.open("b")
    theirs = dag_run.open("a", airflow__task_url="http://ours.but.not/dags/dag")
    dag_run.settle(airflow_url="http://ours")
    assert statuses(client, (ours, unnamed)) == {"a": "KILLED", "b": "KILLED"}
    assert now_of(client, theirs)[0] == "RUNNING"


def test_where_no_run_knows_this_airflow_all_are_its(client: MemoryClient, dag_run: DagRun) -> None:
    run = dag_run.open("a", airflow__task_url="http://a.worker.that.was.told.another/dags/dag")
    dag_run.settle(airflow_url="http://ours")
    assert now_of(client, run)[0] == "KILLED"


def test_a_success_that_airflow_never_took_is_withdrawn(client: MemoryClient, dag_run: DagRun) -> None:
    older, other = dag_run.open("a", airflow__try_number="1"), dag_run.open("b", airflow__try_number="2")
    last = dag_run.open("a", airflow__try_number="2")
    inner = dag_run.open("a", role="inner", airflow__try_number="2")
    for run in (older, last, other, inner):
        client.update_run(run.run_id, "FINISHED", 77)
    assert dag_run.settle(failed=[["a", 2, [-1]], ["b", 2, [0, 1]], ["b", 3, [-1]]]) == 1
    why = "Airflow calls this try failed: it never heard of the success, or a person marked it"
    assert now_of(client, last)[:2] == ("KILLED", why)
    assert client.get_run(last.run_id).end_time == 77
    assert {client.get_run(run.run_id).status for run in (older, other, inner)} == {"FINISHED"}


def test_a_dag_run_that_runs_again_is_left_alone(client: MemoryClient, dag_run: DagRun) -> None:
    parent, step = dag_run.parent(), dag_run.open("g.a")
    answers = iter([True, False])
    assert dag_run.settle(is_over=lambda: next(answers)) == 1
    assert (now_of(client, step)[0], now_of(client, parent)[0]) == ("KILLED", "RUNNING")
    assert dag_run.log == ["DAG run r1 of dag runs again; its runs are left alone."]


def test_what_a_person_deleted_hides_nothing_else(client: MemoryClient, dag_run: DagRun) -> None:
    parent, step = dag_run.parent(), dag_run.open("g.a")

    def deleted_meanwhile(method: str, arguments: tuple[Any, ...]) -> None:
        if method == "log_batch" and arguments[0] == step.run_id:
            client.delete_run(step.run_id)

    client.before = deleted_meanwhile
    assert dag_run.settle() == 1
    assert now_of(client, parent)[0] == "FAILED"
    assert dag_run.log == [f"Run {step.run_id} (g.a) was deleted in MLflow; it stays as it is."]


def test_a_deleted_experiment_is_told(client: MemoryClient, dag_run: DagRun) -> None:
    parent = dag_run.parent()
    client.delete_experiment(parent.experiment_id)
    assert dag_run.settle() == 0
    said = "DAG run r1 of dag has no MLflow run to close: none was opened, or a person deleted its experiment."
    assert dag_run.log == [said]


def test_one_refusal_keeps_no_other_open_and_is_told(client: MemoryClient, dag_run: DagRun) -> None:
    parent, step = dag_run.parent(), dag_run.open("g.a")

    def refuse(method: str, arguments: tuple[Any, ...]) -> None:
        if method == "update_run" and arguments[0] == step.run_id:
            raise TrackingError("no")

    client.before = refuse
    with pytest.raises(TrackingError, match="no"):
        dag_run.settle()
    assert now_of(client, parent)[0] == "FAILED"


def test_a_server_that_is_away_is_asked_no_more(client: MemoryClient, dag_run: DagRun) -> None:
    dag_run.parent(), dag_run.open("g.a")

    def away(method: str, _: Any) -> None:
        if method == "log_batch":
            raise TrackingUnavailableError("away")

    client.before = away
    dag_run.open("g.b")
    with pytest.raises(TrackingUnavailableError):
        dag_run.settle()
    assert client.calls.count("log_batch") == 2, "one run alone may be the trouble"


@pytest.mark.parametrize(
    ("states", "reason"),
    [
        ([("a", -1, "success"), ("b", -1, "skipped")], ""),
        ([("a", -1, "failed"), ("b", -1, "upstream_failed")], "a failed; b could not run"),
        ([("a", -1, "failed"), ("b", -1, "success")], ""),
        ([("b", 2, "failed"), ("b", 0, "failed"), ("b", 1, "success")], "b[0], b[2] failed"),
        ([("b", n, "failed") for n in range(12)], f"{', '.join(f'b[{n}]' for n in range(10))} and 2 more failed"),
    ],
)
def test_what_failed_is_named(states: list[Any], reason: str) -> None:
    assert why_unsuccessful(states, {"b"}) == reason


@pytest.mark.parametrize(
    ("failed", "noted", "expected"),
    [
        ([], "FINISHED 77", ("FINISHED", None)),
        ([["a", 1, [-1]]], "FINISHED 77", ("KILLED", "why")),  # a project may have written the tag
        ([], "RUNNING 77", ("KILLED", "why")),
        ([], "FINISHED soon", ("KILLED", "why")),
    ],
)
def test_a_run_that_a_killed_function_of_another_task_had_opened_again_gets_its_end_back(
    client: MemoryClient, dag_run: DagRun, failed: list[Any], noted: str, expected: tuple[str, Any]
) -> None:
    run = opened_again(client, dag_run.open("a", airflow__try_number="1"), noted)
    assert dag_run.settle(failed=failed) == 1
    read = client.get_run(run.run_id)
    assert (read.status, read.tags.get(REASON)) == expected
    assert expected[0] == "KILLED" or read.end_time == 77


def test_a_tag_that_a_project_wrote_is_no_end(client: MemoryClient, dag_run: DagRun) -> None:
    run = dag_run.open("a", airflow__try_number="1", mlflow_projects__ended_as="FINISHED 77")
    dag_run.settle()
    assert client.get_run(run.run_id).status == "KILLED"


def without_tags(client: MemoryClient, *runs: Run) -> dict[str, dict[str, str]]:
    """Take the tags off some runs, as their project can; return what they were opened with, by run id."""
    opened = {run.run_id: own_tags_of(run.tags) for run in runs}
    for run in runs:
        client.log_batch(run.run_id, tags={**dict.fromkeys(opened[run.run_id], "mine"), REASON: "mine"})
    return opened


def test_a_run_whose_project_changed_all_tags_is_found_and_known_again(client: MemoryClient, dag_run: DagRun) -> None:
    parent = dag_run.parent()
    step = dag_run.open("g.a", parent=parent, place=client.create_experiment("another"))
    opened = without_tags(client, parent, step)
    others = client.create_run("0", "of nobody", dag_run.moment, {})
    calls = len(client.calls)
    assert dag_run.settle(opened=opened, groups={START: {"g.a failed": [-1]}}) == 2
    assert len(client.calls) - calls < 10
    assert now_of(client, step)[:2] == ("KILLED", "why")
    assert now_of(client, parent) == ("FAILED", "g.a failed", "failed")
    for run in (parent, step):
        assert own_tags_of(client.get_run(run.run_id).tags) == opened[run.run_id]
        assert any(run.run_id in line and "airflow.run_id" in line for line in dag_run.log)
    assert now_of(client, others)[0] == "RUNNING"


def test_no_changed_tag_saves_the_success_of_a_failed_try(client: MemoryClient, dag_run: DagRun) -> None:
    run = dag_run.open("a", airflow__try_number="1")
    opened = {run.run_id: own_tags_of(run.tags)}
    client.log_batch(run.run_id, tags={"airflow.try_number": "7"})
    client.update_run(run.run_id, "FINISHED", 77)
    assert dag_run.settle(opened=opened, failed=[["a", 1, [-1]]]) == 1
    read = client.get_run(run.run_id)
    assert (read.status, read.end_time, read.tags["airflow.try_number"]) == ("KILLED", 77, "1")


def test_a_run_that_needs_nothing_else_gets_its_tags_back(client: MemoryClient, dag_run: DagRun) -> None:
    run = dag_run.open("a")
    opened = without_tags(client, run)
    client.update_run(run.run_id, "FAILED", 77)
    assert dag_run.settle(opened=opened) == 0
    read = client.get_run(run.run_id)
    assert (read.status, read.end_time, own_tags_of(read.tags)) == ("FAILED", 77, opened[run.run_id])


def test_a_job_that_was_hidden_from_the_end_task_is_stopped(client: MemoryClient, dag_run: DagRun) -> None:
    hidden, other = (dag_run.open(name, mlflow_projects__job='{"backend": "b"}') for name in ("hidden", "other"))
    opened = without_tags(client, hidden)
    opened[other.run_id] = own_tags_of(other.tags)
    jobs: list[str] = []
    for run in (hidden, other):
        client.update_run(run.run_id, "KILLED", 77)
    ended = EndedDagRun("dag", "r1", "failed", "FAILED", "why", None, opened=opened)
    for _ in range(2):
        settle(client, ended, lambda: True, lambda run: jobs.append(run.tags["mlflow_projects.job"]), print)
    assert jobs == ['{"backend": "b"}'], "once, of the one whose tags were changed"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({START: []}, ("KILLED", "out of time", "failed")),
        ({START: [3]}, ("KILLED", "out of time", "failed")),  # of another index
        ({START: [-1]}, ("FINISHED", None, "failed")),  # its end task closed it
        ({}, ("FINISHED", None, "failed")),  # it has no end task
    ],
)
def test_a_parent_that_a_project_closed_has_no_end_of_its_own(
    client: MemoryClient, dag_run: DagRun, told: dict[str, list[int]], expected: tuple[str, ...]
) -> None:
    parent = dag_run.parent()
    client.update_run(parent.run_id, "FINISHED", 77)
    dag_run.settle(status="KILLED", reason="out of time", told=told)
    assert now_of(client, parent) == expected
    assert (client.get_run(parent.run_id).end_time == 77) == (expected[0] == "FINISHED")
    assert dag_run.settle(status="KILLED", reason="out of time", told=told) == 0


FIRST_END = {"status": "KILLED", "reason": "out of time", "told": {START: []}, "clears": 0}
SECOND_END = {"reason": "a person failed it", "told": {START: []}, "clears": 1}


@pytest.mark.parametrize("ends", [(FIRST_END, SECOND_END), (SECOND_END, FIRST_END)], ids=["in order", "turned"])
def test_of_two_ends_that_waited_for_the_server_the_last_counts(
    client: MemoryClient, dag_run: DagRun, ends: Any
) -> None:
    parent = dag_run.parent()
    for end in ends:
        dag_run.settle(**end)
    assert now_of(client, parent) == ("FAILED", "a person failed it", "failed")


def test_who_marks_a_failed_dag_run_failed_changes_nothing(client: MemoryClient, dag_run: DagRun) -> None:
    parent = dag_run.parent()
    dag_run.settle(groups={START: {"g.a failed": [-1]}}, told={START: []})
    assert dag_run.settle(reason="a person marked the DAG run failed", told={START: []}) == 0
    assert now_of(client, parent) == ("FAILED", "g.a failed", "failed")


def test_so_does_a_parent_whose_group_had_ended(client: MemoryClient, dag_run: DagRun) -> None:
    parent = opened_again(client, dag_run.parent(), "FAILED 77")
    dag_run.settle(status="KILLED")
    read = client.get_run(parent.run_id)
    assert (read.status, read.end_time, read.tags[STATE]) == ("FAILED", 77, "failed")
