"""The Airflow connection to a tracking server."""

from __future__ import annotations

import contextlib
import re
from concurrent.futures import TimeoutError  # the built-in one from Python 3.11 on
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from mlflow_projects.exceptions import ProjectError, TrackingError
from mlflow_projects.hooks.masking import mask, mask_connection, shown
from mlflow_projects.public_uri import secrets_in
from mlflow_projects.tracking.database import ensure_store, is_database
from mlflow_projects.tracking.patience import in_thread
from mlflow_projects.tracking.server import TrackingSettings, normalized, settings_from_environment

if TYPE_CHECKING:
    from airflow.sdk import Connection
    from mlflow import MlflowClient

    from mlflow_projects.tracking.client import TrackingClient


_TEST_SECONDS = 10.0
# Those that a variable AIRFLOW_CONN_… with a plain address gives, what an Airflow without our provider stores, none.
_TYPES = ("mlflow", "http", "https", "generic", "")


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
        try:
            connection = self.get_connection(self.mlflow_conn_id)
            mask_connection(connection)
            settings = settings_from_connection(connection)
        except AirflowNotFoundException:
            if self.mlflow_conn_id != self.default_conn_name:
                raise
            settings = settings_from_environment()
        # As the user of an address, a token may stand without a password.
        mask(settings.password or settings.username, settings.token, *secrets_in(settings.uri))
        return settings

    def get_conn(self) -> TrackingClient:
        """Return a client for the server; close it after use."""
        from mlflow_projects.tracking.connect import connect

        return connect(self.settings)

    def client(self) -> MlflowClient:
        """Return MLflow's own client, with this connection's login in each of its calls and nowhere else.

        It needs MLflow, whose import takes seconds; inside of the call other threads see the login's variables.
        """
        from mlflow_projects.tracking.logged_in import logged_in_client

        return logged_in_client(self.settings)

    def test_connection(self) -> tuple[bool, str]:
        """Ask for the experiments, with little patience, for a person waits at the button; nothing is written."""
        try:
            settings = self.settings.for_a_person(_TEST_SECONDS)
            count = in_thread(lambda: _experiments(settings)).result(_TEST_SECONDS)
        except TimeoutError:
            return False, f"Nothing answers within {_TEST_SECONDS:g} s; check host and port of the connection."
        except (ProjectError, TrackingError) as error:
            return False, shown(str(error))
        return True, f"MLflow answers at {self.settings.address}; {count} experiment(s) are visible."


def _experiments(settings: TrackingSettings) -> int:
    """Return how many there are."""
    if is_database(settings.uri):
        return ensure_store(settings)  # without MLflow, which takes seconds to load
    from mlflow_projects.tracking.connect import connect

    client = connect(settings)
    try:
        return len(client.experiment_ids())
    finally:
        client.close()


def settings_from_connection(connection: Connection) -> TrackingSettings:
    """Read an Airflow connection of type ``mlflow``, or one that can stand for it.

    :raises ProjectError: of another type, no host, or an extra of the wrong type
    """
    name = f"The Airflow connection {connection.conn_id!r}"
    if (conn_type := connection.conn_type or "") not in _TYPES:  # its password is for somebody else
        raise ProjectError(
            f"{name} is of type {conn_type!r}, so nothing of it is sent to a tracking server; name one of type "
            "'mlflow' in mlflow_conn_id."
        )
    extra = connection.extra_dejson
    host = (connection.host or "").strip()
    if not host:
        raise ProjectError(f"{name} has no host; put the tracking URI there, for example http://mlflow:5000.")
    if "://" not in host and host != "databricks":
        host = f"{connection.schema or 'http'}://{host}"
    if connection.port:
        with contextlib.suppress(ValueError):  # said below
            parts = urlsplit(host)
            if parts.scheme in ("http", "https") and not re.search(r":\d+$", parts.netloc):
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
    except (TypeError, ValueError, OverflowError) as error:
        raise ProjectError(f"{name}: 'timeout' and 'max_retries' of its extra must be numbers ({error}).") from error
