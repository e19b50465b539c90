"""The tracking set-ups of docs/tracking_setups.md, each with real servers of its own."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.support.object_store import ObjectStore
from tests.support.servers import find_postgresql, running_mariadb, running_mlflow_server, running_postgresql
from tests.support.token_auth import KEY_VARIABLE

ADMIN, ADMIN_PASSWORD = "admin", "admin-secret-4gxw2"
USER, PASSWORD = "airflow", "worker-secret-7tq1z"
DATABASE_PASSWORD = "database-secret-m3k9"
TOKEN_KEY = "token-key-of-32-characters-or-more-0"
SECRETS = (ADMIN_PASSWORD, PASSWORD, DATABASE_PASSWORD, TOKEN_KEY)
DIRECT, PROXIED = "direct-bucket", "proxied-bucket"


@dataclass(frozen=True)
class Setup:
    """A tracking server (or none) as a worker sees it.

    :param uri: the tracking URI
    :param connection: the Airflow connection; None: there is none
    :param worker: more environment variables of the worker
    :param artifact_root: what the artifact URI of each run begins with
    :param bucket: where the artifacts end up, "" if not in S3
    :param database: the server's SQLAlchemy URI
    """

    uri: str
    connection: dict[str, Any] | None = None
    worker: Mapping[str, str] = field(default_factory=dict)
    artifact_root: str = ""
    bucket: str = ""
    database: str = ""

    def variables(self, **changes: Any) -> dict[str, str]:
        """Return the worker's variables, with a changed Airflow connection."""
        if self.connection is None:
            return dict(self.worker)
        extra = {**self.connection.get("extra", {}), **changes.pop("extra", {})}
        connection = {"conn_type": "mlflow", **self.connection, **changes, "extra": extra}
        return {**self.worker, "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps(connection)}

    @contextlib.contextmanager
    def as_user(self, user: str = USER, password: str = PASSWORD) -> Iterator[Any]:
        """Yield MLflow's own client with a user's password, as that user would use it by hand."""
        from mlflow import MlflowClient

        extra = (self.connection or {}).get("extra", {})
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.worker.items():
                patch.setenv(name, value)
            if self.connection:
                patch.setenv("MLFLOW_TRACKING_USERNAME", user)
                patch.setenv("MLFLOW_TRACKING_PASSWORD", password)
                patch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", extra.get("server_cert_path", ""))
                patch.setenv("MLFLOW_S3_ENDPOINT_URL", extra.get("s3_endpoint_url", ""))
            yield MlflowClient(self.uri)


@dataclass(frozen=True)
class Parts:
    """What set-ups share.

    :param certificate: a PEM file with key and certificate of 127.0.0.1
    :param authority: a PEM file with the CA that signed it
    """

    folder: Path
    store: ObjectStore
    certificate: Path
    authority: Path


@contextlib.contextmanager
def _default(parts: Parts) -> Iterator[Setup]:
    folder = Path.cwd()
    yield Setup(f"sqlite:///{folder}/mlflow.db", artifact_root=f"file://{folder}/mlartifacts/")


@contextlib.contextmanager
def _file_store(parts: Parts) -> Iterator[Setup]:
    folder = Path.cwd()
    variables = {"MLFLOW_TRACKING_URI": "./mlruns", "MLFLOW_ALLOW_FILE_STORE": "true"}
    yield Setup(f"file://{folder}/mlruns", worker=variables, artifact_root=f"file://{folder}/mlruns/")


@contextlib.contextmanager
def _sqlite(parts: Parts) -> Iterator[Setup]:
    uri = f"sqlite:///{parts.folder}/store/mlflow.db"
    yield Setup(uri, worker={"MLFLOW_TRACKING_URI": uri}, artifact_root=f"file://{parts.folder}/store/mlartifacts/")


@contextlib.contextmanager
def _local_server(parts: Parts) -> Iterator[Setup]:
    with running_mlflow_server(parts.folder / "local") as uri:
        yield Setup(uri, worker={"MLFLOW_TRACKING_URI": uri}, artifact_root="mlflow-artifacts:/")


@contextlib.contextmanager
def _direct(parts: Parts) -> Iterator[Setup]:
    """PostgreSQL, passwords, artifacts written to S3 by the steps themselves."""
    if find_postgresql() is None:
        pytest.skip("PostgreSQL is missing: apt-get install postgresql")
    keys = {name: value for name, value in parts.store.environment.items() if name.startswith("AWS_")}
    with running_postgresql(["mlflow"]) as databases:
        database = f"{databases}/mlflow"
        options = ["--no-serve-artifacts", "--default-artifact-root", f"s3://{DIRECT}/runs"]
        with _with_accounts(parts, "direct", database, options, users=database) as (uri, _):
            connection = _connection(uri, s3_endpoint_url=parts.store.url)
            yield Setup(uri, connection, keys, f"s3://{DIRECT}/runs/", DIRECT, database)


@contextlib.contextmanager
def _proxied(parts: Parts) -> Iterator[Setup]:
    """PostgreSQL, https, passwords and tokens, artifacts in S3 behind the tracking server: the worker has no key."""
    if find_postgresql() is None:
        pytest.skip("PostgreSQL is missing: apt-get install postgresql")
    with running_postgresql(["mlflow"]) as databases:
        database = f"{databases}/mlflow"
        options = ["--serve-artifacts", "--artifacts-destination", f"s3://{PROXIED}/runs"]
        with _with_accounts(parts, "proxied", database, options, users=database, tls=True) as (uri, _):
            connection = _connection(uri, server_cert_path=str(parts.authority))
            yield Setup(uri, connection, {}, "mlflow-artifacts:/", PROXIED, database)


@contextlib.contextmanager
def _mariadb(parts: Parts) -> Iterator[Setup]:
    """MariaDB, passwords (in SQLite: MLflow cannot keep its users in MariaDB), artifacts in S3 behind the server."""
    with running_mariadb("mlflow", DATABASE_PASSWORD) as database:
        options = ["--serve-artifacts", "--artifacts-destination", f"s3://{PROXIED}/mariadb"]
        with _with_accounts(parts, "mariadb", database, options) as (uri, _):
            yield Setup(uri, _connection(uri), {}, "mlflow-artifacts:/", PROXIED, database)


SETUPS: dict[str, Callable[[Parts], contextlib.AbstractContextManager[Setup]]] = {
    "default store": _default,
    "file store": _file_store,
    "SQLite": _sqlite,
    "local server": _local_server,
    "PostgreSQL, S3 direct": _direct,
    "PostgreSQL, S3 proxied": _proxied,
    "MariaDB, S3 proxied": _mariadb,
}


def _connection(uri: str, **extra: Any) -> dict[str, Any]:
    return {"host": uri, "login": USER, "password": PASSWORD, "extra": {"max_retries": 2, **extra}}


@contextlib.contextmanager
def _with_accounts(
    parts: Parts, name: str, database: str, options: list[str], *, users: str = "", tls: bool = False
) -> Iterator[tuple[str, Path]]:
    """Run a tracking server with MLflow's basic authentication, an administrator and one user.

    :param users: SQLAlchemy URI of the database with the users; default: SQLite
    """
    folder = parts.folder / name
    folder.mkdir()
    configuration = folder / "basic_auth.ini"
    configuration.touch(mode=0o600)
    configuration.write_text(
        "[mlflow]\ndefault_permission = READ\nauthorization_function = tests.support.token_auth:authenticate\n"
        f"database_uri = {users or f'sqlite:///{folder}/users.db'}\n"
        "auth_cache_ttl_seconds = 60\n"  # else each request computes the password's hash
    )
    environment = {
        **parts.store.environment,
        "MLFLOW_AUTH_CONFIG_PATH": str(configuration),
        "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN,
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN_PASSWORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "of the forms in the browser",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        KEY_VARIABLE: TOKEN_KEY,
    }
    with running_mlflow_server(
        folder,
        database=database,
        options=["--app-name", "basic-auth", *options],
        environment=environment,
        certificate=parts.certificate if tls else None,
    ) as uri:
        add_user(Setup(uri, {"extra": {"server_cert_path": str(parts.authority) if tls else ""}}), USER, PASSWORD)
        yield uri, folder


def add_user(setup: Setup, user: str, password: str) -> None:
    """Add a user without any right of its own."""
    from mlflow.server import get_app_client

    with setup.as_user(ADMIN, ADMIN_PASSWORD):
        get_app_client("basic-auth", setup.uri).create_user(user, password)
