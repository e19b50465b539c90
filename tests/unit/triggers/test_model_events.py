"""The trigger of an asset watcher: one question for all, no event lost or old, through trouble, without secrets."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from airflow.triggers.shared_stream import SharedStreamManager

from mlflow_projects.exceptions import ProjectError, TrackingError, TrackingUnavailableError
from mlflow_projects.tracking.model_events import look
from mlflow_projects.tracking.registry import ModelSource
from mlflow_projects.triggers import model_events
from mlflow_projects.triggers.model_events import MLflowModelTrigger
from tests.support.memory_tracking import MemoryClient
from tests.support.tracked import CONNECTION, Store, connected


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> MemoryClient:
    made = connected(monkeypatch)
    for name in ("Wine", "Beer"):
        made.ensure_model(name)
        add(made, name)
    made.calls.clear()
    return made


def add(client: MemoryClient, name: str = "Wine") -> None:
    client.create_version(name, ModelSource("s3://bucket/model"), f"run of {name}", {}, "")


def watcher(name: str = "Wine", **arguments: Any) -> MLflowModelTrigger:
    return MLflowModelTrigger(name, mlflow_conn_id=CONNECTION, **arguments)


class Pauses:
    """The pauses of the looks, each of which lasts until the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.taken: list[float] = []
        self._begun, self._over = asyncio.Queue[None](), asyncio.Queue[None]()

        async def sleep(seconds: float) -> None:
            if seconds != model_events._UNTIL_STORED_SECONDS:
                self.taken.append(seconds)
                self._begun.put_nowait(None)
                await self._over.get()

        monkeypatch.setattr(model_events.asyncio, "sleep", sleep)

    async def begun(self) -> None:
        await asyncio.wait_for(self._begun.get(), 60)

    async def end(self) -> None:
        """End a pause, and wait for the next one."""
        self._over.put_nowait(None)
        await self.begun()


def told(payload: Any) -> tuple[Any, ...]:
    return payload["event"], payload["name"], payload["version"], payload["run_id"], payload["alias"]


def filtered(
    client: MemoryClient, trigger: MLflowModelTrigger, steps: Sequence[Callable[[], object]]
) -> list[tuple[Any, ...]]:
    """Return the events of looks before and after each of some steps."""

    async def looks() -> AsyncIterator[Any]:
        registry = model_events._Registry(CONNECTION)
        for step in (lambda: None, *steps):
            step()
            yield model_events._Look(look(client, [trigger.watch]), registry)

    async def events() -> list[Any]:
        return [told(event.payload) async for event in trigger.filter_shared_stream(looks())]

    return asyncio.run(events())


@pytest.fixture(autouse=True)
def _events_are_stored_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_events, "_UNTIL_STORED_SECONDS", 0)


