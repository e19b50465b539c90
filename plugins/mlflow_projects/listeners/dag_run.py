"""The second layer of closing: when a DAG run ends, whatever is open of its MLflow runs is closed.

The first layer, the teardown ``end_run``, does not run when ``dagrun_timeout`` strikes, when a person fails a DAG run
before the teardown was due, or when its start task failed; a step outside of a group has none. Airflow calls these
hooks in the scheduler, or in the API server when a person marks the DAG run, perhaps twice. So they ask no tracking
server: they add a row for the triggerer to the DAG run's own transaction, which closes the runs however long that
takes (:mod:`mlflow_projects.triggers.closing`). Where no triggerer lives, a thread of this process tries it at once.
"""

from __future__ import annotations

import logging
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from functools import cache, partial
from typing import TYPE_CHECKING

from airflow.listeners import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow.models.dagrun import DagRun
    from sqlalchemy.orm import Session

    from mlflow_projects.listeners.dag_parts import DagParts
    from mlflow_projects.tracking.client import RunStatus
    from mlflow_projects.tracking.ended_dag_run import EndedDagRun

log = logging.getLogger(__name__)
# Task id, map index, state, number of the try.
_Try = tuple[str, int, "str | None", int]

_LOOK_EVERY_SECONDS = 0.2
_LOOKS_FOR_COMMIT = 50
_UNTAKEN = timedelta(minutes=3)
_MARKED = "manually set"  # in Airflow's message where a person set the state


@hookimpl
def on_dag_run_success(dag_run: DagRun, msg: str) -> None:
    """Close what is open of a successful DAG run."""
    _ended(dag_run, "success", msg)


@hookimpl
def on_dag_run_failed(dag_run: DagRun, msg: str) -> None:
    """Close what is open of a failed DAG run."""
    _ended(dag_run, "failed", msg)


def _ended(dag_run: DagRun, state: str, message: str) -> None:
    from mlflow_projects.listeners.dag_parts import DagParts

    parts = DagParts(dag_run.dag)
    if not parts.openers:
        return  # no task of this DAG opens a run
    from airflow.utils.session import create_session
    from sqlalchemy.orm import object_session

    if session := object_session(dag_run):
        _hand_over(dag_run, state, message, parts, session)
    else:
        with create_session() as own:
            _hand_over(dag_run, state, message, parts, own)


def _hand_over(dag_run: DagRun, state: str, message: str, parts: DagParts, session: Session) -> None:
    """Leave the closing to a triggerer, or do it here."""
    from mlflow_projects.hooks.closing_queue import add_to_queue

    tries = _tries(dag_run, parts, session)
    failed = [(task_id, number, index) for task_id, index, of_task, number in tries if of_task == "failed"]
    failed += _failed_before(dag_run, session)
    is_plain = message == "success" and not failed and not dag_run.clear_number
    if is_plain and parts.is_told_by_end_tasks([one[:3] for one in tries]):
        return
    ended = _told(dag_run, state, message, parts, tries, failed, session)
    conn_ids = parts.conn_ids(lambda task_id, many: _rendered_conn_ids(dag_run, task_id, many, session))
    # None: nobody scheduled it, this is `airflow dags test`, whose process may be the only one of this Airflow.
    known, lives = (False, False) if dag_run.scheduled_by_job_id is None else _triggerers(session)
    if known and not add_to_queue(ended, conn_ids, session):
        lives = False
    if not lives:
        is_own_process = dag_run.scheduled_by_job_id is None
        _later(ended, conn_ids, may_load_mlflow=is_own_process or "mlflow" in sys.modules)


def _told(
    dag_run: DagRun,
    state: str,
    message: str,
    parts: DagParts,
    tries: Sequence[_Try],
    failed: Sequence[tuple[str, int, int]],
    session: Session,
) -> EndedDagRun:
    from mlflow_projects.config import airflow_url
    from mlflow_projects.hooks.opened_runs import opened_runs
    from mlflow_projects.tracking.ended_dag_run import EndedDagRun

    is_marked = _MARKED in message or not message
    status: RunStatus = "FINISHED" if state == "success" else "FAILED"
    groups: Mapping[str, Mapping[str, Sequence[int]]] | None = None
    reason = f"a person marked the DAG run {state}" if is_marked else f"the DAG run ended ({message})"
    if message == "timed_out":
        status, reason = "KILLED", "the DAG run ran out of time (dagrun_timeout)"
    elif not is_marked and message != "all_tasks_deadlocked":
        groups = parts.why_unsuccessful([one[:3] for one in tries])
    by_try: dict[tuple[str, int], list[int]] = {}
    for task_id, number, index in failed:
        by_try.setdefault((task_id, number), []).append(index)
    rows = [[task_id, number, indexes] for (task_id, number), indexes in by_try.items()]
    return EndedDagRun(
        dag_id=dag_run.dag_id,
        run_id=dag_run.run_id,
        state=state,
        status=status,
        reason=reason,
        groups=groups,
        failed=rows,
        airflow_url=airflow_url(),
        opened=opened_runs(dag_run, [start.task_id for start in parts.starts], session),
        told=parts.told_by_end_tasks([one[:3] for one in tries]),
        clears=dag_run.clear_number or 0,
    )


