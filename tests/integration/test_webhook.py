"""MLflow's webhooks become events of assets; whatever is not MLflow's, or comes again, does not."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from airflow.models.asset import AssetEvent, AssetModel
from airflow.utils.session import create_session
from fastapi.testclient import TestClient
from sqlalchemy import delete, select

from mlflow_projects.ui import webhook
from mlflow_projects.ui.app import build_app
from tests.conftest import ROOT
from tests.support.servers import free_port
from tests.support.waiting import wait
from tests.support.webhooks import SECRET, body, headers

EXAMPLE = ROOT / "docs" / "examples" / "model_events.py"


@pytest.fixture(scope="module")
def mlflow(mlflow_server: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(mlflow_server)


@pytest.fixture
def name(mlflow: Any) -> str:
    """Make a model with two versions."""
    made = f"Model {uuid.uuid4().hex[:8]}"
    mlflow.create_registered_model(made)
    for number in "12":
        mlflow.create_model_version(made, "s3://bucket/model", run_id=number * 32)
    return made


@pytest.fixture
def on(airflow_db: None, mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__MLFLOW_PROJECTS__WEBHOOK_CONN_IDS", "hook_of_others mlflow_hook")
    others = {"conn_type": "generic", "password": "another secret"}
    monkeypatch.setenv("AIRFLOW_CONN_HOOK_OF_OTHERS", json.dumps(others))
    own = {"conn_type": "generic", "password": SECRET, "extra": {"mlflow_conn_id": "mlflow_hooked"}}
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_HOOK", json.dumps(own))
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_HOOKED", json.dumps({"conn_type": "mlflow", "host": mlflow_server}))


def parse(file: Path) -> None:
    """Take a DAG file as Airflow's DAG processor does, its DAGs unpaused."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.collection import update_dag_parsing_results_in_db
    from airflow.dag_processing.dagbag import DagBag
    from airflow.models.dag import DagModel
    from airflow.serialization.serialized_objects import LazyDeserializedDAG

    DagBundlesManager().sync_bundles_to_db()
    bag = DagBag(str(file), bundle_path=file.parent, bundle_name="dags-folder")
    assert bag.import_errors == {}
    dags = [LazyDeserializedDAG.from_dag(dag) for dag in bag.dags.values()]
    for _ in range(2):  # Airflow makes triggers of the DAGs that are not paused
        with create_session() as session:
            update_dag_parsing_results_in_db("dags-folder", None, dags, {}, 0.1, set(), session)
            for dag in session.scalars(select(DagModel).where(DagModel.dag_id.in_(bag.dags))):
                dag.is_paused = False


@pytest.fixture
def asset(on: None, name: str, tmp_path: Path) -> Iterator[str]:
    """Watch the champion of the model as the docs' example does, by webhook; return the asset's name."""
    made = f"moved_{uuid.uuid4().hex[:8]}"
    source = EXAMPLE.read_text().replace("poll_interval=60", 'poll_interval=None, mlflow_conn_id="mlflow_hooked"')
    source = source.replace('"Wine"', repr(name)).replace("wine_champion_moved", made)
    file = tmp_path / f"{made}.py"
    file.write_text(source.replace("score_with_champion", made))
    parse(file)
    yield made
    with create_session() as session:
        session.execute(delete(AssetModel).where(AssetModel.name == made))


def events(asset: str) -> list[dict[str, Any]]:
    """Return the extras of an asset's events."""
    with create_session() as session:
        query = select(AssetEvent.extra).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
        return list(session.scalars(query.where(AssetModel.name == asset).order_by(AssetEvent.id)))


@pytest.fixture
def client() -> TestClient:
    return TestClient(build_app(), raise_server_exceptions=False)


def test_the_signature_is_that_of_mlflow() -> None:
    from mlflow.webhooks.delivery import _generate_hmac_signature

    content = body("Wine")
    made = headers(content)
    theirs = _generate_hmac_signature(
        SECRET, made["X-MLflow-Delivery-Id"], made["X-MLflow-Timestamp"], content.decode()
    )
    assert made["X-MLflow-Signature"] == theirs


def test_a_moved_alias_is_an_event_once(client: TestClient, asset: str, name: str) -> None:
    content = body(name)
    sent = headers(content)
    answer = client.post("/webhook", content=content, headers=sent)
    assert (answer.status_code, answer.content) == (204, b"")
    [extra] = events(asset)
    assert extra == {
        "from_webhook": True,
        "delivery": sent["X-MLflow-Delivery-Id"],
        "payload": {
            "event": "alias_moved", "name": name, "version": 1, "run_id": "1" * 32, "uri": f"models:/{name}/1",
            "alias": "champion", "tag": None, "value": None, "mlflow_conn_id": "mlflow_hooked",
        },
    }  # fmt: skip
    assert client.post("/webhook", content=content, headers=sent).status_code == 409
    assert len(events(asset)) == 1
    assert client.post("/webhook", content=content, headers=headers(content)).status_code == 204
    assert len(events(asset)) == 2


