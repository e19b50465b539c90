"""Clients of AWS through Airflow's connection, made when first used and again when credentials have expired."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mlflow_projects.exceptions import ProjectError

DEFAULT_CONNECTION = "aws_default"
_CONNECT_SECONDS, _READ_SECONDS = 5, 30
_EXPIRED = frozenset({"ExpiredTokenException", "ExpiredToken", "RequestExpired", "UnrecognizedClientException"})


@dataclass
class Clients:
    """The AWS services that a training job needs.

    :param aws_conn_id: Airflow connection; None or a missing one means boto3's own search for credentials
    :param region_name: default: the connection's, else boto3's own
    """

    aws_conn_id: str | None
    region_name: str | None = None
    _made: dict[str, Any] = field(default_factory=dict, repr=False)

    def __getitem__(self, service: str) -> Any:
        """Return the boto3 client of a service, such as ``clients["sagemaker"]``."""
        client = self._made.get(service)  # once: forget() may be called in another thread
        if client is None:
            from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook
            from botocore.config import Config

            # "standard" repeats throttled and broken requests with growing pauses.
            config = Config(
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
                retries={"mode": "standard", "max_attempts": 4},
            )
            hook: Any = AwsGenericHook(
                aws_conn_id=self._connection(),
                client_type=service,
                region_name=self.region_name or None,
                config=config,
            )
            client = self._made[service] = hook.get_conn()
        return client

    def _connection(self) -> str | None:
        """Return the connection's id, or None if it is the default one and nobody made it.

        :raises ProjectError: another one was named and does not exist
        """
        if not self.aws_conn_id:
            return None
        from airflow.sdk import BaseHook
        from airflow.sdk.exceptions import AirflowNotFoundException

        try:
            BaseHook.get_connection(self.aws_conn_id)
        except AirflowNotFoundException as error:
            if self.aws_conn_id == DEFAULT_CONNECTION:
                return None
            raise ProjectError(
                f"There is no Airflow connection {self.aws_conn_id!r}; add it, or correct aws_conn_id."
            ) from error
        return self.aws_conn_id

    @property
    def region(self) -> str:
        """The region in which the jobs run."""
        return str(self["sagemaker"].meta.region_name)

    def forget(self) -> None:
        """Read the credentials again at the next use."""
        self._made.clear()

    def forget_if_expired(self, error: Exception) -> bool:
        """Read the credentials again if an error says that they are over; tell whether it does."""
        expired = error_code(error) in _EXPIRED
        if expired:
            self.forget()
        return expired


def error_code(error: BaseException) -> str:
    """Return AWS's code of an error, or "" if AWS did not answer."""
    answer = getattr(error, "response", None)
    return str(answer.get("Error", {}).get("Code", "")) if isinstance(answer, dict) else ""


def aws_errors() -> tuple[type[Exception], ...]:
    """Return what a call to AWS may raise."""
    from botocore.exceptions import BotoCoreError, ClientError

    return (BotoCoreError, ClientError)
