"""Pages that hang hold up no other page of the API server, and give their places back (issue 22, row 4)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterator

import httpx
import pytest
import uvicorn
from airflow.models.dagrun import DagRun
from airflow.sdk import timezone
from airflow.utils.session import create_session

from mlflow_projects.ui import app as pages
from mlflow_projects.ui import sources, waiting
from tests.support.hostile import Dribble, answer_of, hostile_server
from tests.support.servers import free_port

GOOD = answer_of(b"{}")
THREADS = 40  # that Starlette has for everything
HANGING = 50


class Served:
    """Our pages, as the API server mounts them, beside a route of somebody else that needs a thread."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.all_there = threading.Barrier(THREADS)

    def page(self, http: httpx.AsyncClient) -> Awaitable[httpx.Response]:
        return http.get(f"{self.url}/dags/hanging/run.json", params={"run_id": "r"})


@pytest.fixture
def tracking(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Callable[[socket.socket], None]]]:
    """A tracking server of which a test says how it answers."""
    behaviour: dict[str, Callable[[socket.socket], None]] = {}
    with hostile_server(lambda connection: behaviour["now"](connection)) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        yield behaviour


@pytest.fixture
def served(airflow_db: None) -> Iterator[Served]:
    with create_session() as session:
        now = timezone.utcnow()
        session.query(DagRun).filter_by(dag_id="hanging").delete()
        session.add(DagRun(dag_id="hanging", run_id="r", run_type="manual", state="running", run_after=now))
    app = pages.build_app()
    app.dependency_overrides[pages.router.dependencies[0].dependency] = lambda: None
    port = free_port()
    running = Served(f"http://127.0.0.1:{port}")

    @app.get("/others")
    def needs_a_thread() -> str:
        running.all_there.wait(60)
        return "fine"

    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
        yield running
    finally:
        server.should_exit = True
        thread.join(30)


def test_other_pages_have_every_thread_while_pages_hang(
    served: Served, tracking: dict[str, Callable[[socket.socket], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "PAGE_SECONDS", 600.0)
    monkeypatch.setattr(sources, "_TIMEOUT_SECONDS", 600.0)
    dribble = Dribble(GOOD * 20, pause=0.5)
    tracking["now"] = dribble

    async def look() -> None:
        async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=200)) as people:
            hanging = [asyncio.ensure_future(served.page(people)) for _ in range(HANGING)]
            for _ in range(waiting.PLACES):
                assert await asyncio.to_thread(dribble.begun.acquire, timeout=60)
            others = await asyncio.gather(*(people.get(f"{served.url}/others") for _ in range(THREADS)))
            assert [other.status_code for other in others] == [200] * THREADS
            assert not dribble.begun.acquire(blocking=False), "more read than there are places"
            assert not any(page.done() for page in hanging)
            for page in hanging:
                page.cancel()
            await asyncio.gather(*hanging, return_exceptions=True)
        for _ in range(waiting.PLACES):
            assert await asyncio.to_thread(dribble.hung_up.acquire, timeout=60), "its reader is gone"
        tracking["now"] = lambda connection: connection.sendall(GOOD)
        async with httpx.AsyncClient(timeout=60) as people:
            answers = await asyncio.gather(*(served.page(people) for _ in range(2 * waiting.PLACES)))
        assert [answer.status_code for answer in answers] == [200] * len(answers), "the places are free again"

    asyncio.run(look())


def test_a_page_that_takes_too_long_says_so_and_gives_its_place_back(
    served: Served, tracking: dict[str, Callable[[socket.socket], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "PAGE_SECONDS", 0.5)
    monkeypatch.setattr(sources, "_TIMEOUT_SECONDS", 600.0)
    dribble = Dribble(GOOD * 20, pause=0.5)
    tracking["now"] = dribble

    async def look() -> None:
        async with httpx.AsyncClient(timeout=60) as people:
            answers = await asyncio.gather(*(served.page(people) for _ in range(2 * waiting.PLACES)))
            assert {(one.status_code, "is slow" in one.json()["problem"]) for one in answers} == {(503, True)}
            for _ in range(waiting.PLACES):
                assert await asyncio.to_thread(dribble.hung_up.acquire, timeout=60)
            monkeypatch.setattr(waiting, "PAGE_SECONDS", 60.0)
            tracking["now"] = lambda connection: connection.sendall(GOOD)
            assert (await served.page(people)).status_code == 200

    asyncio.run(look())


def test_a_server_that_hangs_shuts_no_tab_of_another_one(
    served: Served, tracking: dict[str, Callable[[socket.socket], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "PAGE_SECONDS", 600.0)
    tracking["now"] = Dribble(GOOD * 20, pause=0.5)
    other = f"other_{uuid.uuid4().hex}"
    with hostile_server(lambda connection: connection.sendall(GOOD)) as uri:
        monkeypatch.setenv(f"AIRFLOW_CONN_{other.upper()}", f'{{"conn_type": "mlflow", "host": "{uri}"}}')

        async def look() -> None:
            async with httpx.AsyncClient(timeout=60) as people:
                hanging = [asyncio.ensure_future(served.page(people)) for _ in range(2 * waiting.PLACES)]
                for _ in range(waiting.PLACES):
                    assert await asyncio.to_thread(tracking["now"].begun.acquire, timeout=60)  # type: ignore[attr-defined]
                monkeypatch.setattr(pages, "connection_ids", lambda dag_id, run_ids: [other])
                assert (await served.page(people)).status_code == 200
                for page in hanging:
                    page.cancel()

        asyncio.run(look())
