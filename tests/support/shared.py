"""What a run of tests has once, however many processes run it: a tracking server, a migrated Airflow database."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from mlflow_projects.file_lock import file_lock
from tests.support.logs import show_on_failures

# The server sends webhooks to this machine, without https.
_WEBHOOKS = {
    "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http",
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": "dGhlIGtleSBvZiBhIHNlcnZlciBmb3IgdGVzdHMgISE=",
    "MLFLOW_WEBHOOK_CACHE_TTL": "0",
}


def shared_mlflow_server(run: Path) -> str:
    """Return the URI of the run's tracking server; whoever asks first starts it.

    :param run: the folder of the run
    """
    from tests.support.servers import start_mlflow_server

    folder = run / "mlflow-server"
    folder.mkdir(exist_ok=True)
    show_on_failures(folder, "server.log")
    with file_lock(run / "mlflow-server.lock"):
        known = folder / "uri"
        if not known.exists():
            process, uri = start_mlflow_server(folder, environment=_WEBHOOKS)
            _end_with(os.environ["TESTS_RUN_OWNER"], process.pid)
            (folder / "pid").write_text(str(process.pid))
            known.write_text(uri)
        return known.read_text()


def _end_with(owner: str, group: int) -> None:
    """End a process group when the run's first process is gone, however that ended."""
    script = 'while kill -0 "$0" && kill -0 "$1"; do sleep 1; done; kill -9 "-$1"'
    subprocess.Popen(["sh", "-c", script, owner, str(group)], start_new_session=True, stderr=subprocess.DEVNULL)


def end_shared_servers(run: Path) -> None:
    """End what the processes of a run have started for all of them."""
    for file in run.glob("*/pid"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(file.read_text()), signal.SIGKILL)


def migrated_airflow_database(run: Path, database: Path) -> None:
    """Make a metadata database of Airflow: migrated once in a run (10 s), then copied.

    :param run: the folder of the run
    :param database: the SQLite file to make
    """
    template = run / "airflow-template" / "airflow.db"
    with file_lock(run / "airflow-template.lock"):
        if not template.exists():
            home = template.parent
            environment = {
                **os.environ,
                "AIRFLOW_HOME": str(home),
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/migrating.db",
            }
            done = subprocess.run(
                [sys.executable, "-m", "airflow", "db", "migrate"],
                env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout[-3000:]
            (home / "migrating.db").rename(template)
    shutil.copyfile(template, database)
