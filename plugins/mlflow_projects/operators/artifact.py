"""What one step leaves, as a parameter of a later one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk.definitions._internal.mixins import ResolveMixin
from airflow.sdk.exceptions import AirflowFailException

if TYPE_CHECKING:
    from mlflow_projects.operators.project import MLflowProjectOperator


class ArtifactReference(ResolveMixin):
    """The URI of a step's artifact, known when that step has run."""

    def __init__(self, operator: MLflowProjectOperator, path: str) -> None:
        self.operator = operator
        self.path = path.strip("/")

    def iter_references(self) -> Iterable[tuple[Any, str]]:
        """Tell Airflow which task this depends on."""
        yield self.operator, "return_value"

    def resolve(self, context: Mapping[str, Any]) -> str:
        """Return the URI.

        :raises AirflowFailException: the step left no run, because it was skipped, for example
        """
        result = context["ti"].xcom_pull(task_ids=self.operator.task_id)
        if not isinstance(result, Mapping) or not result.get("artifact_uri"):
            raise AirflowFailException(
                f"Task {self.operator.task_id!r} left no MLflow run, so {self.path!r} of it cannot be used; "
                "it was skipped or never ran."
            )
        return f"{result['artifact_uri'].rstrip('/')}/{self.path}".rstrip("/")

    def __str__(self) -> str:
        pulled = f"ti.xcom_pull(task_ids='{self.operator.task_id}')['artifact_uri']"
        return f"{{{{ {pulled} }}}}/{self.path}".rstrip("/")