def _tries(dag_run: DagRun, parts: DagParts, session: Session) -> list[_Try]:
    """Return (task id, map index, state, try) of the tasks that were not successful, and of every end task."""
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import or_, select

    from mlflow_projects.tracking.ended_dag_run import UNSUCCESSFUL

    asked = or_(TaskInstance.state.in_(UNSUCCESSFUL), TaskInstance.task_id.in_([end.task_id for end in parts.ends]))
    rows = session.execute(
        select(TaskInstance.task_id, TaskInstance.map_index, TaskInstance.state, TaskInstance.try_number).where(
            TaskInstance.dag_id == dag_run.dag_id, TaskInstance.run_id == dag_run.run_id, asked
        )
    )
    return [(task_id, index, state and str(state), number) for task_id, index, state, number in rows]


def _failed_before(dag_run: DagRun, session: Session) -> list[tuple[str, int, int]]:
    """Return (task id, try, map index) of the failed tries that others were to follow, by a retry or a Clear.

    Such a try may have been killed while it took back its success, and the next one may never have come to do it. Or
    its request for a run is still at work in the server, and the run comes after the end task has looked.
    """
    from airflow.models.taskinstancehistory import TaskInstanceHistory as History
    from sqlalchemy import select

    rows = session.execute(
        select(History.task_id, History.try_number, History.map_index).where(
            History.dag_id == dag_run.dag_id, History.run_id == dag_run.run_id, History.state == "failed"
        )
    )
    return [(task_id, number, index) for task_id, number, index in rows]


def _rendered_conn_ids(dag_run: DagRun, task_id: str, many: bool, session: Session) -> Iterator[str]:
    """Yield what a task's template of ``mlflow_conn_id`` became.

    :param many: whether it may have become something else for each map index
    """
    from airflow.models.renderedtifields import RenderedTaskInstanceFields as Rendered
    from sqlalchemy import select

    of_task = (Rendered.dag_id == dag_run.dag_id, Rendered.run_id == dag_run.run_id, Rendered.task_id == task_id)
    for (fields,) in session.execute(select(Rendered.rendered_fields).where(*of_task).limit(1000 if many else 1)):
        if conn_id := (fields or {}).get("mlflow_conn_id"):
            yield str(conn_id)


def _triggerers(session: Session) -> tuple[bool, bool]:
    """Return whether this Airflow has had a triggerer, and whether one lives that takes callbacks.

    One with ``--queues``, or of a team, does not: then triggers without a queue wait for ever.
    """
    from airflow.configuration import conf
    from airflow.jobs.job import Job
    from airflow.models.trigger import Trigger
    from airflow.sdk import timezone
    from sqlalchemy import select

    of_triggerers = select(Job.latest_heartbeat).where(Job.job_type == "TriggererJob")
    latest = session.scalar(of_triggerers.order_by(Job.latest_heartbeat.desc()).limit(1))
    if latest is None:
        return False, False
    patience = timedelta(seconds=conf.getint("triggerer", "triggerer_health_check_threshold"))
    untaken = select(Trigger.id).where(
        Trigger.triggerer_id.is_(None), Trigger.queue.is_(None), Trigger.created_date < timezone.utcnow() - _UNTAKEN
    )
    lives = latest > timezone.utcnow() - patience
    return True, lives and session.scalar(untaken.limit(1)) is None


def _later(ended: EndedDagRun, conn_ids: Sequence[str], *, may_load_mlflow: bool) -> None:
    from mlflow_projects.hooks.closing import settle_on_servers
    from mlflow_projects.hooks.masking import shown, teller

    def report(done: Future[int]) -> None:
        if error := done.exception():
            log.warning(
                "The runs of %s %s could not be closed, and no triggerer lives to try it again; the DAG "
                "mlflow_janitor, or the command mlflow-projects janitor, does it later: %s",
                ended.dag_id, ended.run_id, shown(str(error)),
            )  # fmt: skip

    work = partial(settle_on_servers, ended, conn_ids, lambda: _is_over(ended), teller(log))
    threads().submit(work, may_load_mlflow=may_load_mlflow).add_done_callback(report)


@cache
def threads() -> ThreadPoolExecutor:
    """Return the threads that close runs where no triggerer lives."""
    return ThreadPoolExecutor(max_workers=2, thread_name_prefix="mlflow-projects-listener")


def _is_over(ended: EndedDagRun) -> bool:
    """Read whether this is the DAG run's end, or it is gone; whoever called the listener is about to commit that."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    of_run = (DagRun.dag_id == ended.dag_id, DagRun.run_id == ended.run_id)
    for _ in range(_LOOKS_FOR_COMMIT):
        with create_session() as session:
            state = session.scalar(select(DagRun.state).where(*of_run))
        if state is None or str(state) == ended.state:
            return True
        time.sleep(_LOOK_EVERY_SECONDS)
    return False
