"""The model registry through both clients, against real stores: what tests/contract/registry.py does not say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from mlflow_projects.exceptions import TrackingError, TrackingUnavailableError
from mlflow_projects.tracking.connect import connect
from mlflow_projects.tracking.registration import register
from mlflow_projects.tracking.server import TrackingSettings
from tests.contract.store import Store
from tests.integration.tracking.conftest import store_of
from tests.support.flaky import FlakyProxy, answer, lose_answer


def mlflow_of(store: Store) -> Any:
    """Return MLflow's own client of the same store."""
    return store.writer.mlflow  # type: ignore[attr-defined]


def test_mlflow_finds_the_model_of_a_version_and_the_versions_of_a_model(store: Store) -> None:
    truth = mlflow_of(store)
    register(store.client, store.name, store.run(), "model", description="why")
    [version] = truth.search_model_versions(f"name = '{store.name}'")
    assert (version.status, version.description) == ("READY", "why")
    [model] = truth.search_logged_models([store.experiment])
    assert json.loads(model.tags["mlflow.modelVersions"])[0]["name"] == store.name
    assert truth.get_model_version_download_uri(store.name, "1") == model.artifact_location


def test_a_version_that_the_project_registered_is_taken(store: Store) -> None:
    run, truth = store.run(None), mlflow_of(store)
    model_id = store.writer.log_model(run)
    location = truth.get_logged_model(model_id).artifact_location
    truth.create_registered_model(store.name)
    # For a database MLflow looks up ``models:/<id>`` in the process's global store, so the test gives the folder.
    source = f"models:/{model_id}" if store.client.settings.is_http else location
    truth.create_model_version(store.name, source, run.run_id, model_id=model_id)
    assert register(store.client, store.name, run, "model").version == 1
    assert len(store.versions()) == 1


def test_all_pages_of_versions_are_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlflow_projects.tracking.registry_rest._PAGE", 2)
    for _ in range(5):
        register(store.client, store.name, store.run(), "model")
    query = f"name = '{store.name}'"
    assert [version.version for version in store.client.search_versions(query)] == [5, 4, 3, 2, 1]
    assert [version.version for version in store.client.search_versions(query, limit=3)] == [5, 4, 3]


@pytest.fixture
def flaky(mlflow_server: str) -> Iterator[tuple[FlakyProxy, Store]]:
    with FlakyProxy(mlflow_server) as proxy:
        client = connect(TrackingSettings(uri=proxy.url, max_retries=1))
        yield proxy, store_of(client, mlflow_server)
        client.close()


def test_a_lost_answer_never_makes_a_second_version(flaky: tuple[FlakyProxy, Store]) -> None:
    proxy, store = flaky
    run = store.run()
    proxy.faults["model-versions/create"] = [lose_answer]
    assert register(store.client, store.name, run, "model").version == 1
    assert len(store.versions()) == 1


def test_a_server_that_stays_away_ends_the_attempts(flaky: tuple[FlakyProxy, Store]) -> None:
    proxy, store = flaky
    run = store.run()
    proxy.faults["model-versions/create"] = [answer(503)] * 3
    with pytest.raises(TrackingUnavailableError):
        register(store.client, store.name, run, "model")
    assert store.versions() == []


def version_answer(name: str, status: str, message: str = "") -> Any:
    version = {"name": name, "version": "1", "status": status, "status_message": message}
    return answer(200, body=json.dumps({"model_version": version}).encode())


def test_a_version_is_waited_for_until_it_is_ready(flaky: tuple[FlakyProxy, Store]) -> None:
    proxy, store = flaky
    run = store.run()
    register(store.client, store.name, run, "model")
    other, pauses = store.run(), list[float]()
    pending = version_answer(store.name, "PENDING_REGISTRATION")
    proxy.faults["model-versions/create"] = [pending]
    proxy.faults["model-versions/get"] = [pending, pending]
    assert register(store.client, store.name, other, "model", sleep=pauses.append).status == "READY"
    assert pauses == [0.5, 1.0, 2.0]
    proxy.faults["model-versions/create"] = [version_answer(store.name, "FAILED_REGISTRATION", "no space left")]
    with pytest.raises(TrackingError, match=r"could not register models:/.*/1: no space left\."):
        register(store.client, store.name, other, "model")
    proxy.faults["model-versions/create"] = [pending]
    with pytest.raises(TrackingError, match="still PENDING_REGISTRATION after 0 s"):
        register(store.client, store.name, other, "model", patience=0)
