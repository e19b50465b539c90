"""An Airflow and an MLflow as tests see them from outside, wherever their parts run."""

from __future__ import annotations

import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import httpx

ENDED = ("success", "failed")
PATIENCE = 180.0  # seconds: nothing takes that long, but the machine may be busy with others
DagRun = tuple[str, str]


class Process(Protocol):
    """A living process of a step."""

    def cmdline(self) -> list[str]:
        """Return its arguments."""


class Observed(ABC):
    """What faults are done to, and what the invariants are read from.

    :ivar mlflow_uri: where MLflow answers, past whatever the steps have in between
    :ivar with_sagemaker: True if steps may be training jobs
    """

    mlflow_uri: str
    with_sagemaker = False
    _of_thread = threading.local()

    @abstractmethod
    def ask(self, method: str, path: str, content: Any) -> httpx.Response:
        """Send one request to Airflow's REST API, logged in."""

    @abstractmethod
    def processes(self, run_id: str) -> Sequence[Process]:
        """Return the living processes of a DAG run's commands, watchdogs included."""

    def has_process(self, attempt: dict[str, Any]) -> bool:
        """Tell whether the process of a try is seen to live."""
        return False

    @abstractmethod
    def is_up(self) -> bool:
        """Tell whether API server and scheduler answer well."""

    @abstractmethod
    def last_lines(self, dag_runs: Sequence[DagRun] = (), count: int = 15) -> list[str]:
        """Return the ends of the logs of all parts, and of the tasks of some DAG runs."""

    @abstractmethod
    def mend(self, lane: str = "") -> None:
        """Take back what a fault may have left.

        :param lane: that of the fault; another lane's may be at work
        """

    def way(self) -> AbstractContextManager[Any]:
        """Hold a way to the tracking server on which nobody else is."""
        raise NotImplementedError

    def jobs_of(self, run_id: str) -> list[dict[str, Any]]:
        """Return the descriptions of all training jobs of a DAG run."""
        raise NotImplementedError

    def send(self, method: str, path: str, content: Any = None) -> Any:
        """Call Airflow's REST API; again if its database is locked (SQLite under load) or it restarts.

        Also if a clear and the scheduler met in the database, which Airflow tells as a conflict.
        """
        answers: list[httpx.Response] = []

        def ask() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                answers.append(self.ask(method, path, content))
                return answers[-1].status_code < 500 and "Unique constraint" not in answers[-1].text
            return False

        self.wait(ask, f"an answer to {method} {path}")
        assert answers[-1].status_code < 400, answers[-1].text
        return answers[-1].json()

    def get(self, path: str) -> Any:
        return self.send("GET", path)

    def trigger(self, dag_id: str, **conf: Any) -> str:
        made = self.send("POST", f"/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf})
        run_id = str(made["dag_run_id"])
        self._of_thread.triggered = [*self.triggered(), (dag_id, run_id)]
        return run_id

    def triggered(self) -> list[DagRun]:
        """Return the DAG runs that this thread has started since :meth:`forget_triggered`."""
        return list(getattr(self._of_thread, "triggered", ()))

    def forget_triggered(self) -> None:
        self._of_thread.triggered = []

    def clear(self, dag_id: str, run_id: str, **options: object) -> None:
        body = {"dry_run": False, "dag_run_id": run_id, "only_failed": False, "reset_dag_runs": True, **options}
        self.send("POST", f"/dags/{dag_id}/clearTaskInstances", body)

    def dag_run(self, dag_id: str, run_id: str) -> str:
        return str(self.get(f"/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def task(self, dag_id: str, run_id: str, task_id: str = "parent.step") -> dict[str, Any]:
        return dict(self.get(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"))

    def wait_end(self, dag_id: str, run_id: str) -> str:
        try:
            self.wait(lambda: self.dag_run(dag_id, run_id) in ENDED, f"the end of {dag_id} {run_id}", 2 * PATIENCE)
        except AssertionError as error:
            states = ""
            with contextlib.suppress(AssertionError):
                states = self._states(dag_id, run_id)
            raise AssertionError(f"{error}; {states}") from None
        return self.dag_run(dag_id, run_id)

    def _states(self, dag_id: str, run_id: str) -> str:
        tasks = self.get(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
        return ", ".join(f"{task['task_id']} is {task['state']} (try {task['try_number']})" for task in tasks)

    def wait_task(self, dag_id: str, run_id: str, state: str, task_id: str = "parent.step", tries: int = 1) -> None:
        """Wait until a task is in a state in its try of that number."""

        def look() -> bool:
            task = self.task(dag_id, run_id, task_id)
            return bool((task["state"], task["try_number"]) == (state, tries))

        self.wait(look, f"{task_id} of {run_id} to be {state} in try {tries}")

    def wait_command_ended(self, run_id: str) -> None:
        """Wait until nothing is left of the DAG run's commands."""
        self.wait(lambda: not self.processes(run_id), f"the end of the command of {run_id}")

    @staticmethod
    def wait(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {seconds:.0f} s in vain for {what}")
            time.sleep(0.3)

    def runs(self, run_id: str) -> list[Any]:
        """Return the MLflow runs of a DAG run with all that is nested below, oldest first, read past the proxy."""
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=self.mlflow_uri)
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]

        def search(query: str) -> list[Any]:
            return list(
                client.search_runs(experiments, query, order_by=["attributes.start_time ASC"], max_results=500)
            )

        found = search(f"tags.`airflow.run_id` = '{run_id}'")
        known = {run.info.run_id for run in found}
        for run in found:
            if run.data.tags.get("mlflow_projects.role") == "step":
                nested = search(f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
                found += [child for child in nested if child.info.run_id not in known]
        return found
