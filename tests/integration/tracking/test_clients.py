"""Both tracking clients against real stores: the cases of tests/contract, and the faults of a server in between."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlflow_projects.exceptions import AnswerTooLargeError, ProjectError, TrackingError, TrackingUnavailableError
from mlflow_projects.tracking.connect import connect
from mlflow_projects.tracking.record import resolve_experiment
from mlflow_projects.tracking.rest import RestClient
from mlflow_projects.tracking.server import TrackingSettings
from tests.contract.registry import *  # noqa: F403
from tests.contract.tracking import *  # noqa: F403
from tests.integration.tracking.conftest import store_of
from tests.support.flaky import FlakyProxy, answer, lose_answer, refuse
from tests.support.servers import free_port


def test_twenty_tasks_that_want_a_new_experiment_at_once_get_one(mlflow_server: str) -> None:
    name = f"wanted at once {uuid.uuid4().hex}"

    def ask(_: int) -> str:
        return resolve_experiment(connect(TrackingSettings(uri=mlflow_server)), name)

    with ThreadPoolExecutor(20) as pool:
        assert len(set(pool.map(ask, range(20)))) == 1


@pytest.fixture
def proxy(mlflow_server: str) -> Iterator[FlakyProxy]:
    with FlakyProxy(mlflow_server) as running:
        yield running


def test_passing_trouble_is_waited_out(proxy: FlakyProxy) -> None:
    pauses: list[float] = []
    store = store_of(RestClient(TrackingSettings(uri=proxy.url), sleep=pauses.append))
    run = store.record().open()
    proxy.faults["runs/get"] = [answer(503), refuse, answer(429, {"Retry-After": "11"}), answer(500)]
    assert store.client.get_run(run.run_id).run_id == run.run_id
    assert [0.5 <= pauses[0] <= 1, 1 <= pauses[1] <= 2, pauses[2], 4 <= pauses[3] <= 8] == [True, True, 11, True]
    assert proxy.requests.count("runs/get") == 5


def test_a_lost_answer_never_makes_a_second_run(proxy: FlakyProxy) -> None:
    store = store_of(connect(TrackingSettings(uri=proxy.url)))
    proxy.faults["runs/create"] = [lose_answer]
    run = store.record().open()
    assert [found.run_id for found in store.client.search_runs([store.experiment], "")] == [run.run_id]
    proxy.faults["runs/create"] = [refuse]  # here nothing was made, so it is asked again
    store.record("a2").open()
    assert len(store.client.search_runs([store.experiment], "")) == 2


def test_a_server_that_stays_away_is_named_after_the_retries() -> None:
    pauses: list[float] = []
    client = RestClient(TrackingSettings(f"http://127.0.0.1:{free_port()}", max_retries=1), sleep=pauses.append)
    with pytest.raises(TrackingUnavailableError, match=r"cannot be used: \[Errno 111\] Connection refused"):
        client.get_run("x")
    assert len(pauses) == 1


def test_a_list_that_is_too_large_for_one_answer_is_read_in_smaller_pages(proxy: FlakyProxy) -> None:
    store = store_of(RestClient(TrackingSettings(uri=proxy.url)))
    opened = [store.run(model=None).run_id for _ in range(8)]
    for run_id in opened:
        store.client.log_batch(run_id, tags={"long": "x" * 4000})
    asking = RestClient(TrackingSettings(uri=proxy.url, max_bytes=25_000))
    assert {run.run_id for run in asking.search_runs([store.experiment], "")} == {*opened}
    assert proxy.requests.count("runs/search") > 8 / 5, "six of them are too large"
    with pytest.raises(AnswerTooLargeError, match="larger than"):
        RestClient(TrackingSettings(uri=proxy.url, max_bytes=2_000)).search_runs([store.experiment], "")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (answer(401), "refuses a request without user or token"),
        (answer(404, body=b"nothing here"), "HTTP 404"),
    ],
)
def test_a_lasting_refusal_is_not_repeated(proxy: FlakyProxy, fault: object, words: str) -> None:
    client = connect(TrackingSettings(uri=proxy.url))
    proxy.faults["runs/get"] = [fault]  # type: ignore[list-item]
    with pytest.raises(TrackingError, match=words):
        client.get_run("x")
    assert proxy.requests == ["runs/get"]


def test_a_page_of_a_proxy_is_asked_again_a_few_times(proxy: FlakyProxy) -> None:
    pauses: list[float] = []
    client = RestClient(TrackingSettings(uri=proxy.url), sleep=pauses.append)
    page = answer(200, body=b"<html>a maintenance page</html>")
    proxy.faults["runs/get"] = [page, page]  # type: ignore[list-item]
    run = client.create_run("0", "page", 1, {})
    assert client.get_run(run.run_id).run_id == run.run_id
    proxy.faults["runs/get"] = [page] * 9  # type: ignore[list-item]
    with pytest.raises(TrackingUnavailableError, match="not as an MLflow tracking server; is this its address"):
        client.get_run(run.run_id)
    assert len(pauses) == 2 + 2


def test_the_credentials_go_into_the_header_and_nowhere_else(proxy: FlakyProxy) -> None:
    settings = TrackingSettings(uri=proxy.url, username="me", password="pass-word-1", token="")
    assert "pass-word-1" not in repr(settings)
    client = connect(settings)
    proxy.faults["runs/get"] = [answer(403)]
    with pytest.raises(TrackingError) as caught:
        client.get_run("x")
    assert "pass-word-1" not in str(caught.value)


def test_a_wrong_certificate_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"TLS files .*no-such\.pem"):
        connect(TrackingSettings(uri="https://mlflow.invalid", server_cert_path=str(tmp_path / "no-such.pem")))
