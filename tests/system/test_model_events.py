"""A moved alias in MLflow starts a DAG: by a real triggerer, also one that was away, and by webhook."""

from __future__ import annotations

import json
import os
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import ROOT
from tests.support.airflow import Deployment, end, running_airflow
from tests.support.servers import free_port
from tests.support.waiting import wait
from tests.support.webhooks import body, headers

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]
EXAMPLE = (ROOT / "docs" / "examples" / "model_events.py").read_text()
SECRET = "the secret of a webhook"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Run Airflow with the docs' example twice: it looks, and it is told."""
    folder = tmp_path_factory.mktemp("examples")
    looks = EXAMPLE.replace("poll_interval=60", "poll_interval=1")
    told = EXAMPLE.replace("poll_interval=60", "poll_interval=None").replace('"Wine"', '"Beer"')
    (folder / "looks.py").write_text(looks)
    (folder / "told.py").write_text(told.replace("wine_", "beer_").replace("score_with", "told_of"))
    more = {
        "AIRFLOW__MLFLOW_PROJECTS__WEBHOOK_CONN_IDS": "mlflow_hook",
        "AIRFLOW__CORE__DEFAULT_TASK_RETRIES": "3",  # a busy machine's API server may be too slow for a task's start
        "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "1",
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")]),  # also where another copy is installed
        "AIRFLOW_CONN_MLFLOW_HOOK": json.dumps({"conn_type": "generic", "password": SECRET}),
    }
    home = tmp_path_factory.mktemp("airflow") / "home"
    with running_airflow(home, sorted(folder.glob("*.py")), [], more) as running:
        yield running


@pytest.fixture(scope="module")
def mlflow(deployment: Deployment) -> Any:
    from mlflow import MlflowClient

    client = MlflowClient(deployment.mlflow_url)
    for name in ("Wine", "Beer"):
        client.create_registered_model(name)
        for number in "12":
            client.create_model_version(name, "s3://bucket/model", run_id=number * 32)
        client.set_registered_model_alias(name, "champion", "1")
    return client


def scores(deployment: Deployment, dag_id: str) -> list[str]:
    """Return what the DAG's runs that succeeded have returned, in their order."""
    with deployment.client() as airflow:
        runs = airflow.get(f"/api/v2/dags/{dag_id}/dagRuns", params={"order_by": "id"}).json().get("dag_runs", [])
        assert {run["state"] for run in runs} <= {"queued", "running", "success"}, runs
        entry = "taskInstances/score/xcomEntries/return_value"
        return [
            str(airflow.get(f"/api/v2/dags/{dag_id}/dagRuns/{run['dag_run_id']}/{entry}").json()["value"])
            for run in runs
            if run["state"] == "success"
        ]


def remembered(home: Path) -> list[dict[str, Any]]:
    """Return what the triggers have kept in Airflow's asset store."""
    with sqlite3.connect(f"file:{home / 'airflow.db'}?mode=ro", uri=True) as database:
        return [json.loads(value) for (value,) in database.execute("SELECT value FROM asset_state_store")]


def score_of(number: int, name: str = "Wine") -> str:
    return f"models:/{name}/{number} of run {str(number) * 32}"


def test_a_moved_alias_starts_a_dag_also_when_the_triggerer_was_away(deployment: Deployment, mlflow: Any) -> None:
    dag_id = "score_with_champion"
    triggerer = deployment.start("triggerer")
    wait(lambda: [kept["aliases"] for kept in remembered(deployment.home)] == [{"champion": 1}], "the first look")
    mlflow.set_registered_model_alias("Wine", "champion", "2")
    wait(lambda: scores(deployment, dag_id) == [score_of(2)], "the DAG run")
    wait(lambda: remembered(deployment.home)[0]["aliases"] == {"champion": 2}, "the memory")
    end(triggerer)
    mlflow.set_registered_model_alias("Wine", "champion", "1")
    deployment.start("triggerer")
    wait(lambda: len(scores(deployment, dag_id)) > 1, "the DAG run of the roll-back")
    wait(lambda: remembered(deployment.home)[0]["aliases"] == {"champion": 1}, "the memory")
    assert scores(deployment, dag_id) == [score_of(2), score_of(1)]


def test_a_webhook_starts_a_dag(deployment: Deployment, mlflow: Any) -> None:
    def watched() -> bool:
        with deployment.client() as airflow:
            assets = airflow.get("/api/v2/assets").json()["assets"]
        return any(asset["name"] == "beer_champion_moved" and asset["watchers"] for asset in assets)

    wait(watched, "the DAG")
    content = body("Beer", version="2")
    url = f"{deployment.url}/mlflow_projects/webhook"
    assert httpx.post(url, content=content, headers=headers(content, uuid.uuid4().hex), timeout=60).status_code == 401
    assert httpx.post(url, content=content, headers=headers(content, SECRET), timeout=60).status_code == 204
    wait(lambda: scores(deployment, "told_of_champion") == [score_of(2, "Beer")], "the DAG run")
