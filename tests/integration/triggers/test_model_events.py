"""The trigger of an asset watcher with a real registry behind a server that can go away."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from airflow.triggers.shared_stream import SharedStreamManager

from mlflow_projects.triggers import model_events
from mlflow_projects.triggers.model_events import MLflowModelTrigger
from tests.support.flaky import FlakyProxy, answer
from tests.support.waiting import wait

pytestmark = pytest.mark.usefixtures("airflow_db")
SECRET = "correct-horse-battery"
INTERVAL = 0.05


@pytest.fixture
def proxy(mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyProxy]:
    monkeypatch.setattr(model_events, "_UNTIL_STORED_SECONDS", 0)
    monkeypatch.setattr(model_events, "_AFTER_REFUSAL_SECONDS", 0.1)
    with FlakyProxy(mlflow_server) as running:
        connection = {"conn_type": "mlflow", "host": running.url, "login": "me", "password": SECRET}
        monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_TEST", json.dumps(connection))
        yield running


@pytest.fixture
def mlflow(mlflow_server: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(mlflow_server)


@pytest.fixture
def name(mlflow: Any) -> str:
    """Make a model with one version, which holds an alias."""
    made = f"Model {uuid.uuid4().hex[:8]}"
    mlflow.create_registered_model(made)
    mlflow.create_model_version(made, "s3://bucket/model")
    mlflow.set_registered_model_alias(made, "champion", "1")
    return made


@asynccontextmanager
async def followed(*triggers: MLflowModelTrigger) -> AsyncIterator[list[dict[str, Any]]]:
    """Let Airflow's own shared streams run triggers; yield the payloads that come."""
    manager, payloads = SharedStreamManager(), list[dict[str, Any]]()

    async def follow(number: int, trigger: MLflowModelTrigger) -> None:
        key = trigger.shared_stream_key()
        assert key is not None
        stream = manager.subscribe(trigger_id=number, trigger=trigger, key=key)
        async for event in trigger.filter_shared_stream(stream):
            payloads.append(event.payload)

    following = [asyncio.create_task(follow(*numbered)) for numbered in enumerate(triggers)]
    try:
        yield payloads
    finally:
        for task in following:
            task.cancel()
        await manager.stop_all()


async def until(condition: Callable[[], object], what: str) -> None:
    await asyncio.to_thread(wait, condition, what)


async def looked(proxy: FlakyProxy, times: int = 2) -> None:
    """Wait until a look that began later is over."""
    begun = proxy.requests.count("registered-models/search")
    await until(lambda: proxy.requests.count("registered-models/search") > begun + times, "more looks")


def watcher(name: str, **arguments: Any) -> MLflowModelTrigger:
    return MLflowModelTrigger(name, poll_interval=INTERVAL, mlflow_conn_id="mlflow_test", **arguments)


def test_each_kind_of_event_comes_with_its_facts(proxy: FlakyProxy, mlflow: Any, name: str) -> None:
    async def scenario() -> list[dict[str, Any]]:
        events = ("new_version", "alias_moved", "tag_set")
        async with followed(watcher(name, events=events, tag="good enough")) as payloads:
            await looked(proxy)
            for step in (
                lambda: mlflow.create_model_version(name, "s3://bucket/model", run_id="0" * 32),
                lambda: mlflow.set_model_version_tag(name, "1", "good enough", "yes"),
                lambda: mlflow.set_registered_model_alias(name, "champion", "2"),
                lambda: mlflow.set_registered_model_alias(name, "champion", "1"),
            ):
                count = len(payloads)
                await asyncio.to_thread(step)
                await until(lambda count=count: len(payloads) > count, "an event")
            await looked(proxy)
            return payloads

    payloads = asyncio.run(scenario())
    facts = [(one["event"], one["version"], one["run_id"], one["alias"], one["value"]) for one in payloads]
    assert facts == [
        ("new_version", 2, "0" * 32, None, None),
        ("tag_set", 1, "", None, "yes"),
        ("alias_moved", 2, "0" * 32, "champion", None),
        ("alias_moved", 1, "", "champion", None),
    ]
    assert SECRET not in str(payloads)


def test_two_triggers_of_one_registry_make_one_request_a_look(
    proxy: FlakyProxy, mlflow: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = 0
    original = model_events.look

    def counted(*arguments: Any) -> Any:
        nonlocal rounds
        rounds += 1
        return original(*arguments)

    async def scenario() -> list[dict[str, Any]]:
        async with followed(watcher(name), watcher("no such model", alias="champion")) as payloads:
            await looked(proxy, 5)
            assert proxy.requests.count("registered-models/search") - rounds in (0, -1)  # it may be on its way
            await asyncio.to_thread(mlflow.create_model_version, name, "s3://bucket/model")
            await until(lambda: payloads, "the event")
            return payloads

    monkeypatch.setattr(model_events, "look", counted)
    assert [payload["version"] for payload in asyncio.run(scenario())] == [2]
    assert set(proxy.requests) == {"registered-models/search"}


def test_what_happens_while_the_server_is_away_or_refuses_is_told_when_it_is_back(
    proxy: FlakyProxy, mlflow: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> list[dict[str, Any]]:
        async with followed(watcher(name, alias="champion")) as payloads:
            await looked(proxy)
            proxy.faults["registered-models/search"] = [answer(401), answer(503)]
            await asyncio.to_thread(mlflow.create_model_version, name, "s3://bucket/model")
            proxy.down = True
            await asyncio.to_thread(mlflow.set_registered_model_alias, name, "champion", "2")
            await looked(proxy, 1)
            assert payloads == []
            proxy.down = False
            await until(lambda: payloads, "the event")
            return payloads

    assert [payload["version"] for payload in asyncio.run(scenario())] == [2]
    assert "answers again" in caplog.text
    assert SECRET not in caplog.text
