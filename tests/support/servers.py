"""Real servers for tests."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.logs import shown_on_failure
from tests.support.waiting import PATIENCE, wait_for_server

_given: set[int] = set()
_SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])


def free_port() -> int:
    """Return a port on which nobody listens; below those that systems give to the near end of a connection.

    A server that comes later, or again, would else find it taken, for a moment, by anybody's request.
    """
    while True:
        port = random.SystemRandom().randrange(16000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


@contextlib.contextmanager
def running_mlflow_server(folder: Path, port: int | None = None, database: str = "", **more: Any) -> Iterator[str]:
    """Run a tracking server; yield its URI. The arguments are those of :func:`start_mlflow_server`."""
    process, uri = start_mlflow_server(folder, port, database, **more)
    try:
        with shown_on_failure(folder, "server.log"):
            yield uri
    finally:
        end_group(process)


def start_mlflow_server(
    folder: Path,
    port: int | None = None,
    database: str = "",
    *,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    certificate: Path | None = None,
) -> tuple[subprocess.Popen[bytes], str]:
    """Start a tracking server in a session of its own; return it with its URI when it answers.

    :param database: SQLAlchemy URI; default: a SQLite database in ``folder``
    :param options: more options of ``mlflow server``; default: artifacts are kept in ``folder``
    :param environment: more variables for the server
    :param certificate: a PEM file with key and certificate, for https
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    uri = f"{'https' if certificate else 'http'}://127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        *(options or ["--artifacts-destination", f"{folder}/artifacts"]),
    ]  # fmt: skip
    if certificate:
        command += ["--uvicorn-opts", f"--ssl-certfile {certificate} --ssl-keyfile {certificate}"]
    variables = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven more processes that nobody needs here
        "MLFLOW_BACKEND_STORE_URI": database or f"sqlite:///{folder}/mlflow.db",  # its password is not for `ps`
        **(environment or {}),
    }
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True, env=variables)
    try:
        wait_until_answers(f"{uri}/health", process, folder / "server.log")  # the first start makes many tables
    except BaseException:
        end_group(process)
        raise
    return process, uri


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a session, and all of it, at once."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_until_answers(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = PATIENCE) -> None:
    def answers() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(url, timeout=30, verify=False).status_code == 200
        return False

    wait_for_server(answers, process, url, log, seconds)


def find_postgresql() -> Path | None:
    """Return the folder of PostgreSQL's programs as Debian installs them, or None."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


def _folder_of(user: str) -> tuple[Path, list[str]]:
    """Return a temporary folder for a database server, and what starts a program as the user who owns it.

    Database servers refuse to run as root, so root runs them as Debian's user for them.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"mlflow-projects-{user}-"))
    if os.getuid() != 0:
        return folder, []
    shutil.chown(folder, user, user)
    return folder, ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]


@contextlib.contextmanager
def running_postgresql(databases: Sequence[str] = ("airflow", "mlflow")) -> Iterator[str]:
    """Run PostgreSQL in a temporary folder; yield the SQLAlchemy URI of its databases, without a database's name."""
    programs = find_postgresql()
    assert programs is not None, "PostgreSQL is missing: apt-get install postgresql"
    folder, as_user = _folder_of("postgres")
    port = free_port()
    options = ["-p", str(port), "-k", folder, "-h", "127.0.0.1", "-c", "fsync=off", "-c", "max_connections=200"]
    connection = ["-h", "127.0.0.1", "-p", str(port), "-U", "tests"]
    try:
        with (folder / "log").open("ab") as log, shown_on_failure(folder, "log"):
            logged = {"cwd": folder, "stdout": log, "stderr": log}
            initdb = [*as_user, programs / "initdb", "-D", folder / "data", "-A", "trust", "-U", "tests"]
            subprocess.run(initdb, check=True, **logged)
            process = subprocess.Popen([*as_user, programs / "postgres", "-D", folder / "data", *options], **logged)
            try:
                ready = [programs / "pg_isready", "--quiet", *connection]
                wait_for_server(
                    lambda: not subprocess.run(ready, check=False, **logged).returncode,
                    process, "PostgreSQL", folder / "log",
                )  # fmt: skip
                for name in databases:
                    subprocess.run([programs / "createdb", *connection, name], check=True, **logged)
                yield f"postgresql+psycopg2://tests@127.0.0.1:{port}"
            finally:
                process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
                process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def running_mariadb(database: str, password: str) -> Iterator[str]:
    """Run MariaDB in a temporary folder with one database; yield that database's SQLAlchemy URI.

    :param password: of the database's user, who comes over TCP
    """
    import pymysql

    program, install = shutil.which("mariadbd", path=_SYSTEM_PATH), shutil.which("mariadb-install-db")
    if not program or not install:
        pytest.skip("MariaDB is missing: apt-get install mariadb-server")
    folder, as_user = _folder_of("mysql")
    port, socket_file, log = free_port(), folder / "socket", (folder / "log").open("ab")
    as_root = {"unix_socket": str(socket_file), "user": "root"}

    def answers() -> bool:
        with contextlib.suppress(pymysql.err.OperationalError), pymysql.connect(**as_root):
            return True
        return False

    try:
        subprocess.run(
            [*as_user, install, "--no-defaults", f"--datadir={folder}/data", "--skip-test-db",
             "--auth-root-authentication-method=normal"],
            check=True, cwd=folder, stdout=log, stderr=log,
        )  # fmt: skip
        process = subprocess.Popen(
            [*as_user, program, "--no-defaults", f"--datadir={folder}/data", f"--socket={socket_file}",
             f"--pid-file={folder}/pid", "--bind-address=127.0.0.1", f"--port={port}", "--skip-log-bin"],
            cwd=folder, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            wait_for_server(answers, process, "MariaDB", folder / "log")
            with pymysql.connect(**as_root) as connection, connection.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {database}")
                cursor.execute("CREATE USER tests@'127.0.0.1' IDENTIFIED BY %s", (password,))
                cursor.execute(f"GRANT ALL ON {database}.* TO tests@'127.0.0.1'")
            yield f"mysql+pymysql://tests:{password}@127.0.0.1:{port}/{database}"
        finally:
            process.terminate()
            process.wait()
    finally:
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def dumped(database: str) -> str:
    """Return the whole content of a PostgreSQL database as text."""
    programs = find_postgresql()
    assert programs is not None
    uri = database.replace("+psycopg2", "")
    return subprocess.run([programs / "pg_dump", uri], check=True, capture_output=True, text=True).stdout
