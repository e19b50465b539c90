"""The button from an Airflow task to its MLflow run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey


class MLflowRunLink(BaseOperatorLink):
    """Leads to the run in MLflow's UI.

    Airflow stores an operator's links when the task ends. The operators push this one's XCom themselves as
    soon as the run is open, so that the button works while the task is running.
    """

    name = "MLflow run"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """Return what the operator pushed, so that the end of the task does not overwrite it."""
        return str(getattr(operator, "mlflow_run_url", ""))
