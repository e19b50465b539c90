"""Real servers for tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running_mlflow_server(folder: Path, port: int | None = None, database: str = "") -> Iterator[str]:
    """Run a tracking server; yield its URI.

    :param database: SQLAlchemy URI; default: a SQLite database in ``folder``
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", database or f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination", f"{folder}/artifacts",
    ]  # fmt: skip
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until_answers(f"{uri}/health", process)
        yield uri
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until_answers(url: str, process: subprocess.Popen[bytes], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server ended with {process.returncode}"
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=2).status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError(f"{url} does not answer after {seconds} s")


def find_postgresql() -> Path | None:
    """Return the folder of PostgreSQL's programs as Debian installs them, or None."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


@contextlib.contextmanager
def running_postgresql() -> Iterator[str]:
    """Run PostgreSQL in a temporary folder; yield the SQLAlchemy URI of its databases, without a database's name.

    PostgreSQL refuses to run as root, so root runs it as Debian's user ``postgres``.
    """
    programs = find_postgresql()
    assert programs is not None, "PostgreSQL is missing: apt-get install postgresql"
    as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="mlflow-projects-postgresql-"))
    if as_user:
        shutil.chown(folder, "postgres", "postgres")
    port = free_port()
    quiet = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(
        [*as_user, programs / "initdb", "-D", folder / "data", "-A", "trust", "-U", "tests"], check=True, **quiet
    )
    options = ["-p", str(port), "-k", folder, "-h", "127.0.0.1", "-c", "fsync=off", "-c", "max_connections=200"]
    process = subprocess.Popen([*as_user, programs / "postgres", "-D", folder / "data", *options], **quiet)
    connection = ["-h", "127.0.0.1", "-p", str(port), "-U", "tests"]
    try:
        while subprocess.run([programs / "pg_isready", *connection], check=False, **quiet).returncode:
            assert process.poll() is None, "PostgreSQL ended at once"
            time.sleep(0.1)
        for name in ("airflow", "mlflow"):
            subprocess.run([programs / "createdb", *connection, name], check=True, **quiet)
        yield f"postgresql+psycopg2://tests@127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def dumped(database: str) -> str:
    """Return the whole content of a PostgreSQL database as text."""
    programs = find_postgresql()
    assert programs is not None
    uri = database.replace("+psycopg2", "")
    return subprocess.run([programs / "pg_dump", uri], check=True, capture_output=True, text=True).stdout
