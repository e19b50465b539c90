"""The wait for a model version in the triggerer: through trouble, without secrets, with one event."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest

from mlflow_projects.tracking.registration import WantedVersion
from mlflow_projects.triggers.model_version import ModelVersionTrigger
from tests.support.flaky import FlakyProxy, answer, refuse
from tests.support.waiting import PATIENCE, wait

pytestmark = pytest.mark.usefixtures("airflow_db")
SECRET = "correct-horse-battery"


@pytest.fixture
def proxy(mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyProxy]:
    with FlakyProxy(mlflow_server) as running:
        connection = {"conn_type": "mlflow", "host": running.url, "login": "me", "password": SECRET}
        monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_TEST", json.dumps(connection))
        yield running


@pytest.fixture
def name(mlflow_server: str) -> str:
    """Make a model without a version."""
    from mlflow import MlflowClient

    made = f"Model {uuid.uuid4().hex[:8]}"
    MlflowClient(mlflow_server).create_registered_model(made)
    return made


def trigger(name: str) -> ModelVersionTrigger:
    return ModelVersionTrigger(
        asdict(WantedVersion(name, version=1)), poke_interval=0.2, mlflow_conn_id="mlflow_test"
    )


async def first_event(waiting: ModelVersionTrigger) -> Any:
    async for event in waiting.run():
        return event.payload
    return None


def test_only_ids_are_serialized(name: str) -> None:
    path, arguments = trigger(name).serialize()
    assert path == f"{ModelVersionTrigger.__module__}.{ModelVersionTrigger.__qualname__}"
    assert SECRET not in json.dumps(arguments)
    assert ModelVersionTrigger(**arguments).serialize() == (path, arguments)


def test_trouble_is_waited_out_and_the_version_found(proxy: FlakyProxy, name: str, mlflow_server: str) -> None:
    from mlflow import MlflowClient

    async def look() -> Any:
        waiting = asyncio.create_task(first_event(trigger(name)))
        looked = lambda: proxy.requests.count("model-versions/get") > 4 or waiting.done()  # noqa: E731
        await asyncio.to_thread(wait, looked, "five looks")
        assert not waiting.done()
        await asyncio.to_thread(MlflowClient(mlflow_server).create_model_version, name, "s3://bucket/model")
        return await asyncio.wait_for(waiting, PATIENCE)

    proxy.faults["model-versions/get"] = [refuse, answer(503), answer(503)]
    found = asyncio.run(look())["found"]
    assert (found["name"], found["version"], found["metrics"]) == (name, 1, {})
    assert found["mlflow_conn_id"] == "mlflow_test"


def test_a_refusal_ends_the_wait_with_its_sentence(proxy: FlakyProxy, name: str) -> None:
    proxy.faults["model-versions/get"] = [answer(401)]
    payload = asyncio.run(first_event(trigger(name)))
    assert "refuses the password of user 'me'" in payload["error"]
    assert SECRET not in str(payload)
