"""Threads, pools and processes of a script, one after the other in this thread: so a recording is always the same.

What would run side by side is noted: a call in one of them waits for none in another.
"""

from __future__ import annotations

import concurrent.futures as cf
import contextlib
import multiprocessing
import multiprocessing.context
import multiprocessing.pool
import multiprocessing.process
import queue
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import process, thread
from typing import Any

from .state import StopScript, recording


class _Done(cf.Future):  # type: ignore[type-arg]
    """What a branch of work returned; whoever asks for it waits for its calls."""

    known: frozenset[str] = frozenset()

    def _join(self) -> None:
        if current := self.known:
            recording().done.update(current)

    def result(self, timeout: float | None = None) -> Any:
        self._join()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._join()
        return super().exception(timeout)

    # of multiprocessing's results
    def get(self, timeout: float | None = None) -> Any:
        return self.result(timeout)

    def wait(self, timeout: float | None = None) -> None:
        self._join()

    def ready(self) -> bool:
        return True

    def successful(self) -> bool:
        return super().exception() is None


def _beside(function: Callable[..., Any], *args: Any, **kwargs: Any) -> _Done:
    future = _Done()
    with recording().branch() as known:
        try:
            future.set_result(function(*args, **kwargs))
        except StopScript:
            raise
        except BaseException as error:
            future.set_exception(error)
    future.known = frozenset(known)
    return future


