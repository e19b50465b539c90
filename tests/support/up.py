"""``make up`` for tests: a real scheduler and a real MLflow server, driven as a person does, by the REST API."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.conftest import ROOT
from tests.support.cifar10 import CACHE
from tests.support.servers import free_port


@dataclass(frozen=True)
class Up:
    """A running Airflow with its MLflow server."""

    http: httpx.Client
    mlflow_uri: str

    def call(self, method: str, path: str, content: Any = None) -> Any:
        """Call Airflow's REST API; again if its SQLite database is locked."""
        for _ in range(8):
            answer = self.http.request(method, path, json=content)
            if answer.status_code < 500:
                assert answer.status_code < 400, answer.text
                return answer.json()
            time.sleep(1)
        raise AssertionError(f"{method} {path}: {answer.text}")

    def unpause(self, *dag_ids: str) -> None:
        for dag_id in dag_ids:
            self.call("PATCH", f"/dags/{dag_id}", {"is_paused": False})

    def trigger(self, dag_id: str, **conf: Any) -> str:
        made = self.call("POST", f"/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf})
        return str(made["dag_run_id"])

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the DAG runs, oldest first."""
        return list(self.call("GET", f"/dags/{dag_id}/dagRuns?order_by=run_after")["dag_runs"])

    def wait_end(self, dag_id: str, run_id: str, seconds: float = 900) -> str:
        path = f"/dags/{dag_id}/dagRuns/{run_id}"
        wait(lambda: self.call("GET", path)["state"] in ("success", "failed"), seconds, f"the end of {dag_id}")
        return str(self.call("GET", path)["state"])

    def task(self, dag_id: str, run_id: str, task_id: str) -> str | None:
        """Return the state of a task."""
        return self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}")["state"]

    def xcom(self, dag_id: str, run_id: str, task_id: str) -> Any:
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        return self.call("GET", f"{path}?deserialize=true")["value"]


@contextlib.contextmanager
def running_up(home: Path) -> Iterator[Up]:
    """Run ``make up`` in a home of its own, which shares the environments of all tests; stop it all after."""
    CACHE.mkdir(parents=True, exist_ok=True)
    (home / "mlflow_projects_cache").symlink_to(CACHE)
    ports = {"AIRFLOW_PORT": str(free_port()), "MLFLOW_PORT": str(free_port())}
    process = subprocess.Popen(
        [sys.executable, "tools/up.py"], cwd=ROOT, env={**os.environ, "DEMO_HOME": str(home), **ports},
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        printed = ""
        for line in process.stdout:
            printed += line
            if "Ctrl-C" in line:
                break
        login = re.search(r"Airflow +(\S+) +\(user (\S+), password (\S+)\)", printed)
        assert login, printed
        with httpx.Client(base_url=f"{login[1]}/api/v2", timeout=60) as http:
            user = {"username": login[2], "password": login[3]}
            token = http.post(f"{login[1]}/auth/token", json=user).json()["access_token"]
            http.headers["Authorization"] = f"Bearer {token}"
            yield Up(http, f"http://127.0.0.1:{ports['MLFLOW_PORT']}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)


def wait(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(0.5)
