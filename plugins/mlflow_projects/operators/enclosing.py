"""Which parent run a task is below: that of the nearest ``mlflow_run`` around it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import TaskGroup

from mlflow_projects.config import airflow_url
from mlflow_projects.exceptions import ProjectError, TrackingError
from mlflow_projects.operators.templates import text_or_none
from mlflow_projects.tracking.lookup import parents_of_task
from mlflow_projects.tracking.tags import DAG_ID, DAG_RUN_ID, MAP_INDEX, TASK_ID

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

    from mlflow_projects.operators.function import MLflowTaskOperator
    from mlflow_projects.operators.project import MLflowProjectOperator
    from mlflow_projects.operators.runs import MLflowStartRunOperator
    from mlflow_projects.tracking.client import Run, TrackingClient


class RunGroup(TaskGroup):
    """A task group with a parent run; ``start_run`` is the task that opens it."""

    start_run: Any = None


def enclosing_parent(
    task: BaseOperator, context: Context, client: TrackingClient | None = None, levels_up: int = 0
) -> Mapping[str, Any] | None:
    """Return the XCom of the start task of the enclosing ``mlflow_run``, or None outside of one.

    :param client: finds the parent run by its tags where the XCom is lost (deleted, or never pushed)
    :param levels_up: how many of the enclosing groups to skip (a start task's own)
    """
    for group in _enclosing_groups(task):
        if levels_up:
            levels_up -= 1
            continue
        start = group.start_run
        ti = context["ti"]
        # Inside a mapped task group, this step's own start task is the one of the same index.
        mapped = start.get_closest_mapped_task_group() is not None
        index: dict[str, Any] = {"map_indexes": ti.map_index} if mapped else {}
        pulled = ti.xcom_pull(task_ids=start.task_id, **index)
        if isinstance(pulled, Mapping):
            return pulled
        wanted = {DAG_ID: ti.dag_id, DAG_RUN_ID: ti.run_id, TASK_ID: start.task_id}
        wanted[MAP_INDEX] = str(ti.map_index if mapped else -1)
        if client and (found := parents_of_task(client, wanted, airflow_url=airflow_url())):
            task.log.warning(
                "Task %s left no XCom; its run %s was found by its tags.", start.task_id, found[0].run_id
            )
            return {"run_id": found[0].run_id, "experiment_id": found[0].experiment_id}
        task.log.warning("Task %s left no run; this task has no parent run.", start.task_id)
        return None
    return None


def parent_on(
    client: TrackingClient,
    task: MLflowProjectOperator | MLflowTaskOperator | MLflowStartRunOperator,
    context: Context,
    levels_up: int = 0,
) -> Mapping[str, Any] | None:
    """Return what a task is below, given to it or the same, where that is on the task's own tracking server.

    :raises ProjectError: it is on another one, so that the tree would be split
    """
    given = task.parent_run_id
    is_xcom = isinstance(given, Mapping)
    if not is_xcom and (run_id := text_or_none(given)):
        run = _run_or_none(client, run_id)
        if run is None:
            raise ProjectError(
                f"Task {task.task_id!r}: parent_run_id names the run {run_id!r}, which {client.settings.address} "
                "does not have; correct it, or mlflow_conn_id."
            )
        return {"run_id": run_id, "experiment_id": run.experiment_id}
    parent = given if is_xcom else enclosing_parent(task, context, client, levels_up)
    whose = "that parent_run_id names" if is_xcom else "of its mlflow_run"
    return on_server(client, parent, task.mlflow_conn_id, task.task_id, whose)


def on_server(
    client: TrackingClient,
    parent: Mapping[str, Any] | None,
    mlflow_conn_id: str,
    task_id: str,
    whose: str = "of its mlflow_run",
) -> Mapping[str, Any] | None:
    """Return a parent run, or None, if it is on the server of a connection.

    :raises ProjectError: it is on another one
    """
    if not parent or parent.get("mlflow_conn_id", mlflow_conn_id) == mlflow_conn_id:
        return parent
    if _run_or_none(client, str(parent.get("run_id"))) is None:  # two connections may lead to one server
        raise ProjectError(
            f"Task {task_id!r} uses the connection {mlflow_conn_id!r}, but the parent run {whose} is on "
            f"the server of {parent['mlflow_conn_id']!r}; give both the same mlflow_conn_id, for example in "
            "default_args."
        )
    return parent


def _run_or_none(client: TrackingClient, run_id: str) -> Run | None:
    try:
        return client.get_run(run_id)
    except TrackingError as error:
        if error.code != "RESOURCE_DOES_NOT_EXIST":
            raise
    return None


def _enclosing_groups(task: BaseOperator) -> Iterator[RunGroup]:
    group = task.task_group
    while group is not None:
        if isinstance(group, RunGroup):
            yield group
        group = group.parent_group
