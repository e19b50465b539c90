"""The closing that a triggerer does goes on until it is done, whatever the tracking server does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import pytest

from mlflow_projects.exceptions import TrackingUnavailableError
from mlflow_projects.tracking.client import Run, now
from mlflow_projects.tracking.ended_dag_run import EndedDagRun
from mlflow_projects.triggers import closing
from tests.support.memory_tracking import MemoryClient
from tests.support.tracked import CONNECTION, connected

LATE = [20, 60]
ENDED = EndedDagRun("dag", "r1", "failed", "KILLED", "out of time", None)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> MemoryClient:
    return connected(monkeypatch)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the pauses between the tries, which take no time."""
    taken: list[float] = []

    async def pause(seconds: float) -> None:
        taken.append(seconds)

    monkeypatch.setattr(closing.asyncio, "sleep", pause)
    monkeypatch.setattr(closing.random, "uniform", lambda _, most: most)
    return taken


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "_LEAST_PATIENCE_SECONDS", 0)


@pytest.fixture
def dag_run(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what Airflow says of the DAG run when a trigger asks."""
    told = {"count": 1, "state": "failed"}
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    monkeypatch.setattr(RuntimeTaskInstance, "get_dr_count", lambda *_, **__: told["count"])
    monkeypatch.setattr(RuntimeTaskInstance, "get_dagrun_state", lambda *_: told["state"])
    return told


def parent(client: MemoryClient) -> Run:
    own = {"airflow.dag_id": "dag", "airflow.run_id": "r1", "airflow.task_id": "g.start_run"}
    return client.create_run("0", "parent", now(), {**own, "mlflow_projects.role": "parent"})


def close(*conn_ids: str, until: float | None = None) -> str:
    until = time.time() + 3600 if until is None else until
    return asyncio.run(closing.close_runs_of_dag_run(asdict(ENDED), conn_ids or (CONNECTION,), until))


@pytest.mark.usefixtures("dag_run")
def test_the_runs_are_closed(client: MemoryClient, pauses: list[float]) -> None:
    run = parent(client)
    assert close() == "1 run(s) of dag r1 closed"
    assert pauses == LATE
    assert client.get_run(run.run_id).status == "KILLED"
    assert (client.settings.timeout, client.settings.max_retries) == (10.0, 2)


@pytest.mark.usefixtures("dag_run")
def test_it_is_tried_again_with_growing_pauses_until_the_server_is_back(
    client: MemoryClient, pauses: list[float]
) -> None:
    run = parent(client)

    def away(method: str, _: Any) -> None:
        if len(pauses) < 9:
            raise TrackingUnavailableError(f"{method}: no answer")

    client.before = away
    close()
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60, *LATE]
    assert client.get_run(run.run_id).status == "KILLED"


@pytest.mark.usefixtures("dag_run")
def test_a_run_that_was_opened_too_late_is_closed_too(client: MemoryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    late: list[Run] = []

    async def pause(_: float) -> None:
        late.append(parent(client))

    monkeypatch.setattr(closing.asyncio, "sleep", pause)
    assert close() == "2 run(s) of dag r1 closed"
    assert {client.get_run(run.run_id).status for run in late} == {"KILLED"}


@pytest.mark.usefixtures("dag_run", "pauses")
def test_what_its_own_tasks_ended_needs_one_late_look(client: MemoryClient, pauses: list[float]) -> None:
    parent(client)
    ended = {**asdict(ENDED), "groups": {}}
    asyncio.run(closing.close_runs_of_dag_run(ended, [CONNECTION], time.time() + 3600))
    assert pauses == LATE[:1]


@pytest.mark.usefixtures("dag_run")
def test_an_airflow_that_was_off_for_days_waits_for_its_server_too(client: MemoryClient, pauses: list[float]) -> None:
    run = parent(client)

    def away(*_: Any) -> None:
        if len(pauses) < 3:
            raise TrackingUnavailableError("not started yet")

    client.before = away
    close(until=time.time() - 48 * 3600)
    assert pauses == [1, 2, 4, *LATE]
    assert client.get_run(run.run_id).status == "KILLED"


@pytest.mark.usefixtures("dag_run", "pauses", "no_patience")
def test_it_is_given_up_at_last(client: MemoryClient) -> None:
    def away(*_: Any) -> None:
        raise TrackingUnavailableError("away for ever")

    client.before = away
    with pytest.raises(TrackingUnavailableError, match="away for ever"):
        close(until=time.time() - 1)


@pytest.mark.usefixtures("pauses")
@pytest.mark.parametrize(
    ("count", "state", "status"),
    [(1, "running", "RUNNING"), (1, "success", "RUNNING"), (1, "failed", "KILLED"), (0, "", "KILLED")],
)
def test_a_dag_run_that_runs_again_is_left_alone(
    client: MemoryClient, dag_run: dict[str, Any], count: int, state: str, status: str
) -> None:
    run = parent(client)
    dag_run.update(count=count, state=state)
    close()
    assert client.get_run(run.run_id).status == status


@pytest.mark.usefixtures("dag_run", "pauses", "no_patience")
def test_a_server_that_is_not_there_does_not_keep_anothers_runs_open(client: MemoryClient) -> None:
    run = parent(client)
    with pytest.raises(Exception, match="no_such_connection"):
        close("no_such_connection", CONNECTION, until=0.0)
    assert client.get_run(run.run_id).status == "KILLED"


class _OthersFirst:
    def __await__(self) -> Iterator[None]:
        yield


@pytest.mark.usefixtures("pauses")
def test_two_ends_of_a_dag_run_are_closed_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may have waited for the same server, and mix a reason and a status."""
    at_work: list[str] = []
    most: dict[str, int] = {}

    async def work(ended: EndedDagRun, *_: Any) -> int:
        at_work.append(ended.run_id)
        most[ended.run_id] = max(most.get(ended.run_id, 0), at_work.count(ended.run_id))
        most["all"] = max(most.get("all", 0), len(at_work))
        for _ in range(5):
            await _OthersFirst()
        at_work.remove(ended.run_id)
        return 1

    async def all_at_once() -> None:
        ends = [asdict(replace(ENDED, run_id=run_id)) for run_id in ("r1", "r1", "r2")]
        await asyncio.gather(*(closing.close_runs_of_dag_run(end, [CONNECTION], time.time()) for end in ends))

    monkeypatch.setattr(closing, "sync_to_async", lambda *_, **__: work)
    asyncio.run(all_at_once())
    assert most == {"r1": 1, "r2": 1, "all": 2}


@pytest.mark.usefixtures("dag_run")
def test_whoever_stops_the_triggerer_is_heard(client: MemoryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def stopped(_: float) -> None:
        raise asyncio.CancelledError

    def away(*_: Any) -> None:
        raise TrackingUnavailableError("away")

    client.before = away
    monkeypatch.setattr(closing.asyncio, "sleep", stopped)
    with pytest.raises(asyncio.CancelledError):
        close()
