"""The run tree of a DAG run: all of it, in order, and nothing of others; what needs a store is in tests/contract."""

from __future__ import annotations

import sys

import pytest

from mlflow_projects.tracking.client import Run
from mlflow_projects.tracking.run_files import run_files
from mlflow_projects.tracking.tree import RunNode, last_dag_run_id, run_tree
from tests.support.memory_tracking import MemoryClient

PARENT = {"mlflow_projects.role": "parent"}


@pytest.fixture
def client() -> MemoryClient:
    return MemoryClient()


def ours(client: MemoryClient, name: str, start: int, above: Run | None = None, **tags: str) -> Run:
    own = {"airflow.dag_id": "dag", "airflow.run_id": "r1"}
    parent = {"mlflow.parentRunId": above.run_id} if above else {}
    return client.create_run("0", name, start, {**own, **parent, **tags})


def nested(client: MemoryClient, name: str, start: int, above: Run) -> Run:
    return client.create_run(above.experiment_id, name, start, {"mlflow.parentRunId": above.run_id})


def drawn(nodes: list[RunNode]) -> list[str]:
    return [f"{'  ' * depth}{node.run.name}" for top in nodes for depth, node in top.walk()]


def a_tree(client: MemoryClient) -> dict[str, Run]:
    """Make a DAG run with two groups; a project of it nested runs three deep."""
    runs = {"second": ours(client, "second", 50, **PARENT), "first": ours(client, "first", 10, **PARENT)}
    runs["b"] = ours(client, "b", 30, runs["first"])
    runs["a"] = ours(client, "a", 20, runs["first"])
    runs["a2"] = nested(client, "a2", 26, runs["a"])
    runs["a1"] = nested(client, "a1", 25, runs["a"])
    runs["a1x"] = nested(client, "a1x", 27, runs["a1"])
    runs["a1xy"] = nested(client, "a1xy", 28, runs["a1x"])
    runs["lonely"] = ours(client, "lonely", 5, **{"mlflow.parentRunId": "f" * 32})
    nested(client, "of a person", 60, runs["first"])  # below the parent run itself: no part of the DAG run
    ours(client, "of another", 90, runs["a"], **{"airflow.run_id": "r2"})
    ours(client, "of theirs", 91, runs["a"], **{"airflow.dag_id": "theirs"})
    return runs


def test_a_tree_has_its_runs_below_their_parents_and_the_oldest_first(client: MemoryClient) -> None:
    a_tree(client)
    assert drawn(run_tree(client, "dag", "r1")) == [
        "lonely", "first", "  a", "    a1", "      a1x", "        a1xy", "    a2", "  b", "second",
    ]  # fmt: skip
    assert run_tree(client, "dag", "r9") == []


@pytest.mark.parametrize("limit", [1, 5, 6, 7, 9])
def test_a_tree_has_an_end(client: MemoryClient, limit: int) -> None:
    a_tree(client)
    assert len(drawn(run_tree(client, "dag", "r1", limit=limit))) == limit


def test_a_tree_is_read_from_every_experiment(client: MemoryClient) -> None:
    here = ours(client, "here", 1, **PARENT)
    tags = {**here.tags, "mlflow.parentRunId": here.run_id, "mlflow_projects.role": "step"}
    there = client.create_run(client.create_experiment("there"), "there", 2, tags)
    nested(client, "below", 3, there)
    assert drawn(run_tree(client, "dag", "r1")) == ["here", "  there", "    below"]


def test_the_files_of_a_tree_are_those_of_the_run_that_made_them(client: MemoryClient) -> None:
    original = client.create_run("0", "original", 1, {"mlflow_projects.reuse.k": "complete"})
    ours(client, "step", 2)
    proof = {"mlflow_projects.reuse.k": "reused", "mlflow_projects.reused_from": original.run_id}
    ours(client, "reused", 3, **proof)
    client.log_text(original.run_id, "x", "made.txt")
    read = run_tree(client, "dag", "r1")
    assert [[file.path for file in node.artifacts] for node in read] == [[], ["made.txt"]]
    client.calls.clear()
    assert [node.artifacts for node in run_tree(client, "dag", "r1", with_files=False)] == [[], []]
    assert "list_artifacts" not in client.calls


def test_runs_that_are_each_others_parents_are_all_shown(client: MemoryClient) -> None:
    old, middle, new = (ours(client, name, start) for start, name in enumerate(("old", "middle", "new")))
    ours(client, "below", 9, new)
    alone = ours(client, "its own parent", 5)
    for run, parent in ((old, new), (middle, old), (new, middle), (alone, alone)):
        client.log_batch(run.run_id, tags={"mlflow.parentRunId": parent.run_id})
    assert drawn(run_tree(client, "dag", "r1")) == ["old", "  middle", "    new", "      below", "its own parent"]


def test_a_tree_may_be_as_deep_as_a_project_likes(client: MemoryClient) -> None:
    run = ours(client, "0", 0)
    depth = sys.getrecursionlimit() + 50
    for number in range(1, depth):
        run = nested(client, str(number), number, run)
    deep = run_tree(client, "dag", "r1", limit=depth, with_files=False)
    assert [depth for depth, _ in deep[0].walk()] == list(range(depth))


def test_the_newest_run_of_the_dag_names_its_last_dag_run(client: MemoryClient) -> None:
    assert last_dag_run_id(client, "dag") is None
    client.create_run("0", "by hand", 99, {})
    ours(client, "old", 10)
    ours(client, "another", 30, **{"airflow.dag_id": "another", "airflow.run_id": "r3"})
    there = client.create_experiment("there")
    client.create_run(there, "new", 20, {"airflow.dag_id": "dag", "airflow.run_id": "r2"})
    assert last_dag_run_id(client, "dag") == "r2"


def test_files_come_as_in_a_listing_folder_by_folder(client: MemoryClient) -> None:
    run = ours(client, "step", 1)
    for path in ("z.txt", "b/1.txt", "b/deep/2.txt", "a/3.txt", "c/4.txt"):
        client.log_text(run.run_id, "x", path)

    def files(**limits: int) -> list[str]:
        return [file.path for file in run_files(client, run.run_id, **limits)]

    assert files() == ["z.txt", "a/3.txt", "b/1.txt", "b/deep/2.txt", "c/4.txt"]
    assert files(limit=3) == ["z.txt", "a/3.txt", "b/1.txt"]
    assert files(max_folders=3) == ["z.txt", "a/3.txt", "b/1.txt"]
    for number in range(120):
        client.log_text(run.run_id, "x", f"many/{number:03}/file.txt")
    client.calls.clear()
    assert len(files(limit=1000)) == 5 + 94, "a hundred folders: the top, a, b, b/deep, c, many and 94 below it"
    assert client.calls == ["list_artifacts"] * 100
    for number in range(120):
        client.log_text(run.run_id, "x", f"{number:03}.txt")
    assert len(files()) == 100
