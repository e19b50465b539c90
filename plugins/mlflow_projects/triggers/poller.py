"""One loop for all durable jobs of a kind that a triggerer waits for.

A backend is asked about all of them at once, because asking for each job by itself would be throttled.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async

from mlflow_projects.backends.contract import DurableBackend, Handle, Host, News
from mlflow_projects.backends.registry import backend_of, handle_from
from mlflow_projects.hooks.masking import teller

_TROUBLE_EVERY_SECONDS = 60.0
log = logging.getLogger(__name__)


@dataclass
class _Watched:
    handle: Handle
    interval: float
    news: asyncio.Queue[News] = field(default_factory=asyncio.Queue)


class JobPoller:
    """Asks a backend in a loop while at least one job is watched.

    :param clock: seconds since any moment
    """

    # By event loop: a triggerer has one for ever, ``dag.test()`` one for each deferred task.
    _all: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, JobPoller]]] = WeakKeyDictionary()

    def __init__(self, backend: DurableBackend, clock: Callable[[], float] = time.monotonic) -> None:
        self._backend = backend
        self._watched: list[_Watched] = []
        self._trouble_shown = float("-inf")
        self._loop: asyncio.Task[None] | None = None
        self._clock = clock

    @classmethod
    def of(cls, content: Mapping[str, Any], clock: Callable[[], float] = time.monotonic) -> JobPoller:
        """Return the poller of a job's kind for the running event loop.

        :param content: the job's handle, as JSON
        """
        handle = handle_from(content)
        backend = backend_of(handle, Host(teller(log)))
        pollers = cls._all.setdefault(asyncio.get_running_loop(), {})
        return pollers.setdefault((handle.backend, backend.group(handle)), cls(backend, clock))

    @property
    def late_lines_seconds(self) -> float:
        """How long after a job's end lines of its output may come."""
        return self._backend.late_lines_seconds

    @asynccontextmanager
    async def watch(self, content: Mapping[str, Any], interval: float) -> AsyncIterator[asyncio.Queue[News]]:
        """Yield a queue of news of a job.

        :param content: the job's handle, as JSON
        :param interval: seconds between two looks
        """
        watched = _Watched(handle_from(content), interval)
        self._watched.append(watched)
        if self._loop is None or self._loop.done():
            self._loop = asyncio.create_task(self._run())
        try:
            yield watched.news
        finally:
            self._watched.remove(watched)

    async def _run(self) -> None:
        while jobs := list(self._watched):
            handles = [watched.handle for watched in jobs]
            found = await sync_to_async(self._look, thread_sensitive=False)(handles)
            for watched, news in zip(jobs, found, strict=True):
                if news != News():
                    watched.news.put_nowait(news)
            await asyncio.sleep(min((watched.interval for watched in self._watched), default=0))

    def _look(self, handles: Sequence[Handle]) -> Sequence[News]:
        """Ask once; runs in a thread."""
        try:
            found = self._backend.poll_many(handles)
        except Exception as error:  # a trigger that fails would leave its job alone: no connection, for example
            trouble = f"Jobs cannot be asked about, but go on: {type(error).__name__} {error}"
            log.debug("Jobs cannot be asked about:", exc_info=True)
            found = [News(trouble=trouble) for _ in handles]
        if any(news.trouble for news in found):
            if self._clock() - self._trouble_shown < _TROUBLE_EVERY_SECONDS:
                return [replace(news, trouble="") for news in found]
            self._trouble_shown = self._clock()
        return found
