"""One answer of a tracking server has an end: of its time, its size, its pages (issue 22, row 4)."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Callable

import pytest

from mlflow_projects.exceptions import TrackingError, TrackingUnavailableError
from mlflow_projects.tracking import registry_rest
from mlflow_projects.tracking.rest import RestClient
from mlflow_projects.tracking.server import TrackingSettings
from tests.support.hostile import Dribble, answer_of, hostile_server

WHOLE = answer_of(b'{"experiments": []}')
HEAD = WHOLE.index(b"{")


def client(uri: str, timeout: float = 60.0, max_bytes: int = 1_000_000) -> RestClient:
    return RestClient(TrackingSettings(uri=uri, timeout=timeout, max_retries=0, max_bytes=max_bytes))


@pytest.mark.parametrize(
    "at_once", [0, HEAD - 20, HEAD], ids=["from the first byte", "in the headers", "in the body"]
)
def test_a_byte_now_and_then_is_no_answer(at_once: int) -> None:
    dribble = Dribble(WHOLE, at_once)
    with hostile_server(dribble) as uri:
        with pytest.raises(TrackingUnavailableError, match=r"no whole answer within 0\.4 s"):
            client(uri, timeout=0.4).experiment_ids()
        assert dribble.hung_up.acquire(timeout=30), "the connection was cut"


def test_a_client_that_was_given_up_hangs_up_and_asks_no_more() -> None:
    dribble = Dribble(WHOLE)
    with hostile_server(dribble) as uri:
        asking, caught = client(uri), []

        def ask() -> None:
            try:
                asking.experiment_ids()
            except TrackingUnavailableError as error:
                caught.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        assert dribble.begun.acquire(timeout=30)
        asking.abort()
        thread.join(30)
        assert caught
        assert dribble.hung_up.acquire(timeout=30)
        with pytest.raises(TrackingUnavailableError, match="given up"):
            asking.experiment_ids()
        assert not dribble.begun.acquire(timeout=0)


def packed(times: int) -> bytes:
    body = json.dumps({"experiments": [], "filling": "x" * 5_000_000}).encode()
    for _ in range(times):
        body = gzip.compress(body)
    return body


@pytest.mark.parametrize(
    ("body", "headers", "words"),
    [
        (packed(0), (), "larger than 1 MB"),
        (packed(1), ("Content-Encoding: gzip",), "larger than 1 MB"),
        (packed(2), ("Content-Encoding: gzip, gzip",), "nobody asked for"),
        (packed(1), ("Content-Encoding: br",), "nobody asked for"),
        (b"{}", ("Content-Encoding: gzip",), "cannot be unpacked"),
        (b"[" * 80_000, (), "not as an MLflow tracking server"),
        (b'{"experiments": [' + b"[]," * 90_000 + b"[]]}", (), r"has more than \d+ parts"),
    ],
)
def test_a_flood_is_no_answer(body: bytes, headers: tuple[str, ...], words: str) -> None:
    def flood(connection: socket.socket) -> None:
        connection.sendall(answer_of(body, *headers))

    with hostile_server(flood) as uri:
        with pytest.raises(TrackingUnavailableError, match=words):
            client(uri, max_bytes=2**20).experiment_ids()


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.experiment_ids(),
        lambda client: client.search_runs(["1"], ""),
        lambda client: client.update_run("1", "KILLED", 1),
    ],
)
def test_a_proxys_notice_in_json_is_no_answer(ask: Callable[[RestClient], object]) -> None:
    body = answer_of(b'{"status": "maintenance"}')
    with hostile_server(lambda connection: connection.sendall(body)) as uri:
        with pytest.raises(TrackingError, match=r"an answer to .* that is not MLflow's"):
            ask(client(uri))


def test_an_empty_list_may_be_left_out() -> None:
    with hostile_server(lambda connection: connection.sendall(answer_of(b"{}"))) as uri:
        assert client(uri).search_runs(["1"], "") == []


def test_a_packed_answer_is_read() -> None:
    body = gzip.compress(b'{"experiments": [{"experiment_id": "7"}]}')
    with hostile_server(lambda connection: connection.sendall(answer_of(body, "Content-Encoding: gzip"))) as uri:
        assert client(uri).experiment_ids() == ["7"]


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.experiment_ids(),
        lambda client: client.search_runs(["1"], "", limit=5),
        lambda client: client.metric_history("1", "m", limit=5),
        lambda client: client.search_versions(""),
        lambda client: client.logged_models("1", ""),
    ],
)
def test_a_list_without_an_end_is_no_answer(
    ask: Callable[[RestClient], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_rest, "_MOST_PAGES", 20)
    body = answer_of(b'{"next_page_token": "again"}')
    with hostile_server(lambda connection: connection.sendall(body)) as uri:
        with pytest.raises(TrackingError, match="no end"):
            ask(client(uri))
