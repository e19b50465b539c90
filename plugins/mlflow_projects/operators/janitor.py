"""The janitor as an Airflow task."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mlflow_projects.config import airflow_url
from mlflow_projects.operators.base import DEFAULT_CONN_ID, MLflowTrackingOperator
from mlflow_projects.tracking.janitor import close_leftovers

if TYPE_CHECKING:
    from airflow.sdk import Context


class MLflowJanitorOperator(MLflowTrackingOperator):
    """Close every MLflow run that is still open although its DAG run ended.

    Only runs of this Airflow are looked at, told by the ``[api] base_url`` in their task's URL. Returns a list of
    ``{"run_id", "name", "dag_id", "dag_run_id", "status"}`` of what was closed.

    :param mlflow_conn_id: Airflow connection to the tracking server
    """

    def __init__(self, *, mlflow_conn_id: str = DEFAULT_CONN_ID, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mlflow_conn_id = mlflow_conn_id

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Look once, close, and report."""
        ti: Any = context["ti"]

        def state(dag_id: str, run_id: str) -> str | None:
            if ti.get_dr_count(dag_id, run_ids=[run_id]) == 0:
                return None
            return str(ti.get_dagrun_state(dag_id, run_id))

        with self.tracking() as client:
            closed = close_leftovers(client, state, airflow_url(), self.stop_job)
        for run in closed:
            self.log.warning("Closed %s %s of %s %s", run.status, run.name, run.dag_id, run.dag_run_id)
        self.log.info("%d run(s) closed.", len(closed))
        return [asdict(run) for run in closed]
