"""A real Airflow with LocalExecutor: API server, DAG processor and scheduler, each a process of its own."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from benchmarks.memory import noted
from benchmarks.row import NEW_DATABASE, Bench, InvalidRunError, ensure
from tests.support.airflow import end
from tests.support.servers import free_port, wait_until_answers

_START_SECONDS = 180
_RUN_SECONDS = 1800
_POLL_SECONDS = 1.0  # each look takes the API server 15 ms, in which a task on 2 cores is slower


class Scheduler:
    """Triggers DAG runs and tells how long they took; made by :func:`running_scheduler`."""

    def __init__(self, http: httpx.Client, home: Path) -> None:
        self._http, self.home = http, home

    def run(self, dag_id: str, **conf: Any) -> dict[str, Any]:
        """Run a DAG and return ``run_id``, ``seconds`` (wall, of the DAG run) and ``tasks`` (seconds by task).

        :param conf: of the DAG run
        :raises InvalidRunError: it failed, or did not end in time
        """
        body = {"logical_date": None, "conf": conf}
        run_id = str(self._ask("POST", f"/dags/{dag_id}/dagRuns", json=body)["dag_run_id"])
        deadline = time.monotonic() + _RUN_SECONDS
        while (found := self._ask("GET", f"/dags/{dag_id}/dagRuns/{run_id}"))["state"] in ("queued", "running"):
            ensure(time.monotonic() < deadline, f"The DAG run of {dag_id!r} did not end in {_RUN_SECONDS} s.")
            time.sleep(_POLL_SECONDS)
        ensure(found["state"] == "success", f"The DAG run of {dag_id!r} ended as {found['state']}; see {self.home}.")
        listed = self._ask("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=1000")["task_instances"]
        return {
            "run_id": run_id,
            "seconds": _between(found["start_date"], found["end_date"]),
            "tasks": {f"{ti['task_id']}[{ti['map_index']}]": ti["duration"] for ti in listed},
        }

    def get(self, path: str) -> httpx.Response:
        """Ask the API server once, logged in.

        :param path: from the root of the server
        """
        return self._http.get(self._http.base_url.join(path))

    def task_seconds(self, dag_id: str) -> float:
        """Run a DAG and return the seconds of its tasks."""
        return float(sum(self.run(dag_id)["tasks"].values()))

    def memory(self, dag_id: str) -> dict[str, float]:
        """Run a DAG of one task that notes its memory, and return what it noted; see benchmarks/memory.py."""
        return noted(self.home.parent, dag_id, self.run(dag_id)["run_id"])

    def wait_for(self, dag_ids: set[str]) -> None:
        """Wait until DAGs are known."""
        deadline = time.monotonic() + _START_SECONDS
        while not dag_ids <= {dag["dag_id"] for dag in self._ask("GET", "/dags?limit=100")["dags"]}:
            ensure(time.monotonic() < deadline, f"Airflow did not find the DAGs {dag_ids}; see {self.home}.")
            time.sleep(0.5)

    def _ask(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        """Call Airflow's REST API; again if its database is locked."""
        for _ in range(8):
            with contextlib.suppress(httpx.TransportError):
                answer = self._http.request(method, path, **request)
                if answer.status_code < 500:
                    ensure(answer.status_code < 400, f"{method} {path}: {answer.text[:500]}")
                    return dict(answer.json())
            time.sleep(1)
        raise InvalidRunError(f"{method} {path} gets no answer; see {self.home}.")


@contextlib.contextmanager
def running_scheduler(bench: Bench, dag_ids: set[str], slots: int = 2, **variables: str) -> Iterator[Scheduler]:
    """Run Airflow during the block, with nothing in its database but the DAGs of benchmarks/dags.

    :param dag_ids: to wait for
    :param slots: how many tasks run at the same time
    :param variables: for all its processes; without MLFLOW_TRACKING_URI they get the shared tracking server
    """
    home = bench.folder("scheduler")
    shutil.copy(bench.airflow_home / NEW_DATABASE, home / "airflow.db")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = bench.environment(
        AIRFLOW_HOME=str(home),
        AIRFLOW__CORE__EXECUTOR="LocalExecutor",
        AIRFLOW__CORE__PARALLELISM=str(slots),
        AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG="1000",
        AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False",
        AIRFLOW__CORE__EXECUTION_API_SERVER_URL=f"{url}/execution/",
        AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS="True",
        AIRFLOW__API__PORT=str(port),
        AIRFLOW__API__HOST="127.0.0.1",
        AIRFLOW__API__WORKERS="1",
        AIRFLOW__API__BASE_URL=url,
        AIRFLOW__API_AUTH__JWT_SECRET="benchmark-only-secret-that-is-long-enough-for-hs512-signatures-0123456789",
        AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC="1",
        **{"MLFLOW_TRACKING_URI": bench.tracking_uri, **variables},
    )
    with contextlib.ExitStack() as resources:
        for part in ("api-server", "dag-processor", "scheduler"):
            log = resources.enter_context((home / f"{part}.log").open("ab"))
            process = subprocess.Popen(
                [sys.executable, "-m", "airflow", part],
                env=environment, cwd=home, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
            resources.callback(end, process)
            if part == "api-server":
                wait_until_answers(f"{url}/api/v2/monitor/health", process, home / f"{part}.log", _START_SECONDS)
        token = httpx.get(f"{url}/auth/token", follow_redirects=True, timeout=60).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        http = resources.enter_context(httpx.Client(base_url=f"{url}/api/v2", headers=headers, timeout=60))
        scheduler = Scheduler(http, home)
        scheduler.wait_for(dag_ids)
        yield scheduler


def _between(begin: str, end: str) -> float:
    moments = [datetime.fromisoformat(text.replace("Z", "+00:00")) for text in (begin, end)]
    return (moments[1] - moments[0]).total_seconds()
