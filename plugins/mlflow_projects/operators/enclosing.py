"""Which parent run a task is below: that of the nearest ``mlflow_run`` around it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import TaskGroup

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context


class RunGroup(TaskGroup):
    """A task group with a parent run; ``start_run`` is the task that opens it."""

    start_run: Any = None


def enclosing_parent(task: BaseOperator, context: Context, levels_up: int = 0) -> Mapping[str, Any] | None:
    """Return the XCom of the start task of the enclosing ``mlflow_run``, or None outside of one.

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
        if not isinstance(pulled, Mapping):
            task.log.warning("Task %s left no run; this step has no parent run.", start.task_id)
            return None
        return pulled
    return None


def _enclosing_groups(task: BaseOperator) -> Iterator[RunGroup]:
    group = task.task_group
    while group is not None:
        if isinstance(group, RunGroup):
            yield group
        group = group.parent_group
