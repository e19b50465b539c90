"""Start DAGs by what happens to a registered model: the trigger of an ``AssetWatcher``."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.triggers.base import BaseEventTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from mlflow_projects.exceptions import ProjectError, TrackingUnavailableError
from mlflow_projects.tracking.model_events import (
    NEW_VERSION,
    ModelChange,
    ModelMemory,
    ModelWatch,
    RegistryLook,
    look,
)
from mlflow_projects.tracking.registry import READY

if TYPE_CHECKING:
    from mlflow_projects.tracking.client import TrackingClient
    from mlflow_projects.tracking.registry import ModelVersion

_TROUBLE_EVERY_SECONDS = 60.0
_AFTER_REFUSAL_SECONDS = 300.0
# Airflow puts an event into its database a second or two after it was fired.
_UNTIL_STORED_SECONDS = 5.0
_TRIES_TO_REMEMBER = 6
log = logging.getLogger(__name__)


class MLflowModelTrigger(BaseEventTrigger):
    """Fires when a registered model gets a version, an alias moves, or a tag of a version is set.

    The payload, which a DAG reads as ``extra["payload"]`` of the asset's event, is ``{"event", "name", "version",
    "run_id", "uri", "alias", "tag", "value", "mlflow_conn_id"}``.

    All triggers of one connection and interval ask the registry together: once for the models, and once more for
    each tag. What was there at the first look fires nothing. What was seen is kept in Airflow's asset store, so
    what happens while the triggerer is away fires when it is back (of each kind the newest 20); it may fire twice
    if the triggerer ends within five seconds after the event. Two assets with the very same trigger share one, for
    which Airflow keeps nothing: then a triggerer's start is a first look. What changes and changes back between two
    looks is not seen.

    A server that is away, or refuses the login, is asked again until it answers; the log says so once a minute.

    :param name: the registered model, which need not exist yet
    :param events: some of ``new_version``, ``alias_moved``, ``tag_set``; default: what ``alias`` and ``tag`` are
        about, without both ``new_version``
    :param alias: only this alias; default: each
    :param tag: key of the tag, needed for ``tag_set``
    :param poll_interval: seconds between two looks; None: do not look, the events come by MLflow's webhook
    :param mlflow_conn_id: Airflow connection to the tracking server
    :raises ProjectError: an argument is wrong
    """

    _joined: ClassVar[defaultdict[Hashable, list[MLflowModelTrigger]]] = defaultdict(list)

    def __init__(
        self,
        name: str,
        events: Sequence[str] | str = (),
        alias: str | None = None,
        tag: str | None = None,
        poll_interval: float | None = 60.0,
        mlflow_conn_id: str = "mlflow_default",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.watch = ModelWatch(name, events, alias, tag)
        if poll_interval is not None and not (
            isinstance(poll_interval, int | float) and 0 < poll_interval < math.inf
        ):
            raise ProjectError(f"poll_interval must be a number of seconds or None, not {poll_interval!r}.")
        self.poll_interval = poll_interval
        self.mlflow_conn_id = mlflow_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what makes this trigger again in a triggerer; the connection's id, never a credential."""
        return (
            "mlflow_projects.triggers.model_events.MLflowModelTrigger",
            {
                **asdict(self.watch),
                "events": list(self.watch.events),
                "poll_interval": self.poll_interval,
                "mlflow_conn_id": self.mlflow_conn_id,
            },
        )

    def shared_stream_key(self) -> Hashable | None:
        """Return the same for all that ask together."""
        return None if self.poll_interval is None else ("mlflow", self.mlflow_conn_id, self.poll_interval)

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[_Look]:
        """Look at the registry in a thread, for ever, for all triggers that have joined."""
        conn_id, interval = kwargs["mlflow_conn_id"], kwargs["poll_interval"]
        joined = cls._joined["mlflow", conn_id, interval]
        registry, tell, pause, told = _Registry(conn_id), _Teller(), 0.0, False
        try:
            while True:
                try:
                    found = await registry.call(lambda client: look(client, [one.watch for one in [*joined]]))
                except TrackingUnavailableError as error:
                    pause = min(max(1.0, 2 * pause), max(interval, 60.0))
                    told = tell(f"The model registry is asked again in {pause:g} s: {error}") or told
                except Exception as error:  # a watcher that ends is not started again
                    pause = max(interval, _AFTER_REFUSAL_SECONDS)
                    told = tell(f"The model registry is asked again in {pause:g} s: {error}") or told
                else:
                    if told:
                        log.info("The model registry of connection %s answers again.", conn_id)
                    pause, told = 0.0, False
                    yield _Look(found, registry)
                await asyncio.sleep(pause or interval)
        finally:
            registry.close()

    async def filter_shared_stream(self, shared_stream: AsyncIterator[_Look]) -> AsyncIterator[TriggerEvent]:
        """Yield an event for each change that this trigger is about."""
        joined, tell = self._joined[self.shared_stream_key()], _Teller()
        joined.append(self)
        try:
            memory = ModelMemory(self.watch, await self._remembered())
            kept: str | None = None
            async for found in shared_stream:
                fired = False
                for change in memory.changes(found.content):
                    try:
                        version = await found.version(change)
                    except Exception as error:  # it is news again at the next look
                        tell(f"{change.event} of {change.name} {change.version} has to wait: {error}")
                        break
                    memory.remember(change, pending=version is not None and version.status.startswith("PENDING"))
                    if version is not None and (version.status == READY or change.event != NEW_VERSION):
                        fired = True
                        yield TriggerEvent(change.told(version, self.mlflow_conn_id))  # type: ignore[no-untyped-call]
                if fired:
                    await asyncio.sleep(_UNTIL_STORED_SECONDS)
                if memory.content and (content := json.dumps(memory.content, sort_keys=True)) != kept:
                    try:
                        await self._store("set", json.loads(content))
                        kept = content
                    except Exception as error:
                        tell(f"What was seen of {self.watch.name} is not kept yet: {error}")
        finally:
            joined.remove(self)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look alone; without an interval, wait for ever."""
        if self.poll_interval is None:
            await asyncio.Event().wait()
        async for event in self.filter_shared_stream(self.open_shared_stream(self.serialize()[1])):
            yield event

    async def _remembered(self) -> Any:
        tell = _Teller()
        for attempt in range(_TRIES_TO_REMEMBER):
            try:
                return await self._store("get", None)
            except Exception as error:  # Airflow's API server is away
                tell(f"What was seen of {self.watch.name} before cannot be read yet: {error}")
                await asyncio.sleep(2.0**attempt)
        return None

    async def _store(self, method: str, value: Any) -> Any:
        """Read or write this trigger's place in Airflow's asset store, if there is one."""
        store = getattr(self, "asset_state_store", None)
        if store is None:
            return None
        watched = json.dumps([asdict(self.watch), self.mlflow_conn_id])  # another interval forgets nothing
        key = f"mlflow_model_{hashlib.sha256(watched.encode()).hexdigest()[:32]}"
        try:
            # In a thread: before Airflow 3.3.2 there are only calls that block.
            return await sync_to_async(getattr(store, method), thread_sensitive=False)(key, value)
        except ValueError:  # several assets share this trigger
            return None


@dataclass
class _Look:
    """A look at a registry, and the versions that were asked for since."""

    content: RegistryLook
    registry: _Registry
    _versions: dict[tuple[str, int], ModelVersion | None] = field(default_factory=dict)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def version(self, change: ModelChange) -> ModelVersion | None:
        """Return the version that a change is about; None if it is gone."""
        model = self.content.models[change.name]
        known = [*model.latest, *self.content.tagged.get(change.tag or "", ())]
        for version in known:
            if (version.name, version.version) == (change.name, change.version):
                return version
        key = change.name, change.version
        async with self._lock:  # of many triggers, one asks
            if key not in self._versions:
                self._versions[key] = await self.registry.call(lambda client: client.model_version(*key))
            return self._versions[key]


class _Registry:
    """A connection that is made anew after each error: by then its login, or its address, may be another."""

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id
        self._client: TrackingClient | None = None

    async def call(self, question: Callable[[TrackingClient], Any]) -> Any:
        return await sync_to_async(self._call, thread_sensitive=False)(question)

    def _call(self, question: Callable[[TrackingClient], Any]) -> Any:
        from mlflow_projects.hooks.mlflow_hook import MLflowHook
        from mlflow_projects.tracking.connect import connect

        try:
            if self._client is None:
                # This loop is the retry; a client that waits by itself would keep one of the triggerer's threads.
                self._client = connect(replace(MLflowHook(self._conn_id).settings, max_retries=0))
            return question(self._client)
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None


class _Teller:
    """Says what is wrong, at most once a minute; to be called where the error is caught."""

    def __init__(self) -> None:
        self._last = float("-inf")

    def __call__(self, sentence: str) -> bool:
        from mlflow_projects.hooks.masking import shown

        if time.monotonic() - self._last < _TROUBLE_EVERY_SECONDS:
            return False
        self._last = time.monotonic()
        log.warning("%s", shown(sentence))
        log.debug("It comes from here:", exc_info=True)
        return True
