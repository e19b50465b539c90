"""How a page waits for a tracking server without holding up Airflow's API server.

That has 40 threads for everything, so a page waits in none of them: it reads in a thread of its own, and only a few
of these ask one server at the same time. A place is free again when its thread has ended, which comes soon after
the page's time is over or its reader is gone: the client hangs up then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakValueDictionary

from mlflow_projects.tracking.patience import in_thread
from mlflow_projects.ui.sources import PageProblem, tracking

if TYPE_CHECKING:
    from fastapi import Request

    from mlflow_projects.tracking.client import TrackingClient

T = TypeVar("T")
PAGE_SECONDS = 15.0  # for one answer of ours, the wait for a place included
PLACES = 4  # of one connection: a server that hangs shuts no tab of another one
_places: WeakValueDictionary[tuple[asyncio.AbstractEventLoop, str], asyncio.Semaphore] = WeakValueDictionary()


async def read(request: Request, conn_id: str, look: Callable[[TrackingClient], T]) -> T:
    """Return what a question to the server of a connection gives.

    :raises PageProblem: the server cannot be read, or not in time
    """
    reading = asyncio.ensure_future(_read_in_place(conn_id, look))
    gone = asyncio.ensure_future(_wait_until_gone(request))
    try:
        await asyncio.wait({reading, gone}, timeout=PAGE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            return reading.result()
    finally:
        reading.cancel()
        gone.cancel()
    raise PageProblem(
        f"MLflow's tracking server (connection {conn_id}) is slow, or many people look at its pages right now. The "
        "runs are safe; try again in a moment."
    )


async def _read_in_place(conn_id: str, look: Callable[[TrackingClient], T]) -> T:
    loop = asyncio.get_running_loop()
    place = _places.setdefault((loop, conn_id), asyncio.Semaphore(PLACES))
    await place.acquire()
    clients: list[TrackingClient] = []
    given_up = False

    def question() -> T:
        with tracking(conn_id) as client:
            clients.append(client)
            if given_up:
                client.abort()
            return look(client)

    def free(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the server has ended
            loop.call_soon_threadsafe(place.release)

    answer = in_thread(question)
    answer.add_done_callback(free)
    try:
        return await asyncio.wrap_future(answer)
    except asyncio.CancelledError:
        given_up = True
        for client in clients:
            client.abort()
        raise


async def _wait_until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