def test_all_of_a_connection_and_interval_ask_once(client: MemoryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> tuple[list[Any], list[str]]:
        pauses, manager, got = Pauses(monkeypatch), SharedStreamManager(), list[Any]()

        async def follow(number: int, trigger: MLflowModelTrigger) -> None:
            key = trigger.shared_stream_key()
            assert key is not None
            stream = manager.subscribe(trigger_id=number, trigger=trigger, key=key)
            async for event in trigger.filter_shared_stream(stream):
                got.append((number, *told(event.payload)))

        triggers = [watcher(), watcher(alias="champion"), watcher("Beer"), watcher("Beer", alias="champion")]
        following = [asyncio.create_task(follow(*numbered)) for numbered in enumerate(triggers)]
        await pauses.begun()
        await pauses.end()
        add(client)
        client.set_alias("Beer", "champion", 1)
        client.calls.clear()
        for _ in range(3):
            await pauses.end()
        calls = [*client.calls]
        for task in following:
            task.cancel()
        await manager.stop_all()
        assert set(pauses.taken) == {60.0}
        return got, calls

    got, calls = asyncio.run(scenario())
    wine = (0, "new_version", "Wine", 2, "run of Wine", None)
    beer = (3, "alias_moved", "Beer", 1, "run of Beer", "champion")
    assert sorted(got) == [wine, beer]
    assert calls == ["search_models"] * 3
    assert model_events.MLflowModelTrigger._joined["mlflow", CONNECTION, 60.0] == []


def test_others_ask_by_themselves() -> None:
    assert watcher().shared_stream_key() == watcher("Beer", tag="x").shared_stream_key()
    others = [watcher(), watcher(poll_interval=5), MLflowModelTrigger("Wine")]
    assert len({other.shared_stream_key() for other in others}) == 3
    assert watcher(poll_interval=None).shared_stream_key() is None


def test_a_roll_back_is_an_event_with_the_run_of_the_older_version(client: MemoryClient) -> None:
    add(client)
    client.set_alias("Wine", "champion", 2)
    steps = [lambda: client.set_alias("Wine", "champion", 1), lambda: client.set_alias("Wine", "champion", 2)]
    moved = [("alias_moved", "Wine", version, "run of Wine", "champion") for version in (1, 2)]
    assert filtered(client, watcher(alias="champion"), steps) == moved


def test_what_happens_while_the_triggerer_is_away_is_told_later_and_once(client: MemoryClient) -> None:
    store = Store()
    for interval in (60, 5):
        trigger = watcher(poll_interval=interval)
        trigger.asset_state_store = store  # type: ignore[assignment]
        expected = [("new_version", "Wine", number, "run of Wine", None) for number in (2, 3)] if store else []
        assert filtered(client, trigger, []) == expected
        if not expected:
            add(client)
            add(client)
    assert len(store) == 1
    assert filtered(client, trigger, []) == []
    other = watcher(events="alias_moved")
    other.asset_state_store = store  # type: ignore[assignment]
    assert filtered(client, other, []) == []
    assert len(store) == 2


class Counting(Store):
    """A store that knows how often it was written."""

    writes = 0

    def set(self, key: str, value: Any) -> None:
        self.writes += 1
        super().set(key, value)


def test_what_was_seen_is_written_when_it_changes(client: MemoryClient) -> None:
    trigger, store = watcher(), Counting()
    trigger.asset_state_store = store  # type: ignore[assignment]
    filtered(client, trigger, [lambda: None, lambda: add(client), lambda: None])
    assert store.writes == 2


class Shared(Store):
    """The store of two assets, which Airflow does not tell apart."""

    def set(self, key: str, value: Any) -> None:
        raise ValueError("Task has 2 concrete inlets and outlets")

    get = set  # type: ignore[assignment]


class Broken(Store):
    """A store that cannot be reached at first."""

    failures = 3

    def get(self, key: str, default: Any = None) -> Any:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("the API server is away")
        return super().get(key, default)

    def set(self, key: str, value: Any) -> None:
        self.get(key)  # fails as well
        self[key] = value


def test_a_trigger_without_a_store_tells_what_happens_from_now_on(
    client: MemoryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(model_events.asyncio, "sleep", sleep)
    for store in (None, Shared()):
        trigger = watcher()
        trigger.asset_state_store = store  # type: ignore[assignment]
        assert [event[0] for event in filtered(client, trigger, [lambda: add(client)])] == ["new_version"]
    assert set(pauses) == {0}  # after the events


def test_a_store_that_is_away_is_asked_again(client: MemoryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(model_events.asyncio, "sleep", sleep)
    first, second = watcher(), watcher()
    store = Broken()
    first.asset_state_store = second.asset_state_store = store  # type: ignore[assignment]
    assert filtered(client, first, []) == []
    assert pauses == [1, 2, 4]
    add(client)
    store.failures = 2
    assert [event[2] for event in filtered(client, second, [lambda: None])] == [2]

    def begin() -> None:
        add(client)
        store.failures = 1

    assert [event[2] for event in filtered(client, second, [begin, lambda: None])] == [3]  # written at the next look
    assert [kept["version"] for kept in store.values()] == [3]


def test_an_event_whose_facts_cannot_be_read_comes_at_the_next_look(client: MemoryClient) -> None:
    add(client)

    def refuse(method: str, _: Any) -> None:
        if method == "model_version":
            raise TrackingError("not now")

    def move() -> None:
        client.before = refuse
        client.set_alias("Wine", "champion", 1)

    def mend() -> None:
        client.before = lambda method, arguments: None

    moved = ("alias_moved", "Wine", 1, "run of Wine", "champion")
    assert filtered(client, watcher(alias="champion"), [move]) == []
    assert filtered(client, watcher(alias="another"), [move, mend]) == []
    client.set_alias("Wine", "champion", 2)
    mend()
    assert filtered(client, watcher(alias="champion"), [move, mend, lambda: None]) == [moved]


def test_a_version_is_told_when_it_is_ready(client: MemoryClient) -> None:
    def become(status: str) -> None:
        from dataclasses import replace

        client._change_version("Wine", 2, lambda one: replace(one, status=status))

    def begin() -> None:
        add(client)
        become("PENDING_REGISTRATION")
        add(client)

    steps = [begin, lambda: None, lambda: become("READY"), lambda: None]
    assert [event[2] for event in filtered(client, watcher(), steps)] == [3, 2]
    failing = [begin, lambda: become("FAILED_REGISTRATION"), lambda: become("READY")]
    client._versions["Wine"] = client._versions["Wine"][:1]
    assert [event[2] for event in filtered(client, watcher(), failing)] == [3]


def trouble(error: Exception, times: int) -> Callable[[str, Any], None]:
    left = iter(range(times))

    def before(method: str, _: Any) -> None:
        if next(left, None) is not None:
            raise error

    return before


@pytest.mark.parametrize(
    ("error", "pauses"),
    [
        (
            TrackingUnavailableError("The server at http://me:hunter2-secret@host is away."),
            [1, 2, 4, 8, 16, 32, 60, 60],
        ),
        (TrackingError("The server refuses the password.", "PERMISSION_DENIED"), [300] * 8),
        (RuntimeError("what nobody thought of: http://me:hunter2-secret@host"), [300] * 8),
    ],
)
def test_trouble_is_waited_out_and_told_once_a_minute(
    client: MemoryClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    pauses: list[float],
) -> None:
    clock = [0.0]
    taken: list[float] = []

    async def sleep(seconds: float) -> None:
        taken.append(seconds)
        clock[0] += 10

    monkeypatch.setattr(model_events.asyncio, "sleep", sleep)
    monkeypatch.setattr(model_events.time, "monotonic", lambda: clock[0])
    client.before = trouble(error, 8)

    async def first() -> None:
        stream = MLflowModelTrigger.open_shared_stream(watcher(poll_interval=30).serialize()[1])
        await anext(stream)
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(first())
    assert taken == [*pauses, 30]
    assert client.calls.count("close") == 9  # the connection may have been mended
    lines = [record.message for record in caplog.records if record.name == model_events.__name__]
    assert [line.partition(" is asked")[0] for line in lines[:2]] == ["The model registry"] * 2  # 80 s
    assert lines[2:] == [f"The model registry of connection {CONNECTION} answers again."]
    assert "hunter2-secret" not in caplog.text


def test_a_connection_that_is_missing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[float] = []

    async def sleep(seconds: float) -> None:
        taken.append(seconds)
        if len(taken) == 2:
            connected(monkeypatch)

    monkeypatch.setattr(model_events.asyncio, "sleep", sleep)
    kwargs = MLflowModelTrigger("Wine", mlflow_conn_id=CONNECTION).serialize()[1]

    async def first() -> None:
        async with contextlib.aclosing(MLflowModelTrigger.open_shared_stream(kwargs)) as stream:  # type: ignore[type-var]
            await anext(stream)

    asyncio.run(first())
    assert taken == [300, 300]


def test_only_ids_are_serialized() -> None:
    trigger = MLflowModelTrigger("Wine", alias="champion", tag="good", poll_interval=5, mlflow_conn_id="other")
    path, arguments = trigger.serialize()
    assert path == f"{MLflowModelTrigger.__module__}.{MLflowModelTrigger.__qualname__}"
    assert arguments == {
        "name": "Wine", "events": ["alias_moved", "tag_set"], "alias": "champion", "tag": "good", "poll_interval": 5,
        "mlflow_conn_id": "other",
    }  # fmt: skip
    assert MLflowModelTrigger(**json.loads(json.dumps(arguments))).serialize() == (path, arguments)


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf"), "60"])
def test_an_interval_is_some_seconds(interval: Any) -> None:
    with pytest.raises(ProjectError, match="poll_interval must be a number of seconds or None"):
        watcher(poll_interval=interval)


def test_a_trigger_alone_looks_by_itself(client: MemoryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(seconds: float) -> None:
        if seconds:
            add(client)

    monkeypatch.setattr(model_events.asyncio, "sleep", sleep)

    async def first(trigger: MLflowModelTrigger) -> Any:
        return await asyncio.wait_for(anext(trigger.run()), 60)  # type: ignore[arg-type]

    assert asyncio.run(first(watcher())).payload["version"] == 2


def test_a_trigger_that_is_told_by_webhook_asks_nothing(client: MemoryClient) -> None:
    async def scenario() -> None:
        waiting = asyncio.ensure_future(anext(watcher(poll_interval=None).run()))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()

    asyncio.run(scenario())
    assert client.calls == []