def test_the_event_starts_the_dag(client: TestClient, asset: str, name: str) -> None:
    from airflow.models.asset import AssetDagRunQueue

    content = body(name)
    client.post("/webhook", content=content, headers=headers(content))
    with create_session() as session:
        assert asset in session.scalars(select(AssetDagRunQueue.target_dag_id)).all()


def test_two_deliveries_at_the_same_moment_are_one_event(client: TestClient, asset: str, name: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    content = body(name)
    sent = headers(content)
    with ThreadPoolExecutor(4) as threads:
        send = lambda _: client.post("/webhook", content=content, headers=sent).status_code  # noqa: E731
        assert sorted(threads.map(send, range(4))) == [204, 409, 409, 409]
    assert len(events(asset)) == 1


Change = Callable[[bytes], tuple[bytes, dict[str, str]]]
REFUSED: dict[str, tuple[int, Change]] = {
    "a wrong secret": (401, lambda content: (content, headers(content, "wrong"))),
    "an empty secret": (401, lambda content: (content, headers(content, ""))),
    "no signature": (401, lambda content: (content, headers(content, X_MLflow_Signature=""))),
    "letters": (401, lambda content: (content, headers(content, X_MLflow_Signature="v1,\xe4"))),
    "another body": (401, lambda content: (content + b" ", headers(content))),
    "another delivery": (401, lambda content: (content, headers(content, X_MLflow_Delivery_Id=str(uuid.uuid4())))),
    "no delivery": (401, lambda content: (content, headers(content, X_MLflow_Delivery_Id=""))),
    "another time": (401, lambda content: (content, headers(content, X_MLflow_Timestamp=str(int(time.time()) - 1)))),
    "an old one": (401, lambda content: (content, headers(content, moment=time.time() - 400))),
    "one of tomorrow": (401, lambda content: (content, headers(content, moment=time.time() + 400))),
    "no time": (401, lambda content: (content, headers(content, X_MLflow_Timestamp="now"))),
    "a form": (415, lambda content: (content, headers(content, Content_Type="text/plain"))),
    "a large one": (413, lambda _: ((large := b" " * (webhook.MAX_BYTES + 1)), headers(large))),
    "no JSON": (400, lambda _: ((broken := b'{"entity": '), headers(broken))),
    "a list": (400, lambda _: ((listed := b"[1]"), headers(listed))),
    "no data": (400, lambda _: ((bare := b'{"entity": "model_version", "action": "created"}'), headers(bare))),
    "no bytes": (400, lambda _: ((odd := b'"\xff\xfe"'), headers(odd))),
    "no version": (400, lambda _: ((odd := body("Wine", version="one")), headers(odd))),
    "no text": (400, lambda _: ((odd := body("Wine", version=1)), headers(odd))),
    "no alias": (400, lambda _: ((odd := body("Wine", alias=None)), headers(odd))),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_as_mlflow_sends_it_is_refused_without_a_word(
    case: str, client: TestClient, asset: str, name: str
) -> None:
    status, change = REFUSED[case]
    content, sent = change(body(name))
    answer = client.post(
        "/webhook", content=content, headers={key: value.encode("latin-1") for key, value in sent.items()}
    )
    assert (answer.status_code, answer.content) == (status, b"")
    assert events(asset) == []


def test_a_body_that_names_no_length_is_cut_too(client: TestClient, on: None) -> None:
    parts = (b" " * 2**16 for _ in range(64))
    assert client.post("/webhook", content=parts, headers=headers(b"")).status_code == 413


def test_a_body_that_does_not_come_is_not_waited_for(
    client: TestClient, asset: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "_BODY_SECONDS", 0)
    content = body(name)
    assert client.post("/webhook", content=content, headers=headers(content)).status_code == 408
    assert events(asset) == []


@pytest.mark.parametrize(
    "content",
    [
        {"entity": "model_version_alias", "action": "deleted"},
        {"entity": "registered_model", "action": "created"},
        {"entity": "prompt", "action": "created"},
        {"entity": "something", "action": "new"},
        {"alias": "another"},
        {"entity": "model_version"},
        {"version": "77"},
    ],
)
def test_what_nobody_waits_for_is_taken_and_makes_no_event(
    client: TestClient, asset: str, name: str, content: dict[str, str]
) -> None:
    sent = body(name, **content)
    assert client.post("/webhook", content=sent, headers=headers(sent)).status_code == 204
    assert events(asset) == []


def test_another_servers_model_of_that_name_makes_no_event(client: TestClient, asset: str, name: str) -> None:
    content = body(name)
    assert client.post("/webhook", content=content, headers=headers(content, "another secret")).status_code == 204
    assert events(asset) == []


def test_a_registry_that_is_away_is_told_by_webhook_again(
    client: TestClient, asset: str, name: str, mlflow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = body(name)
    sent = headers(content)
    away = {"conn_type": "mlflow", "host": f"http://127.0.0.1:{free_port()}"}
    with monkeypatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_MLFLOW_HOOKED", json.dumps(away))
        answer = client.post("/webhook", content=content, headers=sent)
        assert (answer.status_code, answer.content) == (503, b"")
    assert client.post("/webhook", content=content, headers=sent).status_code == 204
    assert len(events(asset)) == 1


def test_off_there_is_no_such_address(
    client: TestClient, asset: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = body(name)
    monkeypatch.delenv("AIRFLOW__MLFLOW_PROJECTS__WEBHOOK_CONN_IDS")
    answer = client.post("/webhook", content=content, headers=headers(content))
    nowhere = client.post("/nowhere", content=content, headers=headers(content))
    assert answer.status_code == nowhere.status_code == 404
    assert len({re.sub(r'nonce="[^"]*"', "", one.text) for one in (answer, nowhere)}) == 1
    assert events(asset) == []


@pytest.mark.parametrize("connection", [None, {"conn_type": "generic"}])
def test_without_a_secret_nobody_comes_in(
    client: TestClient, asset: str, name: str, connection: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    conn_id = f"hook_{uuid.uuid4().hex[:8]}"
    monkeypatch.setenv("AIRFLOW__MLFLOW_PROJECTS__WEBHOOK_CONN_IDS", conn_id)
    if connection:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
    for secret in ("", SECRET, "None"):
        content = body(name)
        assert client.post("/webhook", content=content, headers=headers(content, secret)).status_code == 401
    assert caplog.text.count(f"there is no connection '{conn_id}' with a password") == 1


def test_a_watcher_that_looks_by_itself_is_not_told_twice(
    on: None, client: TestClient, name: str, tmp_path: Path
) -> None:
    made = f"looks_{uuid.uuid4().hex[:8]}"
    source = EXAMPLE.read_text().replace("poll_interval=60", 'poll_interval=60, mlflow_conn_id="mlflow_hooked"')
    source = source.replace('"Wine"', repr(name)).replace("wine_champion_moved", made)
    (tmp_path / f"{made}.py").write_text(source.replace("score_with_champion", made))
    parse(tmp_path / f"{made}.py")
    content = body(name)
    assert client.post("/webhook", content=content, headers=headers(content)).status_code == 204
    assert events(made) == []


@pytest.fixture
def served(on: None) -> Iterator[str]:
    """Serve the app as the API server does."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(build_app(), port=port, log_level="error", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
        yield f"http://127.0.0.1:{port}/webhook"
    finally:
        server.should_exit = True
        thread.join(30)


def test_mlflow_delivers(served: str, mlflow: Any, asset: str, name: str) -> None:
    from mlflow.entities.webhook import WebhookEvent

    kinds = [WebhookEvent.from_str(kind) for kind in ("model_version_alias.created", "model_version.created")]
    hook = mlflow.create_webhook(name=f"hook-{uuid.uuid4().hex}", url=served, events=kinds, secret=SECRET)
    try:
        assert mlflow.test_webhook(hook.webhook_id).response_status == 204
        mlflow.create_model_version(name, "s3://bucket/model", run_id="3" * 32)
        mlflow.set_registered_model_alias(name, "champion", "2")
        mlflow.set_registered_model_alias(name, "another", "1")
        mlflow.set_registered_model_alias(name, "champion", "3")
        wait(lambda: len(events(asset)) >= 2, "MLflow's deliveries")
    finally:
        mlflow.delete_webhook(hook.webhook_id)
    versions = {(one["payload"]["version"], one["payload"]["run_id"]) for one in events(asset)}
    assert versions == {(2, "2" * 32), (3, "3" * 32)}


def test_a_webhook_of_mlflow_without_the_secret_is_refused(served: str, mlflow: Any, asset: str, name: str) -> None:
    from mlflow.entities.webhook import WebhookEvent

    kinds = [WebhookEvent.from_str("model_version_alias.created")]
    hook = mlflow.create_webhook(name=f"hook-{uuid.uuid4().hex}", url=served, events=kinds)
    try:
        assert mlflow.test_webhook(hook.webhook_id).response_status == 401
    finally:
        mlflow.delete_webhook(hook.webhook_id)
    assert httpx.get(served).status_code == 405
