"""A whole Airflow with a login, and an MLflow server behind a proxy that can go away."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.flaky import FlakyProxy
from tests.support.logs import TASK_LOGS, shown_on_failure
from tests.support.servers import free_port, running_mlflow_server, wait_until_answers

ROOT = Path(__file__).resolve().parents[2]
USERS = {"admin": "admin-password-1", "outsider": "outsider-password-1"}
SECRET = "planted-secret-71xq"


@dataclass
class Deployment:
    """Airflow and MLflow, as they run.

    :param url: of Airflow
    :param mlflow_url: of the tracking server, as a browser calls it
    :param proxy: what Airflow's connection names
    :param start: starts one more part of Airflow, which ends with the others
    """

    home: Path
    url: str
    mlflow_url: str
    proxy: FlakyProxy
    start: Callable[[str], subprocess.Popen[bytes]]

    def client(self, user: str = "admin") -> httpx.Client:
        """Return an HTTP client with a user's token."""
        token = httpx.post(
            f"{self.url}/auth/token", json={"username": user, "password": USERS[user]}, timeout=60
        ).json()["access_token"]
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=60)


@contextlib.contextmanager
def running_airflow(
    home: Path, dag_files: list[Path], private_dags: list[str], more_environment: dict[str, str]
) -> Iterator[Deployment]:
    """Run API server, scheduler and DAG processor below a folder; the DAGs start unpaused.

    :param private_dags: what the user "outsider" may not see
    """
    dags = home / "dags"
    dags.mkdir(parents=True)
    for file in dag_files:
        (dags / file.name).symlink_to(file)
    passwords = home / "passwords.json"
    passwords.write_text(json.dumps(USERS))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with contextlib.ExitStack() as resources:
        resources.enter_context(shown_on_failure(home, "*.log", TASK_LOGS))
        mlflow_url = resources.enter_context(running_mlflow_server(home / "mlflow"))
        proxy = resources.enter_context(FlakyProxy(mlflow_url))
        connection = {
            "conn_type": "mlflow",
            "host": proxy.url,
            "login": "me",
            "password": SECRET,
            "extra": {"ui_url": mlflow_url, "max_retries": 5, "timeout": 30},
        }
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW_", "MLFLOW_", "TESTS_HOME"))}
        environment = {
            **clean,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            **sqlite(home),
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
            "AIRFLOW__CORE__AUTH_MANAGER": "tests.support.auth_manager.PerDagAuthManager",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,outsider:user",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__BASE_URL": url,
            "AIRFLOW__API_AUTH__JWT_SECRET": "tests-only-secret-that-is-long-enough-for-hs512-signatures-0123456789",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps(connection),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "TESTS_PRIVATE_DAGS": ",".join(private_dags),
            **more_environment,
        }
        program = Path(sys.executable).with_name("airflow")
        with (home / "db-migrate.log").open("ab") as log:
            subprocess.run([program, "db", "migrate"], env=environment, check=True, stdout=log, stderr=log)

        def start(part: str) -> subprocess.Popen[bytes]:
            log = resources.enter_context((home / f"{part}.log").open("ab"))
            its_own = {**environment, **sqlite(home, part)}
            process = subprocess.Popen(
                [program, part], env=its_own, cwd=home, stdout=log, stderr=log, start_new_session=True
            )
            resources.callback(end, process)
            return process

        for part in ("api-server", "dag-processor", "scheduler"):
            process = start(part)
            if part == "api-server":
                wait_until_answers(f"{url}/api/v2/monitor/health", process, home / f"{part}.log")
        yield Deployment(home, url, mlflow_url, proxy, start)


def sqlite(home: Path, part: str = "") -> dict[str, str]:
    """Return the variable that names Airflow's database, for one of its parts, as make up has it (tools/home.py)."""
    patience = 5 if part == "api-server" else 60
    return {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}?timeout={patience}"}


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all of its session: with SIGTERM, after 10 seconds with SIGKILL."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
