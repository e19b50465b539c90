"""Both tracking clients, each with a real store."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from mlflow_projects.tracking.client import TrackingClient
from mlflow_projects.tracking.connect import connect
from mlflow_projects.tracking.record import resolve_experiment
from mlflow_projects.tracking.server import TrackingSettings
from tests.contract.store import MlflowWriter, Store


@pytest.fixture(scope="module", params=["http", "sqlite"])
def client(
    request: pytest.FixtureRequest, mlflow_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TrackingClient]:
    folder = tmp_path_factory.mktemp("store")
    uri = mlflow_server if request.param == "http" else f"sqlite:///{folder}/mlflow.db"
    connected = connect(TrackingSettings(uri=uri))
    yield connected
    connected.close()


@pytest.fixture
def store(client: TrackingClient) -> Store:
    return store_of(client)


def store_of(client: TrackingClient, uri: str = "") -> Store:
    """Return an experiment of its own.

    :param uri: for MLflow's own client; default: the same
    """
    writer = MlflowWriter(uri or client.settings.uri)
    return Store(client, writer, resolve_experiment(client, f"of a test {uuid.uuid4().hex}"))
