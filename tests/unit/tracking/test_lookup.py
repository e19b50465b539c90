"""The runs of a DAG run are found by the name of one tag, and those of an earlier version by two tags' values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlflow_projects.tracking.client import Run
from mlflow_projects.tracking.lookup import parents_of_task, runs_of_dag_run
from mlflow_projects.tracking.record import TaskIdentity
from mlflow_projects.tracking.tags import dag_run_tag
from tests.support.memory_tracking import MemoryClient

STEP = TaskIdentity("dag", "manual__1", "g.step", 1, "try 1")
START = replace(STEP, task_id="g.start_run", attempt_id="start")


@pytest.fixture
def client() -> MemoryClient:
    return MemoryClient()


def opened(client: MemoryClient, task: TaskIdentity, *, old: bool = False, **tags: str) -> Run:
    own = {**task.tags(), "mlflow_projects.role": "step", **tags}
    if old:
        del own[dag_run_tag(task.dag_id, task.run_id)]
    return client.create_run("0", task.task_id, 1, own)


def found(client: MemoryClient, **more: int) -> list[str]:
    return sorted(run.name for run in runs_of_dag_run(client, "dag", "manual__1", **more))


def queries(client: MemoryClient) -> int:
    return client.calls.count("search_runs")


def test_dags_and_their_runs_have_tags_of_their_own() -> None:
    pairs = [("a", "b"), ("b", "a"), ("a", "B"), ("ab", ""), ("", "ab"), ('a","b', ""), ("ü" * 250, "日" * 250)]
    names = {dag_run_tag(*pair) for pair in pairs}
    assert len(names) == len(pairs)
    assert all(name.startswith("mlflow_projects.dag_run.") and name.isascii() and len(name) == 56 for name in names)


def test_one_look_finds_the_runs_even_if_the_project_overwrote_what_they_are_of(client: MemoryClient) -> None:
    parent = opened(client, START, **{"mlflow_projects.role": "parent"})
    opened(client, STEP, **{"mlflow.parentRunId": parent.run_id, "airflow.run_id": "mine", "airflow.dag_id": "mine"})
    opened(client, replace(STEP, run_id="manual__2"))
    assert (found(client), queries(client)) == (["g.start_run", "g.step"], 1)


@pytest.mark.parametrize("olds", [(True, True), (True, False)], ids=["all", "before the workers were upgraded"])
def test_runs_of_an_earlier_version_are_found_too(client: MemoryClient, olds: tuple[bool, bool]) -> None:
    parent = opened(client, START, old=olds[0], **{"mlflow_projects.role": "parent"})
    opened(client, STEP, old=olds[1], **{"mlflow.parentRunId": parent.run_id})
    opened(client, replace(STEP, run_id="manual__2"), old=True)
    assert found(client) == ["g.start_run", "g.step"]


def test_of_a_mapped_group_only_one_index_is_read(client: MemoryClient) -> None:
    for index in range(3):
        opened(client, replace(STEP, map_index=index, task_id=f"step {index}"), old=index == 2)
    assert [found(client, map_index=index) for index in (0, 2)] == [["step 0"], ["step 2"]]


def test_the_first_try_of_a_start_task_asks_once(client: MemoryClient) -> None:
    assert (parents_of_task(client, START.tags()), queries(client)) == ([], 1)
    opened(client, START, old=True, **{"mlflow_projects.role": "parent"})
    again = parents_of_task(client, replace(START, try_number=2, attempt_id="again").tags())
    assert [run.name for run in again] == ["g.start_run"], "a cleared DAG run of an earlier version has one parent"
