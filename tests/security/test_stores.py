"""Who only looks at a store never writes to it, and nobody waits for one that hangs (issue 22, rows 4 and 9)."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlflow_projects.cli import main
from mlflow_projects.exceptions import ProjectError, TrackingError, TrackingUnavailableError
from mlflow_projects.hooks import mlflow_hook
from mlflow_projects.hooks.mlflow_hook import MLflowHook
from mlflow_projects.tracking.connect import connect
from mlflow_projects.tracking.server import TrackingSettings, settings_from_environment
from mlflow_projects.ui.sources import PageProblem
from mlflow_projects.ui.sources import tracking as page
from tests.support.hostile import answer_of, hostile_server

SECRET = "planted-secret-9k2"


def listing(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() if file.is_file() else b"" for file in sorted(folder.rglob("*"))}


def database(file: Path, *statements: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(file)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return file


def missing(folder: Path) -> str:
    return f"sqlite:////{str(folder).lstrip('/')}/below/none.db"


def empty(folder: Path) -> str:
    return f"sqlite:///{database(folder / 'empty.db', 'CREATE TABLE mine (x)')}"


def of_airflow(folder: Path) -> str:
    statements = ("CREATE TABLE alembic_version (version_num)", "CREATE TABLE dag_run (id)")
    return f"sqlite+pysqlite:///{database(folder / 'airflow.db', *statements)}"


def of_older_mlflow(folder: Path) -> str:
    file = database(
        folder / "older.db",
        "CREATE TABLE alembic_version (version_num)",
        "CREATE TABLE experiments (experiment_id, lifecycle_stage)",
        "INSERT INTO experiments VALUES (0, 'active')",
    )
    return f"sqlite:///{file}?timeout=5"


def no_file_store(folder: Path) -> str:
    (folder / "runs").mkdir()
    return f"file://{folder}/runs"


STORES = [missing, empty, of_airflow, of_older_mlflow, no_file_store]


def look_with_button(uri: str) -> None:
    fine, sentence = MLflowHook().test_connection()
    # The button counts what is there, in whatever version.
    assert (fine, "1 experiment" in sentence) == (("older" in uri), ("older" in uri)), sentence


def look_with_page(uri: str) -> None:
    with pytest.raises(PageProblem):
        with page("mlflow_default"):
            pass


def look_with_tree(uri: str) -> None:
    assert main(["tree", "some_dag"]) == 1


def look_with_close(uri: str) -> None:
    assert main(["close", "0" * 32, "--reason", "none"]) == 1


def look_with_check(uri: str) -> None:
    main(["check", str(Path(__file__).parent)])


def look_as_janitor(uri: str) -> None:
    assert main(["janitor"]) == 1


@pytest.mark.usefixtures("airflow_db")
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize(
    "look", [look_with_button, look_with_page, look_with_tree, look_with_close, look_with_check, look_as_janitor]
)
def test_nothing_is_written(
    store: Any, look: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = store(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    before = listing(tmp_path)
    look(uri)
    assert listing(tmp_path) == before
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err


def test_a_step_too_leaves_another_programs_database_alone(tmp_path: Path) -> None:
    uri = of_airflow(tmp_path)
    before = listing(tmp_path)
    with pytest.raises(ProjectError, match=r"another program's .Airflow's own"):
        connect(TrackingSettings(uri=uri))
    assert listing(tmp_path) == before


def test_a_store_of_mlflow_is_read_and_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TrackingSettings(uri=f"sqlite:///{tmp_path}/mlflow.db")
    experiment = connect(settings).create_experiment("mine")
    before = set(listing(tmp_path))
    assert experiment in connect(settings.for_a_person(5)).experiment_ids()
    run = connect(replace(settings, access="change")).create_run(experiment, "run", 1, {})
    assert connect(replace(settings, access="read")).get_run(run.run_id).name == "run"
    assert set(listing(tmp_path)) == before
    monkeypatch.setenv("MLFLOW_TRACKING_URI", settings.uri)
    assert MLflowHook().test_connection()[0]


@contextlib.contextmanager
def silent_server() -> Iterator[tuple[int, threading.Semaphore, threading.Semaphore]]:
    """A server that takes connections and says nothing; it tells who came, and who went."""
    came, went = threading.Semaphore(0), threading.Semaphore(0)

    def listen(connection: socket.socket) -> None:
        came.release()
        with connection, contextlib.suppress(OSError):
            while connection.recv(65536):
                pass
        went.release()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=listen, args=(listening.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listening.getsockname()[1], came, went
        finally:
            listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("scheme", ["postgresql+psycopg2", "mysql+pymysql", "http"])
def test_the_button_does_not_wait_for_a_server_that_says_nothing(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_hook, "_TEST_SECONDS", 2.0)
    with silent_server() as (port, came, went):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://u:{SECRET}@127.0.0.1:{port}/x")
        fine, sentence = MLflowHook().test_connection()
        assert not fine
        assert SECRET not in sentence
        assert came.acquire(timeout=30)
        assert went.acquire(timeout=30), "the driver gives up too"


def test_the_button_does_not_wait_for_the_search_for_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    over, searched = threading.Event(), threading.Event()

    def search(*_: Any, **__: Any) -> Any:
        searched.set()
        over.wait(60)
        raise socket.gaierror("no such host")

    monkeypatch.setattr(mlflow_hook, "_TEST_SECONDS", 0.5)
    monkeypatch.setattr(socket, "getaddrinfo", search)  # a resolver that hangs cannot be had without root
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://hangs.example:5000")
    fine, sentence = MLflowHook().test_connection()
    assert (fine, searched.is_set(), over.is_set()) == (False, True, False), sentence
    assert "Nothing answers within" in sentence
    over.set()


@pytest.mark.parametrize(
    "uri", ["postgresql://u:pw9k2@h:x/d", "postgresql+none://u:pw9k2@h/d", "mysql://u:p:pw9k2@h:x/d"]
)
def test_an_address_that_no_driver_takes_is_a_sentence_without_it(uri: str) -> None:
    with pytest.raises((ProjectError, TrackingUnavailableError)) as caught:
        connect(TrackingSettings(uri=uri, access="read", max_retries=0))
    assert "pw9k2" not in str(caught.value)


@pytest.mark.parametrize("conn_type", ["aws", "postgres", "git", "sqlite", "databricks", "fs"])
def test_a_password_of_another_connection_is_sent_nowhere(conn_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    came = threading.Event()

    def answer(connection: socket.socket) -> None:
        came.set()
        connection.sendall(answer_of(b"{}"))

    with hostile_server(answer) as uri:
        connection = {"conn_type": conn_type, "host": uri, "login": "me", "password": SECRET}
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps(connection))
        with pytest.raises(ProjectError, match=f"'other' is of type '{conn_type}'"):
            MLflowHook("other").get_conn()
        assert MLflowHook("other").test_connection()[0] is False
        assert not came.is_set()
        for usable in ("mlflow", "http", "generic"):
            monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps({**connection, "conn_type": usable}))
            assert MLflowHook("other").test_connection()[0], usable


def test_settings_from_the_environment_may_make_a_store() -> None:
    assert settings_from_environment({}).access == "make"
    assert os.environ.get("MLFLOW_TRACKING_URI") is None
    with pytest.raises(TrackingError):
        connect(TrackingSettings(uri="sqlite:///:memory:", access="read"))
