"""``make up`` for tests: a real scheduler and a real MLflow server, driven as a person does, by the REST API."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.conftest import ROOT
from tests.support.cifar10 import CACHE
from tests.support.logs import TASK_LOGS, shown_on_failure
from tests.support.servers import free_port
from tests.support.waiting import PATIENCE, wait


@dataclass(frozen=True)
class Up:
    """A running Airflow with its MLflow server.

    :param process: of ``make up``
    """

    http: httpx.Client
    mlflow_uri: str
    process: subprocess.Popen[str]
    home: Path

    def call(self, method: str, path: str, content: Any = None) -> Any:
        """Call Airflow's REST API; again if its SQLite database is locked."""

        def ask() -> httpx.Response | None:
            answer = self.http.request(method, path, json=content)
            return None if answer.status_code >= 500 else answer

        answer = wait(ask, f"an answer to {method} {path}")
        assert answer.is_success, answer.text
        return answer.json()

    def unpause(self, *dag_ids: str) -> None:
        for dag_id in dag_ids:
            self.call("PATCH", f"/dags/{dag_id}", {"is_paused": False})

    def trigger(self, dag_id: str, **conf: Any) -> str:
        made = self.call("POST", f"/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf})
        return str(made["dag_run_id"])

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the DAG runs, oldest first."""
        return list(self.call("GET", f"/dags/{dag_id}/dagRuns?order_by=run_after")["dag_runs"])

    def wait_end(self, dag_id: str, run_id: str, seconds: float = PATIENCE) -> str:
        def look() -> str | None:
            state = str(self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["state"])
            return state if state in ("success", "failed") else None

        return wait(look, f"the end of {dag_id}", seconds)

    def task(self, dag_id: str, run_id: str, task_id: str) -> str | None:
        """Return the state of a task."""
        return self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}")["state"]

    def xcom(self, dag_id: str, run_id: str, task_id: str) -> Any:
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        return self.call("GET", f"{path}?deserialize=true")["value"]

    def decide(self, dag_id: str, run_id: str, task_id: str, answer: str) -> str:
        """Give a person's answer to a task that asks, as soon as it does; return what it asked."""
        wait(lambda: self.task(dag_id, run_id, task_id) == "awaiting_input", "the question", 900)
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/-1/hitlDetails"
        asked = str(self.call("GET", path)["body"])
        # Airflow 3.3.2 runs the task again if the answer comes before the scheduler heard of the end of its process.
        finished = f"TaskInstance Finished: dag_id={dag_id}, task_id={task_id}, run_id={run_id},"
        log = self.home / "logs" / "scheduler.log"
        wait(lambda: finished in log.read_text(), "the end of the question's process")
        self.call("PATCH", path, {"chosen_options": [answer]})
        return asked


@contextlib.contextmanager
def running_up(home: Path) -> Iterator[Up]:
    """Run ``make up`` in a home, with a tracking server of its own; stop it all after.

    A new home shares the environments of all tests.
    """
    if not (home / "mlflow_projects_cache").exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        (home / "mlflow_projects_cache").symlink_to(CACHE)
    ports = {"AIRFLOW_PORT": str(free_port()), "MLFLOW_PORT": str(free_port())}
    inherited = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    process = subprocess.Popen(
        [sys.executable, "tools/up.py"], cwd=ROOT, env={**inherited, "DEMO_HOME": str(home), **ports},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        with shown_on_failure(home, "logs/*.log", TASK_LOGS):
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
                yield Up(http, f"http://127.0.0.1:{ports['MLFLOW_PORT']}", process, home)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)
