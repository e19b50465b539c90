"""DAGs and projects from Airflow's GitDagBundle, under a real scheduler with LocalExecutor."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.conftest import ROOT
from tests.support.airflow import running_airflow
from tests.support.repository import Repository
from tests.support.waiting import wait

pytestmark = [pytest.mark.system, pytest.mark.nightly, pytest.mark.timeout(900)]


def test_a_dag_run_keeps_the_commit_that_it_began_with_and_the_records_name_it(tmp_path):
    repository = Repository(tmp_path / "origin")
    shutil.copytree(ROOT / "tests" / "system" / "bundle", repository.tree, dirs_exist_ok=True)
    old = repository.commit("old")
    bundle = {
        "name": "models",
        "classpath": "airflow.providers.git.bundles.git.GitDagBundle",
        "kwargs": {"repo_url": repository.url, "tracking_ref": "trunk", "subdir": "dags", "refresh_interval": 2},
    }
    environment = {
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(tmp_path / "bundles"),
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "1",
    }
    with running_airflow(tmp_path / "airflow", [], [], environment) as deployment, deployment.client() as airflow:
        wait(lambda: known_version(airflow) == old, "the DAG of the first commit")
        gate, target = tmp_path / "gate", tmp_path / "target"
        slow = trigger(airflow, gate, target)
        wait(lambda: task_state(airflow, slow, "first") == "running", "the first step")
        new = repository.commit("new", **{"projects/words/words.txt": "the second version\n"})
        wait(lambda: known_version(airflow) == new, "the DAG of the second commit")
        gate.touch()
        assert ended(airflow, slow) == "success"
        assert target.read_text() == "the first version\n"
        quick = trigger(airflow, gate, target)
        assert ended(airflow, quick) == "success"
        assert target.read_text() == "the second version\n"

        runs = recorded(deployment.mlflow_url)
        for dag_run, commit in ((slow, old), (quick, new)):
            assert {
                name: tags["mlflow.source.git.commit"] for (id_, name), tags in runs.items() if id_ == dag_run
            } == {
                "bundled": commit,
                "first": commit,
                "second": commit,
            }
        assert {tags["mlflow.source.git.repoURL"] for tags in runs.values()} == {repository.url}


def known_version(airflow: httpx.Client) -> str | None:
    answer = airflow.get("/api/v2/dags/bundled")
    return str(answer.json()["bundle_version"]) if answer.is_success else None


def trigger(airflow: httpx.Client, gate: Path, target: Path) -> str:
    conf = {"gate": str(gate), "target": str(target)}
    made = airflow.post("/api/v2/dags/bundled/dagRuns", json={"logical_date": None, "conf": conf})
    assert made.is_success, made.text
    return str(made.json()["dag_run_id"])


def task_state(airflow: httpx.Client, run_id: str, task: str) -> str | None:
    path = f"/api/v2/dags/bundled/dagRuns/{quote(run_id)}/taskInstances/bundled.{task}"
    state: str | None = airflow.get(path).json().get("state")
    return state


def ended(airflow: httpx.Client, run_id: str) -> str:
    def look() -> str:
        state = str(airflow.get(f"/api/v2/dags/bundled/dagRuns/{quote(run_id)}").json()["state"])
        return state if state in ("success", "failed") else ""

    return str(wait(look, f"the end of {run_id}"))


def recorded(tracking_uri: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the tags of each MLflow run by DAG run and name."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri)
    experiment = client.get_experiment_by_name("bundled")
    runs = client.search_runs([experiment.experiment_id])
    return {(run.data.tags["airflow.run_id"], run.info.run_name): dict(run.data.tags) for run in runs}
