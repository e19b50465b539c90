"""The model registry through both clients, against real stores."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from mlflow_projects.exceptions import ProjectError, TrackingError, TrackingUnavailableError
from mlflow_projects.tracking.client import Run, TrackingClient, connect
from mlflow_projects.tracking.record import now, resolve_experiment
from mlflow_projects.tracking.registration import (
    WantedVersion,
    find_source,
    is_better,
    move_alias,
    number,
    register,
)
from mlflow_projects.tracking.registry import ModelSource
from mlflow_projects.tracking.settings import TrackingSettings
from tests.support.flaky import FlakyProxy, answer, lose_answer


@dataclass
class Store:
    """A tracking store, our client of it, and MLflow's own to see the truth."""

    client: TrackingClient
    truth: Any
    experiment: str = ""
    name: str = field(default_factory=lambda: f"Model {uuid.uuid4().hex[:8]}")

    def run(self, model: str | None = "model", **metrics: float) -> Run:
        run = self.client.create_run(self.experiment, "step", now(), {})
        self.client.log_batch(run.run_id, metrics=metrics)
        if model:
            self.log_model(run, model)
        return self.client.get_run(run.run_id)

    def log_model(self, run: Run, name: str = "model", status: str = "READY") -> str:
        model = self.truth.create_logged_model(self.experiment, name=name, source_run_id=run.run_id)
        self.truth.finalize_logged_model(model.model_id, status)
        return str(model.model_id)

    def versions(self) -> list[Any]:
        return sorted(self.truth.search_model_versions(f"name = '{self.name}'"), key=lambda version: version.version)


@pytest.fixture(scope="module", params=["http", "sqlite"])
def client(
    request: pytest.FixtureRequest, mlflow_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TrackingClient]:
    folder = tmp_path_factory.mktemp("registry")
    uri = mlflow_server if request.param == "http" else f"sqlite:///{folder}/mlflow.db"
    connected = connect(TrackingSettings(uri=uri))
    yield connected
    connected.close()


@pytest.fixture
def store(client: TrackingClient) -> Store:
    from mlflow import MlflowClient

    experiment = resolve_experiment(client, f"registry {uuid.uuid4().hex}")
    return Store(client, MlflowClient(client.settings.uri), experiment)


def test_a_logged_model_is_registered_once(store: Store) -> None:
    run = store.run(loss=0.5)
    made = register(store.client, store.name, run, "model", tags={"team": "blue"}, description="why")
    again = register(store.client, store.name, run, "model", tags={"team": "blue", "more": "1"}, description="else")
    assert (made.version, again.version, made.uri) == (1, 1, f"models:/{store.name}/1")
    [version] = store.versions()
    assert (version.run_id, version.status, version.description) == (run.run_id, "READY", "why")
    assert version.tags == {"team": "blue", "more": "1"}
    [model] = store.truth.search_logged_models([store.experiment])
    assert json.loads(model.tags["mlflow.modelVersions"])[0]["name"] == store.name
    assert store.truth.get_model_version_download_uri(store.name, "1") == model.artifact_location
    assert register(store.client, store.name, store.run(), "model").version == 2


def test_a_version_that_the_project_registered_is_taken(store: Store) -> None:
    run = store.run(None)
    model_id = store.log_model(run)
    location = store.truth.get_logged_model(model_id).artifact_location
    store.truth.create_registered_model(store.name)
    # For a database MLflow looks up ``models:/<id>`` in the process's global store, so the test gives the folder.
    source = f"models:/{model_id}" if store.client.settings.is_http else location
    store.truth.create_model_version(store.name, source, run.run_id, model_id=model_id)
    assert register(store.client, store.name, run, "model").version == 1
    assert len(store.versions()) == 1


def test_the_newest_model_of_that_name_in_the_run_counts(store: Store) -> None:
    run = store.run(None)
    other = store.run()
    store.log_model(run)
    newest = store.log_model(run)
    store.log_model(run, status="FAILED")
    store.log_model(run, "another")
    assert find_source(store.client, run, "model").model_id == newest
    assert find_source(store.client, other, "model").model_id != newest


def test_a_model_among_the_artifacts_is_registered(store: Store) -> None:
    run = store.run(None)
    store.truth.log_text(run.run_id, "flavors: {}", "a/folder/MLmodel")
    assert register(store.client, store.name, run, "a/folder/").source == f"{run.artifact_uri}/a/folder"
    assert register(store.client, store.name, run, "a/folder").version == 1


