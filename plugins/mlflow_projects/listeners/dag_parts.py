"""The tasks of a DAG that open MLflow runs, and the groups that they make, as the scheduler knows the DAG.

There it is what was serialized: classes are gone, the names of the template fields are left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from mlflow_projects.tracking.ended_dag_run import TaskState, why_unsuccessful, work_of

_CONN_ID = "mlflow_conn_id"
_DEFAULT_CONN_ID = "mlflow_default"


class DagParts:
    """Start tasks, end tasks and steps.

    :param dag: a serialized DAG; None has no tasks
    """

    def __init__(self, dag: Any) -> None:
        self._tasks = list(dag.tasks) if dag else []
        self.openers = [task for task in self._tasks if _CONN_ID in task.template_fields]
        self.ends = [task for task in self.openers if "run_id" in task.template_fields]
        self._steps = [task for task in self.openers if {"uri", "op_kwargs"} & set(task.template_fields)]
        self.starts = [task for task in self.openers if task not in self.ends and task not in self._steps]

    def conn_ids(self, rendered: Callable[[str, bool], Iterable[str]]) -> list[str]:
        """Return the connections that the tasks use, the default one first if it is among them.

        :param rendered: returns what the field became for a task of which only the run knows it, and may have become
            for each of its map indexes where the second argument is True
        """
        found: set[str] = set()
        for task in self.openers:
            given = task.partial_kwargs.get(_CONN_ID) if task.is_mapped else getattr(task, _CONN_ID, None)
            if isinstance(given, str) and "{" not in given:
                found.add(given)
            elif given is None and not task.is_mapped:
                found.add(_DEFAULT_CONN_ID)
            else:
                # A decorated function that is mapped has its arguments elsewhere.
                many = given is not None or _CONN_ID in str(getattr(task.expand_input, "value", ""))
                found.update([*rendered(task.task_id, many)] or [_DEFAULT_CONN_ID])
        return sorted(found, key=lambda conn_id: (conn_id != _DEFAULT_CONN_ID, conn_id))

    def is_told_by_end_tasks(self, states: Iterable[TaskState]) -> bool:
        """Tell whether every run of a successful DAG run was closed by its end task, which saw what was below it."""
        ends = {end.task_id for end in self.ends}
        ended = [state == "success" for task_id, _, state in states if task_id in ends]
        groups = {id(start.task_group) for start in self.starts}
        # Those of an mlflow_run; another end task closes only what is below its own parent.
        closed = {id(end.task_group) for end in self.ends if end.is_teardown and not end.task_group.is_root}
        covered = all(any(id(group) in groups for group in _around(step)) for step in self._steps)
        return all(ended) and covered and groups <= closed

    def told_by_end_tasks(self, states: Iterable[TaskState]) -> dict[str, list[int]]:
        """Return by the start task of each group with an end task the map indexes for which that ended well."""
        good = [(task_id, index) for task_id, index, state in states if state == "success"]
        found = {}
        for start in self.starts:
            ends = {end.task_id for end in self.ends if end.task_group is start.task_group}
            is_mapped = start.get_closest_mapped_task_group() is not None
            if ends:
                found[start.task_id] = sorted({index if is_mapped else -1 for name, index in good if name in ends})
        return found

    def why_unsuccessful(self, states: Sequence[TaskState]) -> dict[str, dict[str, list[int]]]:
        """Return by each group's start task the map indexes for which it was not successful, by the reason why."""
        found: dict[str, dict[str, list[int]]] = {}
        for start in self.starts:
            reasons = found.setdefault(start.task_id, {})
            work, last = work_of(task for task in self._tasks if start.task_group in _around(task))
            own = [one for one in states if one[0] in {*work, start.task_id}]
            by_index: dict[int, list[TaskState]] = {}
            is_mapped = start.get_closest_mapped_task_group() is not None
            for task_id, index, state in own:  # the index of a mapped group is that of its parent run
                of_index = by_index.setdefault(index if is_mapped else -1, [])
                of_index.append((task_id, -1 if is_mapped else index, state))
            for index, of_index in by_index.items():
                if reason := why_unsuccessful(of_index, last):
                    reasons.setdefault(reason, []).append(index)
        return found


def _around(task: Any) -> Iterator[Any]:
    group = task.task_group
    while group is not None:
        yield group
        group = group.parent_group
