"""``mlflow_run`` opens before its tasks, closes after them, and each task finds the right parent run."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator, task_group

from mlflow_projects import MLflowProjectOperator, mlflow_run
from mlflow_projects.exceptions import ProjectError
from mlflow_projects.operators.enclosing import enclosing_parent, parent_on
from tests.support.memory_tracking import MemoryClient
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
    assert (plain.experiment_name, plain.run_name, plain.tags) == (None, None, None)
    assert (plain.mlflow_conn_id, plain.queue) == ("mlflow_default", "gpu")


def test_default_args_count_for_the_start_and_the_end_as_for_the_steps() -> None:
    def failed(context: Any) -> None:
        """Tell somebody."""

    shared = {
        "mlflow_conn_id": "team", "experiment_name": "nightly", "retries": 2, "queue": "gpu", "owner": "ada",
        "on_failure_callback": failed,
    }  # fmt: skip
    of_steps = {"execution_timeout": timedelta(seconds=5), "pool": "gpus", "pool_slots": 2}
    with DAG("dag", schedule=None, default_args={**shared, **of_steps, "do_xcom_push": False}) as dag:
        with mlflow_run("pipeline"):
            project = MLflowProjectOperator(task_id="step", uri="/p")
            with mlflow_run("inner", mlflow_conn_id="other"):
                below: Any = MLflowProjectOperator(task_id="step", uri="/p")
    tasks: list[Any] = [dag.get_task(f"pipeline.{name}") for name in ("start_run", "end_run", "step")]
    for task in tasks:
        assert (task.mlflow_conn_id, task.retries, task.queue, task.owner) == ("team", 2, "gpu", "ada")
        assert list(task.on_failure_callback) == [failed]
    assert tasks[0].experiment_name == project.experiment_name == "nightly"
    for task in tasks[:2]:
        assert (task.execution_timeout, task.pool, task.pool_slots) == (None, "default_pool", 1)
        assert task.do_xcom_push
    assert [task.trigger_rule.value for task in tasks[:2]] == ["all_success", "all_done_setup_success"]
    assert (project.execution_timeout, project.pool) == (of_steps["execution_timeout"], "gpus")
    inner: Any = dag.get_task("pipeline.inner.start_run")
    assert (inner.mlflow_conn_id, below.mlflow_conn_id) == ("other", "other")


def test_a_trigger_rule_of_default_args_is_for_the_steps() -> None:
    with DAG("dag", schedule=None, default_args={"trigger_rule": "all_done"}) as dag:
        with mlflow_run("pipeline"):
            BaseOperator(task_id="first", trigger_rule="all_success") >> step("second")
        with pytest.raises(ProjectError, match=r"Task 'bad.first' has the trigger_rule 'all_done', but Airflow lets"):
            with mlflow_run("bad"):
                step("first")
        dag.get_task("bad.first").trigger_rule = "all_success"
    rules = {task.task_id: task.trigger_rule for task in dag.tasks}
    assert (rules["pipeline.start_run"], rules["pipeline.second"]) == ("all_success", "all_done")
    assert rules["pipeline.end_run"] == "all_done_setup_success"
    dag.validate()


def test_what_only_start_and_end_get_is_said_apart() -> None:
    both = {"execution_timeout": timedelta(minutes=1), "pool": "small"}
    with DAG("dag", schedule=None, default_args={"pool": "gpus"}) as dag, mlflow_run("p", start_end_args=both):
        step("a")
    for name in ("p.start_run", "p.end_run"):
        task = dag.get_task(name)
        assert (task.execution_timeout, task.pool) == (timedelta(minutes=1), "small")


def test_a_tree_is_not_split_over_two_servers() -> None:
    with DAG("dag", schedule=None), mlflow_run("pipeline", mlflow_conn_id="here"):
        inside = MLflowProjectOperator(task_id="step", uri="/p", mlflow_conn_id="there")
    client = MemoryClient()
    parent = client.create_run(client.create_experiment("e"), "pipeline", 0, {})
    for run_id, is_there in ((parent.run_id, True), ("0" * 32, False)):
        left = {("pipeline.start_run", -1): {"run_id": run_id, "mlflow_conn_id": "here"}}
        context: Any = {"ti": TaskInstance("pipeline.step", map_index=-1, returned=left)}
        if is_there:  # two connections to one server
            assert parent_on(client, inside, context) == left["pipeline.start_run", -1]
        else:
            with pytest.raises(ProjectError, match="give both the same mlflow_conn_id"):
                parent_on(client, inside, context)


def test_a_parent_that_is_given_is_on_the_tasks_own_server() -> None:
    client = MemoryClient()
    parent = client.create_run(client.create_experiment("e"), "pipeline", 0, {})
    context: Any = {"ti": TaskInstance("step", map_index=-1, returned={})}

    def below(given: Any) -> Any:
        return parent_on(client, MLflowProjectOperator(task_id="step", uri="/p", parent_run_id=given), context)

    assert below(parent.run_id)["experiment_id"] == parent.experiment_id, "a step's run is beside its parent's"
    here = {"run_id": parent.run_id, "experiment_id": "7", "mlflow_conn_id": "the same server"}
    assert below(here) == here
    with pytest.raises(ProjectError, match=r"parent_run_id names the run '00', which .* does not have; correct it"):
        below("00")
    with pytest.raises(ProjectError, match="the parent run that parent_run_id names is on the server of 'there'"):
        below({"run_id": "0" * 32, "experiment_id": "1", "mlflow_conn_id": "there"})


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
