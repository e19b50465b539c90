"""Where the tracking server is: from a connection, else from the variables of an MLflow user."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Connection

from mlflow_projects import MLflowHook, get_provider_info
from mlflow_projects.exceptions import ProjectError
from mlflow_projects.hooks.mlflow_hook import settings_from_connection
from mlflow_projects.tracking.server import TrackingSettings, settings_from_environment, sqlite_file


def connection(**fields: Any) -> Connection:
    extra = json.dumps(fields.pop("extra", {}))
    return Connection(conn_id="mlflow_default", conn_type="mlflow", extra=extra, **fields)


@pytest.mark.parametrize(
    ("fields", "uri"),
    [
        ({"host": "http://mlflow:5000"}, "http://mlflow:5000"),
        ({"host": "https://mlflow.example.com/"}, "https://mlflow.example.com"),
        ({"host": "mlflow", "port": 5000}, "http://mlflow:5000"),
        ({"host": "http://mlflow/team", "port": 5000}, "http://mlflow:5000/team"),
        ({"host": "http://mlflow:5001", "port": 5000}, "http://mlflow:5001"),
        ({"host": "mlflow", "schema": "https"}, "https://mlflow"),
        ({"host": "databricks"}, "databricks"),
        ({"host": "sqlite:////data/mlflow.db"}, "sqlite:////data/mlflow.db"),
        ({"host": "http://me:secret@mlflow:5000"}, "http://mlflow:5000"),
    ],
)
def test_the_host_is_the_tracking_uri(fields: dict[str, Any], uri: str) -> None:
    assert settings_from_connection(connection(**fields)).uri == uri


def test_login_and_password_are_basic_auth_and_a_password_alone_is_a_token() -> None:
    basic = settings_from_connection(connection(host="http://m", login="me", password="pw"))
    assert (basic.username, basic.password, basic.token) == ("me", "pw", "")
    token = settings_from_connection(connection(host="http://m", password="pw"))
    assert (token.username, token.password, token.token) == ("", "", "pw")
    assert basic.environment() == {
        "MLFLOW_TRACKING_URI": "http://m",
        "MLFLOW_TRACKING_USERNAME": "me",
        "MLFLOW_TRACKING_PASSWORD": "pw",
    }


def test_extras_reach_the_settings_and_the_entry_point() -> None:
    extra = {
        "insecure_tls": True,
        "server_cert_path": "/ca.pem",
        "ui_url": "https://ui",
        "timeout": 5,
        "max_retries": 0,
        "s3_endpoint_url": "http://s3:9000",
        "aws_profile": "team",
    }
    settings = settings_from_connection(connection(host="https://m", extra=extra))
    assert (settings.timeout, settings.max_retries) == (5.0, 0)
    assert settings.run_url("1", "abc") == "https://ui/#/experiments/1/runs/abc"
    assert settings.environment() == {
        "MLFLOW_TRACKING_URI": "https://m",
        "MLFLOW_TRACKING_INSECURE_TLS": "true",
        "MLFLOW_TRACKING_SERVER_CERT_PATH": "/ca.pem",
        "MLFLOW_S3_ENDPOINT_URL": "http://s3:9000",
        "AWS_PROFILE": "team",
    }


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"host": ""}, "has no host"), ({"host": "http://m", "extra": {"timeout": "soon"}}, "must be numbers")],
)
def test_a_wrong_connection_is_one_sentence(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ProjectError, match=f"connection 'mlflow_default'.*{words}"):
        settings_from_connection(connection(**fields))


def test_every_form_field_is_one_that_is_read() -> None:
    (declared,) = get_provider_info()["connection-types"]
    fields = declared["conn-fields"]
    extra = {
        name: {"boolean": True, "number": 3, "integer": 3}.get(f["schema"]["type"][0], "x")
        for name, f in fields.items()
    }
    read = settings_from_connection(connection(host="https://m", extra=extra))
    plain = TrackingSettings(uri="https://m")
    assert set(read.extra_environment) == {"MLFLOW_S3_ENDPOINT_URL", "AWS_PROFILE"}
    for name in set(fields) - {"s3_endpoint_url", "aws_profile"}:
        assert getattr(read, name) != getattr(plain, name), name
    assert declared["hook-class-name"] == f"{MLflowHook.__module__}.MLflowHook"


def test_variables_count_where_there_is_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {
        "MLFLOW_TRACKING_URI": "http://m:5000",
        "MLFLOW_TRACKING_TOKEN": "t",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "7",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    }
    settings = settings_from_environment(environment)
    assert (settings.uri, settings.token, settings.timeout, settings.max_retries) == ("http://m:5000", "t", 7.0, 1)
    with pytest.raises(ProjectError, match="MLFLOW_HTTP_REQUEST_TIMEOUT must be a number, not 'soon'"):
        settings_from_environment({"MLFLOW_HTTP_REQUEST_TIMEOUT": "soon"})


def test_a_relative_store_means_the_same_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert settings_from_environment({}).uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert settings_from_environment({"MLFLOW_TRACKING_URI": "./mlruns"}).uri == f"file://{tmp_path}/mlruns"


@pytest.mark.parametrize("host", ["http://m%65:p%40ss%3A@mlflow:5000", "https://me:p%40ss%3A@mlflow"])
def test_a_login_in_the_address_is_decoded_as_mlflows_client_does(host: str) -> None:
    from requests.utils import get_auth_from_url

    settings = settings_from_environment({"MLFLOW_TRACKING_URI": host})
    assert (settings.username, settings.password) == get_auth_from_url(host) == ("me", "p@ss:")
    assert "@" not in settings.uri


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        ("sqlite:////a/b.db", "/a/b.db"),
        ("sqlite:////a/b.db?timeout=60&mode=rw", "/a/b.db"),
        ("sqlite+pysqlite:////a/b.db", "/a/b.db"),
        ("sqlite:///b.db?timeout=60", "b.db"),
        ("sqlite:///file:/a/b.db?mode=rw&uri=true", "/a/b.db"),
        ("sqlite:///file:///a/b.db?uri=true", "/a/b.db"),
        ("sqlite:///file:x?mode=memory&cache=shared&uri=true", None),
        ("sqlite:///:memory:", None),
        ("sqlite:///:memory:?cache=shared", None),
        ("postgresql://u@h/b.db", None),
        ("http://h/sqlite:///b.db", None),
    ],
)
def test_the_file_of_a_sqlite_address(uri: str, file: str | None) -> None:
    assert sqlite_file(uri) == (Path(file) if file else None)


def test_an_encoded_name_of_a_sqlite_file_is_what_sqlalchemy_reads() -> None:
    from sqlalchemy import make_url

    uri = "sqlite:////a%20b/c.db?timeout=60"
    assert str(sqlite_file(uri)) == make_url(uri).database


def test_a_relative_uri_of_sqlite_means_the_same_from_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for given, meant in (("file:b.db", f"file:{tmp_path}/b.db"), ("file:/a/b.db", "file:/a/b.db")):
        settings = settings_from_environment({"MLFLOW_TRACKING_URI": f"sqlite:///{given}?uri=true"})
        assert settings.uri == f"sqlite:///{meant}?uri=true"


def test_a_database_that_is_not_there_is_told_with_options_too(tmp_path: Path) -> None:
    settings = TrackingSettings(f"sqlite:///{tmp_path}/m.db?timeout=60")
    assert settings.missing_database() == tmp_path / "m.db"
    (tmp_path / "m.db").touch()
    assert settings.missing_database() is None