def test_a_run_without_the_model_is_named(store: Store) -> None:
    run = store.run("another")
    store.truth.log_text(run.run_id, "no model", "model/file.txt")
    with pytest.raises(ProjectError, match=rf"Run {run.run_id} \(step\) has no model 'model'; log one"):
        register(store.client, store.name, run, "model")


@pytest.mark.parametrize("name", ["with/slash", "with:colon"])
def test_a_name_that_mlflow_refuses_needs_no_retry(store: Store, name: str) -> None:
    with pytest.raises(ProjectError, match="name"):
        register(store.client, name, store.run(), "model")


def test_aliases_move_and_what_is_missing_is_none(store: Store) -> None:
    assert store.client.version_by_alias(store.name, "champion") is None
    assert store.client.model_version(store.name, 1) is None
    for _ in range(2):
        register(store.client, store.name, store.run(), "model")
    assert store.client.version_by_alias(store.name, "champion") is None
    assert store.client.model_version(store.name, 3) is None
    for number_ in (1, 2):
        move_alias(store.client, store.name, "champion", number_)
        holder = store.client.version_by_alias(store.name, "champion")
        assert holder is not None
        assert (holder.version, holder.aliases) == (number_, ("champion",))
    with pytest.raises(ProjectError, match="alias"):
        move_alias(store.client, store.name, "v1", 1)


def test_wanted_versions(store: Store) -> None:
    def found(**wanted: Any) -> int | None:
        version = WantedVersion(store.name, **wanted).find(store.client)
        return version.version if version else None

    assert found() is None
    for _ in range(11):
        register(store.client, store.name, store.run(), "model")
    move_alias(store.client, store.name, "champion", 2)
    assert found() == found(newer_than=10) == 11
    assert found(newer_than=11) is None
    assert (found(version=3), found(version=12)) == (3, None)
    assert (found(alias="champion"), found(alias="other")) == (2, None)
    assert (found(alias="champion", newer_than=1), found(alias="champion", newer_than=2)) == (2, None)
    assert (found(alias="champion", version=2), found(alias="champion", version=3)) == (2, None)


def test_all_pages_of_versions_are_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlflow_projects.tracking.registry_rest._PAGE", 2)
    for _ in range(5):
        register(store.client, store.name, store.run(), "model")
    query = f"name = '{store.name}'"
    assert [version.version for version in store.client.search_versions(query)] == [5, 4, 3, 2, 1]
    assert [version.version for version in store.client.search_versions(query, limit=3)] == [5, 4, 3]


@pytest.fixture
def flaky(mlflow_server: str) -> Iterator[tuple[FlakyProxy, Store]]:
    from mlflow import MlflowClient

    with FlakyProxy(mlflow_server) as proxy:
        client = connect(TrackingSettings(uri=proxy.url, max_retries=1))
        yield proxy, Store(client, MlflowClient(mlflow_server), resolve_experiment(client, uuid.uuid4().hex))
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


def test_only_real_numbers_are_compared(store: Store) -> None:
    run = store.run(None)
    for key, value in {"good": 1.0, "bad": float("nan"), "high": float("inf"), "low": float("-inf")}.items():
        store.truth.log_metric(run.run_id, key, value)
    metrics = store.client.get_run(run.run_id).metrics
    assert [number(metrics, key) for key in ("good", "bad", "high", "low", "none", None)] == [1.0, *[None] * 5]
    assert number({"x": sys.float_info.max}, "x") is None


@pytest.mark.parametrize(
    ("value", "than", "direction", "better"),
    [
        (1.0, 2.0, "min", True),
        (2.0, 1.0, "min", False),
        (1.0, 1.0, "min", False),
        (1.0, 2.0, "max", False),
        (2.0, 1.0, "max", True),
        (2.0, 2.0, "max", False),
        (None, 1.0, "min", False),
        (None, 1.0, "max", False),
        (1.0, None, "max", True),
        (1.0, None, "min", True),
        (None, None, "min", False),
    ],
)
def test_better_means_strictly_better(value: float | None, than: float | None, direction: str, better: bool) -> None:
    assert is_better(value, than, direction) is better


def test_a_source_has_both_names() -> None:
    assert ModelSource("s3://b/a").names == ("s3://b/a",)
    assert ModelSource("s3://b/a", "m-1").names == ("s3://b/a", "models:/m-1")
