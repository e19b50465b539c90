"""The janitor closes what is open for DAG runs that ended, children first, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from mlflow_projects.exceptions import TrackingRefusedError, TrackingUnavailableError
from mlflow_projects.tracking.client import Run, now
from mlflow_projects.tracking.janitor import Closed, close_leftovers
from mlflow_projects.tracking.record import RunRecord, SourceTags, TaskIdentity, resolve_experiment
from tests.support.memory_tracking import MemoryClient, opened_again, statuses
from tests.support.tracked import written

HERE = "http://this-airflow:8080"


@pytest.mark.parametrize(
    ("state", "parent", "step"),
    [("success", "FINISHED", "KILLED"), ("failed", "FAILED", "KILLED"), (None, "KILLED", "KILLED"),
     ("running", "RUNNING", "RUNNING"), ("queued", "RUNNING", "RUNNING")],
)  # fmt: skip
def test_what_is_open_gets_the_verdict_of_its_dag_run(state: str | None, parent: str, step: str) -> None:
    client = MemoryClient()
    experiment = resolve_experiment(client, f"janitor {state}")
    dag = f"dag-{now()}"

    def record(name: str, role: str, above: str | None, airflow: str = HERE) -> RunRecord:
        task = TaskIdentity(dag, "run", name, 1, f"{dag}-{name}", url=f"{airflow}/dags/{dag}/runs/run")
        return RunRecord(client, experiment, name, task, SourceTags(name="s"), role=role, parent_run_id=above)

    top = record("top", "parent", None).open()
    under = record("under", "step", top.run_id).open()
    done = record("done", "step", top.run_id).open()
    client.update_run(done.run_id, "FINISHED", now())
    nested = client.create_run(experiment, "nested", now(), {"mlflow.parentRunId": done.run_id})
    foreign = record("foreign", "parent", None, airflow="http://another-airflow:8080").open()
    stopped: list[Run] = []
    closed = close_leftovers(client, lambda dag_id, _: state if dag_id == dag else "running", HERE, stopped.append)

    below = "RUNNING" if parent == "RUNNING" else "KILLED"
    assert statuses(client, (top, under, done, nested, foreign)) == {
        "top": parent,
        "under": step,
        "done": "FINISHED",
        "nested": below,
        "foreign": "RUNNING",
    }
    mine = [run for run in closed if run.dag_id == dag]
    assert {run.run_id for run in mine if run.name != "top"} <= {run.run_id for run in stopped}, "jobs outside first"
    assert [run.name for run in mine][-1:] == ([] if parent == "RUNNING" else ["top"]), "the parent comes last"
    assert {run.name for run in mine} == (set() if parent == "RUNNING" else {"top", "under", "nested"})
    assert (
        close_leftovers(client, lambda dag_id, _: state if dag_id == dag else "running", HERE, stopped.append) == []
    )


def step_of(client: MemoryClient, name: str, start: int, **tags: str) -> Run:
    own = {"airflow.dag_id": "dag", "airflow.run_id": "r1", "airflow.task_url": f"{HERE}/dags/dag"}
    return client.create_run("0", name, start, {**own, "mlflow_projects.role": "step", **tags})


def test_jobs_stop_first_and_parents_come_last() -> None:
    client = MemoryClient()
    top = step_of(client, "top", 10, **{"mlflow_projects.role": "parent"})
    late_top = step_of(client, "late top", 40, **{"mlflow_projects.role": "parent"})
    older = step_of(client, "older", 20, **{"mlflow.parentRunId": top.run_id})
    newer = step_of(client, "newer", 30, **{"mlflow.parentRunId": top.run_id})
    nested = client.create_run("0", "nested", 50, {"mlflow.parentRunId": older.run_id})
    writes = written(client)

    def stop(run: Run) -> None:
        writes.append((run.name, "stopped"))

    closed = close_leftovers(client, lambda *_: "failed", f"{HERE}/", stop)
    why = {"tags": {"mlflow_projects.reason": "closed by the janitor: the DAG run is failed"}}
    ends = [(newer, "KILLED"), (nested, "KILLED"), (older, "KILLED"), (late_top, "FAILED"), (top, "FAILED")]
    assert writes == [(run.name, write) for run, status in ends for write in ("stopped", why, status)]
    assert closed == [Closed(run.run_id, run.name, "dag", "r1", status) for run, status in ends]
    assert all((client.get_run(run.run_id).end_time or 0) > 50 for run, _ in ends)


def test_a_dag_run_that_is_gone_is_called_so_and_airflow_is_asked_once_for_each() -> None:
    client = MemoryClient()
    runs = [step_of(client, name, start) for start, name in enumerate("ab", 1)]
    step_of(client, "c", 3, **{"airflow.run_id": "r2"})
    without = client.create_run("0", "d", 4, {"airflow.dag_id": "dag", "airflow.task_url": f"{HERE}/dags/dag"})
    asked: list[tuple[str, str]] = []

    def state(dag_id: str, run_id: str) -> str | None:
        asked.append((dag_id, run_id))
        return "running" if run_id == "r2" else None

    closed = close_leftovers(client, state, HERE, lambda _: None)
    assert asked == [("dag", ""), ("dag", "r2"), ("dag", "r1")]
    assert [(one.run_id, one.dag_run_id) for one in closed] == [
        (without.run_id, ""), (runs[1].run_id, "r1"), (runs[0].run_id, "r1"),
    ]  # fmt: skip
    reasons = {client.get_run(one.run_id).tags["mlflow_projects.reason"] for one in closed}
    assert reasons == {"closed by the janitor: the DAG run is gone"}


def test_a_run_that_a_killed_function_had_opened_again_gets_its_end_back() -> None:
    client = MemoryClient()
    run = opened_again(client, step_of(client, "a", 1), "FINISHED 1234")
    [closed] = close_leftovers(client, lambda *_: "failed", HERE, lambda _: None)
    assert (closed.status, client.get_run(run.run_id).end_time) == ("FINISHED", 1234)


def test_one_refusal_keeps_no_other_open_and_is_told() -> None:
    client = MemoryClient()
    runs = [step_of(client, name, start) for start, name in enumerate("abc", 1)]

    def refuse(method: str, arguments: tuple[Any, ...]) -> None:
        if method == "update_run" and arguments[0] == runs[1].run_id:
            raise TrackingRefusedError("you may not")

    client.before = refuse
    with pytest.raises(TrackingRefusedError, match="you may not"):
        close_leftovers(client, lambda *_: "failed", HERE, lambda _: None)
    assert [client.get_run(run.run_id).status for run in runs] == ["KILLED", "RUNNING", "KILLED"]


def test_a_server_that_is_away_is_asked_no_more() -> None:
    client = MemoryClient()
    runs = [step_of(client, name, start) for start, name in enumerate("abc", 1)]

    def go_away(method: str, arguments: tuple[Any, ...]) -> None:
        if method == "update_run":
            raise TrackingUnavailableError("away")

    client.before = go_away
    with pytest.raises(TrackingUnavailableError):
        close_leftovers(client, lambda *_: "failed", HERE, lambda _: None)
    assert (client.calls.count("update_run"), len(runs)) == (1, 3)


def test_ours_are_found_among_thousands_of_others() -> None:
    client = MemoryClient()
    for number in range(1001):  # older, left open by another Airflow
        step_of(client, f"{number}", 1, **{"airflow.task_url": "http://another-airflow/dags/dag"})
    ours = step_of(client, "ours", 2)
    assert [one.run_id for one in close_leftovers(client, lambda *_: None, HERE, lambda _: None)] == [ours.run_id]


def test_what_this_airflow_did_not_open_is_left_alone() -> None:
    client = MemoryClient()
    for url in ("http://this-airflow:80801/dags/dag", "https://this-airflow:8080/dags/dag", ""):
        step_of(client, url, 1, **{"airflow.task_url": url})
    client.create_run("0", "by hand", 1, {})
    client.create_run("0", "without a page", 1, {"airflow.dag_id": "dag"})
    client.update_run(step_of(client, "closed", 1).run_id, "FAILED", 5)
    writes = written(client)
    assert close_leftovers(client, lambda *_: None, HERE, lambda _: None) == []
    assert writes == []


def test_runs_are_found_in_every_experiment() -> None:
    client = MemoryClient()
    one = step_of(client, "one", 1)
    another = client.create_run(client.create_experiment("another"), "two", 1, dict(one.tags))
    assert {run.run_id for run in close_leftovers(client, lambda *_: "success", HERE, lambda _: None)} == {
        one.run_id, another.run_id,
    }  # fmt: skip
