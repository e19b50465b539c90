"""What a notice can say of MLflow: the plugin's macros, ``{{ macros.mlflow_projects.mlflow_run_url(ti) }}``.

A notice must be sent although MLflow is away: then the answer is an empty text.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow_projects.tracking.client import Run, TrackingClient

log = logging.getLogger(__name__)
_SECONDS = 10.0


def mlflow_run_url(ti: Any) -> str:
    """Return the page of a task's MLflow run, that of its last try; "" if there is none, or MLflow has no pages.

    Of a function that logs to a run of others (``log_to``) it is the page of that run.
    """

    def page(client: TrackingClient) -> str:
        run = _run_of(client, ti) or _run_it_told(client, ti)
        return client.settings.run_url(run.experiment_id, run.run_id) if run else ""

    return _asked(_conn_id(ti), page)


def mlflow_reason(ti: Any) -> str:
    """Return why a task's MLflow run did not succeed, in one sentence; "" if it did."""
    from mlflow_projects.tracking.tags import REASON

    def reason(client: TrackingClient) -> str:
        run = _run_of(client, ti)
        return run.tags.get(REASON, "") if run else ""

    return _asked(_conn_id(ti), reason)


def mlflow_tree(dag_run: Any, mlflow_conn_id: str = "mlflow_default") -> str:
    """Return the MLflow runs of a DAG run as lines of text: name, status, and why where it did not succeed.

    :param dag_run: as in a task's context, or the mapping that Airflow gives to a deadline's callback
    """
    from mlflow_projects.tracking.tags import REASON
    from mlflow_projects.tracking.tree import run_tree

    if isinstance(dag_run, dict):
        dag_id, run_id = dag_run["dag_id"], dag_run["dag_run_id"]
    else:
        dag_id, run_id = dag_run.dag_id, dag_run.run_id

    def lines(client: TrackingClient) -> str:
        found = []
        for top in run_tree(client, dag_id, run_id, with_files=False):
            for depth, node in top.walk():
                why = f": {reason}" if (reason := node.run.tags.get(REASON)) else ""
                found.append(f"{'  ' * depth}{node.run.name} {node.run.status}{why}")
        return "\n".join(found)

    return _asked(mlflow_conn_id, lines)


def _asked(conn_id: str, question: Callable[[TrackingClient], str]) -> str:
    """Ask with little patience."""
    from mlflow_projects.hooks.masking import shown
    from mlflow_projects.hooks.mlflow_hook import MLflowHook
    from mlflow_projects.tracking.connect import connect

    try:
        client = connect(MLflowHook(conn_id).settings.for_a_person(_SECONDS))
        try:
            return shown(question(client))
        finally:
            client.close()
    except Exception as error:  # also a connection that is not there, about which the notice may be
        log.warning("MLflow cannot be asked for a notice: %s", shown(str(error)))
        log.debug("MLflow cannot be asked:", exc_info=True)
        return ""


def _conn_id(ti: Any) -> str:
    from mlflow_projects.hooks.mlflow_hook import MLflowHook

    return str(getattr(getattr(ti, "task", None), "mlflow_conn_id", MLflowHook.default_conn_name))


def _run_of(client: TrackingClient, ti: Any) -> Run | None:
    """Return the run of a task's last try."""
    from mlflow_projects.config import airflow_url
    from mlflow_projects.tracking.lookup import runs_of_dag_run
    from mlflow_projects.tracking.tags import INNER, ROLE, TASK_ID

    index = -1 if ti.map_index is None else ti.map_index
    found = runs_of_dag_run(client, ti.dag_id, ti.run_id, map_index=index, airflow_url=airflow_url())
    own = [run for run in found if run.tags.get(TASK_ID) == ti.task_id and run.tags.get(ROLE) != INNER]
    return own[-1] if own else None


def _run_it_told(client: TrackingClient, ti: Any) -> Run | None:
    """Return the run that a task's XCom names."""
    key = getattr(getattr(ti, "task", None), "run_key", None)
    told = ti.xcom_pull(task_ids=ti.task_id, key=key, map_indexes=ti.map_index) if key else None
    return client.get_run(told["run_id"]) if told else None
