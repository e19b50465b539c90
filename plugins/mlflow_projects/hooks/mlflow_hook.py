"""The Airflow connection to a tracking server."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from mlflow_projects.exceptions import ProjectError, TrackingError
from mlflow_projects.tracking.server import TrackingSettings, normalized, settings_from_environment

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from mlflow_projects.tracking.client import TrackingClient


_TEST_SECONDS = 10.0


class MLflowHook(BaseHook):
    """Reach an MLflow tracking server.

    The connection's host is the tracking URI. With a login, login and password are basic authentication;
    a password alone is a bearer token. Extras: ``insecure_tls``, ``server_cert_path``,
    ``client_cert_path``, ``ui_url`` (what a browser calls the server), ``timeout`` (seconds for one
    request), ``max_retries``, ``s3_endpoint_url`` and ``aws_profile`` (both for the entry point's
    artifacts).

    Where the default connection does not exist, the variables of an MLflow user count:
    ``MLFLOW_TRACKING_URI``, ``MLFLOW_TRACKING_USERNAME``, … (source:
    https://mlflow.org/docs/latest/api_reference/python_api/mlflow.environment_variables.html).

    :param mlflow_conn_id: the connection's id
    """

    conn_name_attr = "mlflow_conn_id"
    default_conn_name = "mlflow_default"
    conn_type = "mlflow"
    hook_name = "MLflow"

    def __init__(self, mlflow_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mlflow_conn_id = mlflow_conn_id

    @cached_property
    def settings(self) -> TrackingSettings:
        """How to reach the server; its secrets are masked in logs from here on.

        :raises ProjectError: the connection holds what it cannot hold
        :raises AirflowNotFoundException: no connection of that id, unless it is the default one
        """
        from airflow.sdk.log import mask_secret

        try:
            settings = settings_from_connection(self.get_connection(self.mlflow_conn_id))
        except AirflowNotFoundException:
            if self.mlflow_conn_id != self.default_conn_name:
                raise
            settings = settings_from_environment()
        for secret in (settings.password, settings.token):
            if secret:
                mask_secret(secret)
        return settings

    def get_conn(self) -> TrackingClient:
        """Return a client for the server; close it after use."""
        from mlflow_projects.tracking.connect import connect

        return connect(self.settings)

    def test_connection(self) -> tuple[bool, str]:
        """Ask the server for its experiments, once and with little patience: a person waits at the button."""
        from mlflow_projects.tracking.connect import connect

        try:
            client = connect(self.settings.for_a_person(_TEST_SECONDS))
            try:
                count = len(client.experiment_ids())
            finally:
                client.close()
        except (ProjectError, TrackingError) as error:
            return False, str(error)
        return True, f"MLflow answers at {self.settings.uri}; {count} experiment(s) are visible."


def settings_from_connection(connection: Connection) -> TrackingSettings:
    """Read an Airflow connection of type ``mlflow``.

    :raises ProjectError: no host, or an extra of the wrong type
    """
    extra = connection.extra_dejson
    host = (connection.host or "").strip()
    name = f"The Airflow connection {connection.conn_id!r}"
    if not host:
        raise ProjectError(f"{name} has no host; put the tracking URI there, for example http://mlflow:5000.")
    if "://" not in host and host != "databricks":
        host = f"{connection.schema or 'http'}://{host}"
    parts = urlsplit(host)
    if connection.port and parts.scheme in ("http", "https") and not re.search(r":\d+$", parts.netloc):
        host = parts._replace(netloc=f"{parts.netloc}:{connection.port}").geturl()
    login, password = connection.login or "", connection.password or ""
    try:
        return normalized(
            TrackingSettings(
                uri=host,
                username=login,
                password=password if login else "",
                token="" if login else password,
                insecure_tls=str(extra.get("insecure_tls") or "").lower() in ("1", "true"),
                server_cert_path=extra.get("server_cert_path") or "",
                client_cert_path=extra.get("client_cert_path") or "",
                ui_url=extra.get("ui_url") or "",
                timeout=float(extra.get("timeout") or TrackingSettings.timeout),
                max_retries=int(
                    TrackingSettings.max_retries if extra.get("max_retries") in (None, "") else extra["max_retries"]
                ),
                extra_environment={
                    variable: str(extra[key])
                    for key, variable in (
                        ("s3_endpoint_url", "MLFLOW_S3_ENDPOINT_URL"),
                        ("aws_profile", "AWS_PROFILE"),
                    )
                    if extra.get(key)
                },
            )
        )
    except (TypeError, ValueError) as error:
        raise ProjectError(f"{name}: 'timeout' and 'max_retries' of its extra must be numbers ({error}).") from error
