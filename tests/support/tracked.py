"""What Airflow and a tracking server are to an operator, as plain objects: no process of either runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.definitions._internal.types import NOTSET

from mlflow_projects.tracking.server import TrackingSettings
from tests.support.memory_tracking import MemoryClient

# An Airflow connection that leads to the client of ``connected``; another one leads nowhere.
CONNECTION = "tracking_of_the_test"
URI = "http://tracking.test"


def connected(monkeypatch: pytest.MonkeyPatch, uri: str = URI) -> MemoryClient:
    """Return a client that operators, hooks and listeners reach through the connection, and no other way."""
    client = MemoryClient(uri)

    def connect(settings: TrackingSettings) -> MemoryClient:
        assert settings.uri == uri, settings.uri
        client.settings = settings
        return client

    monkeypatch.setenv(f"AIRFLOW_CONN_{CONNECTION.upper()}", f'{{"conn_type": "mlflow", "host": "{uri}"}}')
    monkeypatch.setattr("mlflow_projects.tracking.connect.connect", connect)
    return client


def written(client: MemoryClient) -> list[tuple[Any, ...]]:
    """Return a list that grows by what is written from now on: (name of the run, tags or status)."""
    writes: list[tuple[Any, ...]] = []

    def note(method: str, arguments: tuple[Any, ...]) -> None:
        if method == "create_run":
            writes.append((arguments[1], "created"))
        elif method == "update_run":
            writes.append((client.get_run(arguments[0]).name, arguments[1]))
        elif method == "log_batch":
            run_id, params, tags, metrics = arguments
            parts = {"params": params, "tags": tags, "metrics": metrics}
            writes.append((client.get_run(run_id).name, {name: part for name, part in parts.items() if part}))

    client.before = note
    return writes


class Store(dict[str, Any]):
    """Airflow's task state store, of one task."""

    def set(self, key: str, value: Any) -> None:
        self[key] = value


@dataclass
class TaskInstance:
    """What our operators ask of Airflow's task instance, and through it of the DAG run.

    :param states: of tasks of the DAG run, by (task id, map index)
    :param returned: XComs of tasks, by (task id, map index)
    :param dag_runs: states, by (DAG id, run id)
    :param pushed: XComs that the task itself wrote, by key
    :param store: what tries of the task leave for later ones
    """

    task_id: str
    dag_id: str = "dag"
    run_id: str = "manual__1"
    map_index: int | None = -1
    try_number: int = 1
    max_tries: int = 0
    states: dict[tuple[str, int], str | None] = field(default_factory=dict)
    returned: dict[tuple[str, int], Any] = field(default_factory=dict)
    dag_runs: dict[tuple[str, str], str] = field(default_factory=dict)
    pushed: dict[str, Any] = field(default_factory=dict)
    store: Store = field(default_factory=Store)
    task: Any = None

    @property
    def id(self) -> str:
        return f"{self.run_id} {self.task_id} {self.map_index} {self.try_number}"

    @property
    def log_url(self) -> str:
        return f"http://airflow.test/dags/{self.dag_id}/runs/{self.run_id}/tasks/{self.task_id}"

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value

    @property
    def _upstream_map_indexes(self) -> dict[str, int | None]:
        """What Airflow says of tasks in the same mapped group: this task's own index counts."""
        return {task_id: self.map_index for task_id, index in self.returned if index >= 0}

    def xcom_pull(
        self, task_ids: str, key: str = "return_value", default: Any = None, map_indexes: Any = NOTSET
    ) -> Any:
        """Return as Airflow does: without an index one value, or a list where there is not just one."""
        assert key == "return_value", key
        if map_indexes is NOTSET:
            found = [value for (task_id, _), value in self.returned.items() if task_id == task_ids]
            return found[0] if len(found) == 1 else found
        return self.returned.get((task_ids, -1 if map_indexes is None else map_indexes), default)

    def get_task_breadcrumbs(self, dag_id: str, run_id: str) -> Iterable[dict[str, Any]]:
        assert (dag_id, run_id) == (self.dag_id, self.run_id)
        for (task_id, map_index), state in self.states.items():
            yield {"task_id": task_id, "map_index": map_index, "state": state, "operator": "X", "duration": 1.0}

    def get_task_states(
        self, dag_id: str, map_index: int | None = None, *, task_ids: list[str], run_ids: list[str]
    ) -> dict[str, dict[str, str | None]]:
        """Return states by run id and by "task", or "task_3" for one of index 3; nothing of what is not known."""
        if (dag_id, run_ids) != (self.dag_id, [self.run_id]):
            return {}
        [task_id] = task_ids
        key = task_id, -1 if map_index is None else map_index
        name = task_id if map_index is None else f"{task_id}_{map_index}"
        return {self.run_id: {name: self.states[key]}} if key in self.states else {}

    def get_dagrun_state(self, dag_id: str, run_id: str) -> str:
        return self.dag_runs[dag_id, run_id]

    def get_dr_count(self, dag_id: str, *, run_ids: list[str]) -> int:
        return sum((dag_id, run_id) in self.dag_runs for run_id in run_ids)


def context_of(dag: DAG, ti: TaskInstance, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return as much of a task's context as our operators read."""
    ti.dag_runs.setdefault((ti.dag_id, ti.run_id), "running")
    return {"ti": ti, "params": params or {}, "dag": dag, "task_state_store": ti.store}


def prepared(operator: Any, context: Any) -> Any:
    """Return an operator as a task process executes it, its templates rendered."""
    task = operator.prepare_for_execution()
    task.render_template_fields(context)
    return task


def running(operator: Any, ti: TaskInstance, params: Mapping[str, Any] | None = None) -> Any:
    """Return what the task's ``execute`` returns."""
    context = context_of(operator.dag, ti, params)
    return prepared(operator, context).execute(context)


def at(ti: TaskInstance, **changes: Any) -> TaskInstance:
    """Return another task instance of the same DAG run, which sees the same states and XComs."""
    return replace(ti, pushed={}, **changes)