class Pool:
    """Stands for every kind of pool, of both libraries."""

    def __init__(
        self,
        workers: Any = None,
        prefix_or_context: Any = None,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] = (),
        **_: Any,
    ):
        self._futures: list[_Done] = []
        if initializer:
            initializer(*initargs)

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> _Done:
        self._futures.append(_beside(function, *args, **kwargs))
        return self._futures[-1]

    def map(self, function: Callable[..., Any], *iterables: Iterable[Any], **_: Any) -> _Results:
        return _Results([self.submit(function, *args) for args in zip(*_without_chunk_size(iterables), strict=False)])

    def starmap(
        self, function: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> _Results:
        return _Results([self.submit(function, *args) for args in iterable])

    def apply_async(
        self, function: Callable[..., Any], args: Iterable[Any] = (), kwds: Any = None, callback: Any = None, **_: Any
    ) -> _Done:
        future = self.submit(function, *args, **(kwds or {}))
        if callback and future.successful():
            callback(cf.Future.result(future))
        return future

    def apply(self, function: Callable[..., Any], args: Iterable[Any] = (), kwds: Any = None) -> Any:
        return self.apply_async(function, args, kwds).result()

    def map_async(self, function: Callable[..., Any], iterable: Iterable[Any], *_: Any, **__: Any) -> _Done:
        return _of_all(Pool.map(self, function, iterable).futures)

    def starmap_async(self, function: Callable[..., Any], iterable: Iterable[Any], *_: Any, **__: Any) -> _Done:
        return _of_all(Pool.starmap(self, function, iterable).futures)

    def shutdown(self, wait: bool = True, **_: Any) -> None:
        for future in self._futures if wait else ():
            future._join()

    join = close = terminate = shutdown

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()


class Workers(Pool):
    """``multiprocessing.Pool``, whose ``map`` waits."""

    def __init__(
        self, processes: Any = None, initializer: Any = None, initargs: Iterable[Any] = (), *_: Any, **__: Any
    ):
        super().__init__(processes, None, initializer, initargs)

    def map(self, function: Callable[..., Any], *iterables: Iterable[Any], **_: Any) -> _Results:
        results = super().map(function, *iterables)
        self.shutdown()
        return results

    def starmap(
        self, function: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> _Results:
        results = super().starmap(function, iterable, chunksize)
        self.shutdown()
        return results

    imap = imap_unordered = Pool.map


class _Results(list):  # type: ignore[type-arg]
    """A list (``Pool.map``) and an iterator (``Executor.map``) at once."""

    def __init__(self, futures: list[_Done]) -> None:
        self.futures, self._next = futures, 0
        super().__init__(cf.Future.result(future) for future in futures)

    def __iter__(self) -> Iterator[Any]:
        return iter([future.result() for future in self.futures])

    def __next__(self) -> Any:
        if self._next >= len(self.futures):
            raise StopIteration
        self._next += 1
        return self.futures[self._next - 1].result()


def _of_all(futures: list[_Done]) -> _Done:
    future = _Done()
    future.set_result([cf.Future.result(one) for one in futures])
    future.known = frozenset().union(*(one.known for one in futures))
    return future


def _without_chunk_size(iterables: tuple[Any, ...]) -> list[Iterable[Any]]:
    return [iterable for iterable in iterables if not isinstance(iterable, int | type(None))]


class _Branch:
    """``threading.Thread`` and ``multiprocessing.Process``: what they run is done when they are started."""

    exitcode, pid = 0, 1

    def _begin(self) -> None:
        self._branch = _beside(self.run)  # type: ignore[attr-defined]
        self.exitcode = 0 if self._branch.successful() else 1

    def _merge(self) -> None:
        self._branch._join()


class Manager:
    """``multiprocessing.Manager``: all is done in this process, so plain objects are shared."""

    dict, list, Namespace = dict, list, types.SimpleNamespace
    Queue = JoinableQueue = queue.Queue

    def Value(self, _: Any, value: Any, *__: Any) -> Any:
        return types.SimpleNamespace(value=value)

    def Array(self, _: Any, values: Iterable[Any], *__: Any) -> Any:
        return [*values]

    def __getattr__(self, name: str) -> Any:  # locks, events …
        return getattr(threading, name)

    def __enter__(self) -> Manager:
        return self

    def shutdown(self, *_: object) -> None:
        pass

    start = __exit__ = shutdown


def _is_of_the_script(thread: Any) -> bool:
    """Tell whether the script starts it: threads that libraries keep would never end."""
    return bool(recording().frames()) and not thread.daemon


def install() -> None:
    """Put them in the place of the real ones."""
    for module in (cf, thread, process):
        for name in ("ThreadPoolExecutor", "ProcessPoolExecutor"):
            if hasattr(module, name):
                setattr(module, name, Pool)
    for name in ("Pool", "ThreadPool"):
        setattr(multiprocessing.pool, name, Workers)
    multiprocessing.Pool = Workers  # type: ignore[assignment]
    real_start, real_join = threading.Thread.start, threading.Thread.join
    real_wait, real_as_completed = cf.wait, cf.as_completed

    def start(thread: Any) -> None:
        if not _is_of_the_script(thread):
            real_start(thread)
            return
        thread._branch = _beside(thread.run)

    def join(thread: Any, timeout: float | None = None) -> None:
        if branch := getattr(thread, "_branch", None):
            branch._join()
        else:
            real_join(thread, timeout)

    def wait(fs: Iterable[Any], *args: Any, **kwargs: Any) -> Any:
        fs = list(fs)
        for future in fs:
            with contextlib.suppress(AttributeError):
                future._join()
        return real_wait(fs, *args, **kwargs)

    def as_completed(fs: Iterable[Any], timeout: float | None = None) -> Iterator[Any]:
        # In the order of their beginning, which is the same in every recording.
        futures = list(fs)
        return (
            iter(futures) if all(isinstance(one, _Done) for one in futures) else real_as_completed(futures, timeout)
        )

    threading.Thread.start, threading.Thread.join = start, join  # type: ignore[method-assign,assignment]
    cf.wait, cf.as_completed = wait, as_completed
    cf._base.wait, cf._base.as_completed = wait, as_completed

    class Process(_Branch):
        def __init__(
            self,
            group: Any = None,
            target: Any = None,
            name: Any = None,
            args: Any = (),
            kwargs: Any = None,
            **_: Any,
        ) -> None:
            self._target, self._args, self._kwargs, self.name = target, args, kwargs or {}, name

        def run(self) -> None:
            if self._target:
                self._target(*self._args, **self._kwargs)

        def start(self) -> None:
            self._begin()

        def join(self, timeout: float | None = None) -> None:
            self._merge()

        def is_alive(self) -> bool:
            return False

        terminate = kill = close = is_alive

    context = multiprocessing.context
    contexts = (context.DefaultContext, context.ForkContext, context.SpawnContext, context.ForkServerContext)
    for owner in (multiprocessing, context, *contexts):
        setattr(owner, "Process", Process)  # noqa: B010
    multiprocessing.Manager = Manager  # type: ignore[assignment]
    context.BaseContext.Manager = lambda _: Manager()  # type: ignore[method-assign,assignment,return-value]
