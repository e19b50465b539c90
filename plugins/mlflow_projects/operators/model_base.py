"""What the operators and the sensor of model versions share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink
from airflow.sdk.exceptions import AirflowFailException

from mlflow_projects.links.model import MLflowModelLink
from mlflow_projects.links.pushed import push_links
from mlflow_projects.operators.base import MLflowTrackingOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from mlflow_projects.tracking.server import TrackingSettings


class MLflowModelOperator(MLflowTrackingOperator):
    """The base of tasks that stand for a model version, with a button to it and events for assets."""

    operator_extra_links: Collection[BaseOperatorLink] = (MLflowModelLink(),)

    def publish_model(self, context: Context, settings: TrackingSettings, version: Mapping[str, Any]) -> None:
        """Make the "MLflow model" button work from now on."""
        url = settings.model_version_url(version["name"], version["version"])
        push_links(self, context, (MLflowModelLink(), url))
        self.log.info("Model version %s: %s", version["uri"], url or settings.address)

    def withhold_events(self) -> None:
        """Let this success trigger nobody.

        Airflow makes an event for each asset that is in the ``outlets`` of the task when it succeeds
        (``airflow.sdk.execution_time.task_runner``); this object is the task instance's own copy of the task.
        """
        assets = self.assets(self.outlets)
        self.outlets = [outlet for outlet in self.outlets if outlet not in assets]


def as_version(value: Any, argument: str) -> int | None:
    """Return the version number in what a template rendered to: a number, or the XCom of a model's task.

    :raises AirflowFailException: it is neither
    """
    if isinstance(value, Mapping):
        value = value.get("version")
    if value in (None, "", "None"):
        return None
    try:
        return int(str(value))  # not a float's
    except ValueError as error:
        raise AirflowFailException(
            f"{argument} must be a version number or the output of a task that registers a model, not {value!r}."
        ) from error
