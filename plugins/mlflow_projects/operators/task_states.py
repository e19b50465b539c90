"""What state Airflow has for a task now, asked from the process of a task."""

from __future__ import annotations

import contextlib
from typing import Any

from airflow.sdk.exceptions import AirflowRuntimeError

CLEARED = ""
# The scheduler takes these steps within a second after a clear.
_BEFORE_NEXT_TRY = (CLEARED, "scheduled", "queued")


def task_state(ti: Any, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str | None:
    """Return the state of any task, ``CLEARED`` for none; None if Airflow does not know the task.

    :param ti: this process's own task instance, through which Airflow is asked
    """
    index = map_index if map_index >= 0 else None
    states = ti.get_task_states(dag_id, map_index=index, task_ids=[task_id], run_ids=[run_id])
    of_run = list(states.get(run_id, {}).values())
    return of_run[0] or CLEARED if of_run else None


def own_state(ti: Any) -> str | None:
    """Return the state of this process's own task; None also if Airflow cannot be asked."""
    with contextlib.suppress(AirflowRuntimeError):
        index = -1 if ti.map_index is None else ti.map_index
        return task_state(ti, ti.dag_id, ti.run_id, ti.task_id, index)
    return None


def refused_success(before: str | None, after: str | None) -> bool:
    """Tell whether Airflow did not take the success that a task reported.

    A task that ran before the report and is cleared after it was a success: a running one would be restarting.

    :param before: the task's state before the report
    :param after: its state after the report
    """
    if after in (None, "success", "running"):
        return False
    return before != "running" or after not in _BEFORE_NEXT_TRY
