"""The button from an Airflow task to the model version that it made, moved or waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey


class MLflowModelLink(BaseOperatorLink):
    """Leads to the model version in MLflow's UI; pushed by the operator itself, like :class:`MLflowRunLink`."""

    name = "MLflow model"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """Return what the operator pushed."""
        return str(getattr(operator, "mlflow_model_url", ""))
