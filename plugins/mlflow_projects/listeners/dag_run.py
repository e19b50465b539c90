"""The second layer of closing: when a DAG run ends, its parent runs end with the same verdict.

The first layer, the teardown ``end_run``, does not run when ``dagrun_timeout`` strikes or when a person
fails a DAG run before the teardown was due; and it cannot know what tasks after its group will do. Airflow
calls these hooks in the scheduler, or in the API server when a person marks the DAG run, perhaps twice: so
they work in a thread of their own, with short time-outs, and say the same however often they are called.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow.listeners import hookimpl

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun

    from mlflow_projects.tracking.client import RunStatus

log = logging.getLogger(__name__)

START_OPERATOR = "MLflowStartRunOperator"
_TIMEOUT_SECONDS = 10.0
_MAX_RETRIES = 2


@hookimpl
def on_dag_run_success(dag_run: DagRun, msg: str) -> None:  # noqa: ARG001
    """Close the parent runs of a successful DAG run as FINISHED."""
    _later(dag_run.dag_id, dag_run.run_id, "FINISHED", "the DAG run succeeded")


@hookimpl
def on_dag_run_failed(dag_run: DagRun, msg: str) -> None:
    """Close the parent runs of a failed DAG run as FAILED, of one that ran out of time as KILLED."""
    status: RunStatus = "KILLED" if msg == "timed_out" else "FAILED"
    _later(dag_run.dag_id, dag_run.run_id, status, f"the DAG run failed ({msg or 'marked by a person'})")


def settle(dag_id: str, run_id: str, status: RunStatus, reason: str) -> int:
    """Give the parent runs of an ended DAG run its verdict, after closing what is open below them.

    :return: how many parent runs were changed
    """
    from mlflow_projects.backends.registry import stop_job_of
    from mlflow_projects.tracking.client import OPEN_STATUSES
    from mlflow_projects.tracking.closing import close_open_descendants, end_run
    from mlflow_projects.tracking.connect import connect

    changed = 0
    for parent in _parents(dag_id, run_id):
        settings = _settings(parent.get("mlflow_conn_id"))
        if not settings.is_http and not _mlflow_is_loaded():
            log.info("The parent run of %s %s is left to the janitor: %s", dag_id, run_id, settings.uri)
            continue
        client = connect(replace(settings, timeout=_TIMEOUT_SECONDS, max_retries=_MAX_RETRIES))
        try:
            run = client.get_run(parent["run_id"])
            close_open_descendants(client, run, reason, lambda child: stop_job_of(child, log.info))
            if run.status != status:
                end_time = None if run.status in OPEN_STATUSES else run.end_time
                end_run(client, run.run_id, status, "" if status == "FINISHED" else reason, end_time=end_time)
                changed += 1
        finally:
            client.close()
    return changed


def _later(*arguments: Any) -> None:
    def report(done: Future[int]) -> None:
        if error := done.exception():
            log.warning("The parent run of %s %s could not be settled: %s", arguments[0], arguments[1], error)

    _pool().submit(settle, *arguments).add_done_callback(report)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=2, thread_name_prefix="mlflow-projects-listener")


def _parents(dag_id: str, run_id: str) -> list[dict[str, Any]]:
    """Return what the start tasks of a DAG run left as XCom."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    of_this_run = (XComModel.dag_id == dag_id, XComModel.run_id == run_id, XComModel.key == "return_value")
    starts = select(TaskInstance.task_id).where(
        TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, TaskInstance.operator == START_OPERATOR
    )
    with create_session() as session:
        rows = session.execute(select(XComModel.value).where(*of_this_run, XComModel.task_id.in_(starts))).all()
        values = [XComModel.deserialize_value(row) for row in rows]
    return [value for value in values if isinstance(value, dict) and value.get("run_id")]


def _settings(conn_id: Any) -> Any:
    from mlflow_projects.hooks.mlflow_hook import MLflowHook

    return MLflowHook(str(conn_id or MLflowHook.default_conn_name)).settings


def _mlflow_is_loaded() -> bool:
    import sys

    return "mlflow" in sys.modules
