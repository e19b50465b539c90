"""Which MLflow runs the tasks of a DAG run opened, as Airflow knows it: from the task state store.

A project has its run's id and may write any tag; this is out of its reach, and of whoever deletes XComs.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from mlflow_projects.tracking.tags import own_tags_of

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from sqlalchemy.orm import Session

    from mlflow_projects.tracking.client import Run

STATE_KEY = "mlflow_run"
_MOST_RUNS = 1000  # of a row for the triggerer


def state_of(run: Run) -> dict[str, Any]:
    """Return what a task keeps of its run: its id, and the tags that tell whose it is."""
    return {"run_id": run.run_id, "tags": own_tags_of(run.tags)}


def opened_runs(dag_run: DagRun, starts: Collection[str], session: Session) -> dict[str, Mapping[str, str]]:
    """Return the tags that the run of each task's last try was opened with, by run id.

    Runs of tasks that ended well are left out, which closed them, but for those of start tasks. None is returned
    where Airflow keeps the states elsewhere (its option ``state_store_backend``).

    :param starts: ids of the tasks that open parent runs
    """
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import and_, or_, select

    try:  # not a public interface
        from airflow.models.task_state_store import TaskStateStoreModel as Kept
    except ImportError:
        return {}
    same_task = and_(
        TaskInstance.dag_id == Kept.dag_id,
        TaskInstance.run_id == Kept.run_id,
        TaskInstance.task_id == Kept.task_id,
        TaskInstance.map_index == Kept.map_index,
    )
    not_done = or_(TaskInstance.state.is_(None), TaskInstance.state != "success", TaskInstance.task_id.in_(starts))
    rows = select(Kept.value).join(TaskInstance, same_task)
    rows = rows.where(Kept.dag_run_id == dag_run.id, Kept.key == STATE_KEY, not_done).limit(_MOST_RUNS)
    found: dict[str, Mapping[str, str]] = {}
    for value in session.scalars(rows):
        try:
            left = json.loads(value)
            found[left["run_id"]] = left["tags"]
        except (ValueError, TypeError, KeyError):  # an address in another store, or of an earlier release
            continue
    return found
