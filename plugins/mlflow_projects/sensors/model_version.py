"""Wait until a version of a registered model is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.sdk.exceptions import AirflowException

from mlflow_projects.exceptions import TrackingUnavailableError
from mlflow_projects.hooks.masking import shown
from mlflow_projects.hooks.mlflow_hook import MLflowHook
from mlflow_projects.operators.base import is_deferrable
from mlflow_projects.operators.model_base import MLflowModelOperator, as_version
from mlflow_projects.operators.templates import text_or_none
from mlflow_projects.tracking.registration import WantedVersion, metrics_of, version_dict

if TYPE_CHECKING:
    from airflow.sdk import Context


class MLflowModelVersionSensor(MLflowModelOperator, BaseSensorOperator):
    """Wait until a version of a model is READY.

    Without ``alias`` and ``version``, the newest version counts. All conditions that are given must hold. A
    tracking server that is away is waited for.

    Returns ``{"name", "version", "run_id", "source", "uri", "metrics", "mlflow_conn_id"}`` of the version as
    XCom.

    :param name: the registered model, which need not exist yet (templated)
    :param alias: the version must hold this alias (templated)
    :param version: the version's number (templated)
    :param newer_than: the version's number must be greater than this one: a number, or the XCom of a task that
        stands for a version (templated)
    :param other_than: the version must be another one than this, older or newer, as after a roll-back of the alias;
        given like ``newer_than`` (templated)
    :param deferrable: whether the waiting leaves the worker slot free; default: Airflow's ``[operators]
        default_deferrable``
    :param str mlflow_conn_id: Airflow connection to the tracking server
    :param float poke_interval: seconds between two looks
    :param float timeout: seconds after which the task fails, or with ``soft_fail`` is skipped
    :raises AirflowFailException: an argument is wrong
    """

    template_fields: Sequence[str] = ("name", "alias", "version", "newer_than", "other_than")

    def __init__(
        self,
        *,
        name: str,
        alias: str | None = None,
        version: Any = None,
        newer_than: Any = None,
        other_than: Any = None,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.name = name
        self.alias = alias
        self.version = version
        self.newer_than = newer_than
        self.other_than = other_than
        self.deferrable = deferrable

    def execute(self, context: Context) -> Any:
        """Look once; wait in the worker or in the triggerer if the version is not there."""
        if not is_deferrable(self.deferrable):
            return super().execute(context)
        if done := self.poke(context):
            return done.xcom_value
        from mlflow_projects.triggers.model_version import ModelVersionTrigger

        self.log.info("Waiting for %s.", self._wanted)
        self.defer(
            trigger=ModelVersionTrigger(asdict(self._wanted), self.poke_interval, self.mlflow_conn_id),
            method_name="resume",
            timeout=timedelta(seconds=self.timeout),
        )

    def poke(self, context: Context) -> PokeReturnValue:
        """Look for the version."""
        with self.tracking() as client:
            try:
                version = self._wanted.find(client)
                found = version_dict(version, metrics_of(client, version), self.mlflow_conn_id) if version else None
            except TrackingUnavailableError as error:
                self.log.warning("Still waiting: %s", shown(str(error)))
                found = None
            if found:
                self.publish_model(context, client.settings, found)
        return PokeReturnValue(is_done=found is not None, xcom_value=found)

    def resume(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Take what the trigger found."""
        if "error" in event:
            raise AirflowException(str(event["error"]))
        found = dict(event["found"])
        self.publish_model(context, MLflowHook(self.mlflow_conn_id).settings, found)
        return found

    @property
    def _wanted(self) -> WantedVersion:
        return WantedVersion(
            name=str(self.name),
            alias=text_or_none(self.alias),
            version=as_version(self.version, "version"),
            newer_than=as_version(self.newer_than, "newer_than"),
            other_than=as_version(self.other_than, "other_than"),
        )
