"""``mlflow_run`` opens before its tasks, closes after them, and each task finds the right parent run."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator, task_group

from mlflow_projects import mlflow_run
from mlflow_projects.operators.enclosing import enclosing_parent
from tests.support.tracked import TaskInstance

OUTER, INNER = {"run_id": "outer"}, {"run_id": "inner"}


def step(task_id: str) -> BaseOperator:
    return BaseOperator(task_id=task_id)


def test_the_start_comes_before_the_first_tasks_and_the_end_after_the_last() -> None:
    with DAG("dag", schedule=None) as dag, mlflow_run("pipeline"):
        step("a") >> step("b")
        step("c")
    downstream = {task.task_id.removeprefix("pipeline."): task.downstream_task_ids for task in dag.tasks}
    assert downstream == {
        "start_run": {"pipeline.a", "pipeline.c", "pipeline.end_run"},
        "a": {"pipeline.b"},
        "b": {"pipeline.end_run"},
        "c": {"pipeline.end_run"},
        "end_run": set(),
    }
    start, end = dag.get_task("pipeline.start_run"), dag.get_task("pipeline.end_run")
    assert (start.is_setup, start.is_teardown) == (True, False)
    assert (end.is_setup, end.is_teardown, end.on_failure_fail_dagrun) == (False, True, False)


def test_an_end_closes_what_its_start_opened_even_if_nothing_is_inside() -> None:
    with DAG("dag", schedule=None) as dag, mlflow_run("pipeline"):
        pass
    end: Any = dag.get_task("pipeline.end_run")
    assert end.run_id.operator is dag.get_task("pipeline.start_run")
    assert end.upstream_task_ids == {"pipeline.start_run"}


def test_arguments_reach_the_start_and_what_both_share_the_end_too() -> None:
    with DAG("dag", schedule=None, default_args={"queue": "gpu", "retries": 3}) as dag:
        with mlflow_run(
            "pipeline", experiment_name="nightly", run_name="tonight", tags={"a": "b"}, mlflow_conn_id="mine",
            start_end_args={"queue": "small"}, default_args={"owner": "ada"}, tooltip="a tip",
        ) as group:  # fmt: skip
            inside = step("a")
        with mlflow_run("plain"):
            step("b")
    start: Any = dag.get_task("pipeline.start_run")
    end: Any = dag.get_task("pipeline.end_run")
    assert (start.experiment_name, start.run_name, start.tags) == ("nightly", "tonight", {"a": "b"})
    for task in (start, end):
        assert (task.mlflow_conn_id, task.queue, task.retries, task.owner) == ("mine", "small", 3, "ada")
    assert (inside.queue, inside.owner, group.tooltip) == ("gpu", "ada", "a tip")
    plain: Any = dag.get_task("plain.start_run")
    assert (plain.experiment_name, plain.run_name, plain.tags) == (None, "plain", None)
    assert (plain.mlflow_conn_id, plain.queue) == ("mlflow_default", "gpu")


def test_a_mistake_inside_is_what_the_reader_sees() -> None:
    with DAG("dag", schedule=None) as dag:
        with pytest.raises(ZeroDivisionError), mlflow_run("pipeline"):
            _ = 1 / 0
        after = step("after")
    assert sorted(dag.task_ids) == ["after", "pipeline.start_run"]
    assert after.task_group.group_id is None, "the group is left"


def nested() -> DAG:
    """Return a DAG with a group in a group, and a plain group in both."""
    from airflow.sdk import TaskGroup

    with DAG("dag", schedule=None) as dag:
        step("alone")
        with mlflow_run("outer"):
            step("above")
            with TaskGroup("plain"), mlflow_run("inner"), TaskGroup("deep"):
                step("below")
    return dag


def found(dag: DAG, task_id: str, levels_up: int = 0, index: int = -1, **returned: Any) -> Any:
    left = {(name, number): value for name, values in returned.items() for number, value in values.items()}
    context: Any = {"ti": TaskInstance(task_id, map_index=index, returned=left)}
    return enclosing_parent(dag.get_task(task_id), context, **({"levels_up": levels_up} if levels_up else {}))


@pytest.mark.parametrize(
    ("task_id", "levels_up", "parent"),
    [
        ("alone", 0, None),
        ("outer.above", 0, OUTER),
        ("outer.above", 1, None),
        ("outer.plain.inner.deep.below", 0, INNER),
        ("outer.plain.inner.deep.below", 1, OUTER),
        ("outer.plain.inner.deep.below", 2, None),
        ("outer.plain.inner.start_run", 1, OUTER),
    ],
)
def test_the_next_group_around_a_task_is_its_parent(task_id: str, levels_up: int, parent: Any) -> None:
    left = {"outer.start_run": {-1: OUTER}, "outer.plain.inner.start_run": {-1: INNER}}
    assert found(nested(), task_id, levels_up, **left) == parent


@pytest.mark.parametrize("left", [{}, {"outer.plain.inner.start_run": {-1: "no mapping"}}])
def test_a_start_that_left_nothing_means_no_parent_and_not_the_next_one(left: Any) -> None:
    assert found(nested(), "outer.plain.inner.deep.below", **left, **{"outer.start_run": {-1: OUTER}}) is None


def test_in_a_mapped_group_the_start_of_the_same_index_counts() -> None:
    with DAG("dag", schedule=None) as dag, mlflow_run("outer"):

        @task_group
        def each(number: int) -> None:
            with mlflow_run("inner"):
                step("a")

        each.expand(number=[1, 2])
    left = {"outer.start_run": {-1: OUTER}, "outer.each.inner.start_run": {0: {"run_id": "0"}, 1: {"run_id": "1"}}}
    for index in (0, 1):
        assert found(dag, "outer.each.inner.a", index=index, **left) == {"run_id": str(index)}
        assert found(dag, "outer.each.inner.start_run", 1, index=index, **left) == OUTER
