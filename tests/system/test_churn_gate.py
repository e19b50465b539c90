"""A project and a function in one tree, a decision, a person's word, a notice, and an event that starts a DAG."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.dagruns import run_dag
from tests.support.introduction import artifacts
from tests.support.sinks import mail_server
from tests.support.up import Up, running_up
from tests.support.waiting import wait

MODEL = "ChurnModel"


def versions(tracking_uri: str) -> tuple[int, str | None]:
    """Return how many versions there are, and which is the champion."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri)
    found = client.search_registered_models(f"name = '{MODEL}'")
    if not found:
        return 0, None
    return len(client.search_model_versions(f"name = '{MODEL}'")), found[0].aliases.get("champion")


def states(result: Any) -> dict[str, str]:
    return {name: task.state for name, task in result.tasks.items()}


@pytest.mark.usefixtures("airflow_db")
def test_a_good_model_becomes_champion_and_a_weak_one_is_not_registered(server: str, tmp_path: Path) -> None:
    good = run_dag("churn_gate", {"customers": 1000})
    assert good.state == "success", good.log
    assert {name: state for name, state in states(good).items() if state != "success"} == {
        "approve": "skipped", "too_weak": "skipped",
    }  # fmt: skip
    runs = good.runs(server)
    parent = runs["churn_gate"].info.run_id
    assert {name: run.data.tags.get("mlflow.parentRunId") for name, run in runs.items()} == {
        "churn_gate": None, "train": parent, "evaluate": parent,
    }  # fmt: skip
    measured = runs["evaluate"].data.metrics
    assert good.tasks["churn_gate.evaluate"].xcom == measured["auc"] > 0.75
    trained = runs["train"].data.metrics["train_accuracy"]
    assert measured["overfit"] == pytest.approx(trained - measured["accuracy"])
    assert len(artifacts(server, runs["train"], tmp_path)["unseen.csv"].splitlines()) == 301
    assert versions(server) == (1, "1")

    weak = run_dag("churn_gate", {"customers": 1000, "min_auc": 0.99})
    assert (weak.state, states(weak)["too_weak"]) == ("success", "success")
    assert {states(weak)[name] for name in ("register", "approve", "promote")} == {"skipped"}
    assert versions(server) == (1, "1")


@pytest.mark.usefixtures("airflow_db")
def test_a_failure_is_told_by_mail_with_reason_and_address(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with mail_server() as (connection, mails):
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
        result = run_dag("churn_gate", {"customers": 10, "notify": "you@example.org"})
        assert result.state == "failed"
        assert result.tasks["churn_gate.train"].try_number == 1, "a user's error is tried again"
        (mail,) = mails
        assert (mail["To"], mail["Subject"]) == (
            "you@example.org", f"churn_gate.train of {result.run_id} failed",
        )  # fmt: skip
        (part,) = (part for part in mail.walk() if part.get_content_type() == "text/html")
        run = result.runs(server)["train"]
        assert f"/runs/{run.info.run_id}" in part.get_content()
        assert "10 customers are too few to learn from: give at least 100." in part.get_content()
        mails.clear()
        run_dag("churn_gate", {"customers": 10})
        assert not mails, "nobody asked for it"


@pytest.fixture
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running_up(tmp_path_factory.mktemp("up")) as running:
        yield running


@pytest.mark.system
@pytest.mark.timeout(1200)
def test_a_person_decides_and_the_moved_alias_starts_the_scoring(up: Up) -> None:
    from mlflow import MlflowClient

    def champion_that_is_watched() -> list[dict[str, Any]]:
        with contextlib.closing(sqlite3.connect(f"file:{up.home / 'airflow.db'}?mode=ro", uri=True)) as database:
            rows = database.execute("SELECT value FROM asset_state_store")
            return [json.loads(value)["aliases"] for (value,) in rows]

    up.unpause("churn_gate", "churn_score")
    wait(lambda: champion_that_is_watched() == [{}], "the first look")
    rejected = up.trigger("churn_gate", approve="ask")
    assert "Version 1: AUC 0." in up.decide("churn_gate", rejected, "approve", "Reject")
    assert up.wait_end("churn_gate", rejected) == "success"
    assert up.task("churn_gate", rejected, "promote") == "skipped"
    assert versions(up.mlflow_uri) == (1, None)

    approved = up.trigger("churn_gate", approve="ask")
    assert "Version 2: AUC 0." in up.decide("churn_gate", approved, "approve", "Approve")
    assert up.wait_end("churn_gate", approved) == "success"
    (run,) = wait(lambda: up.runs("churn_score"), "a run of churn_score")
    assert run["run_type"] == "asset_triggered"
    assert up.wait_end("churn_score", run["dag_run_id"]) == "success"
    scored = MlflowClient(up.mlflow_uri).get_run(
        up.xcom("churn_score", run["dag_run_id"], "churn_score.score")["run_id"]
    )
    trained = up.xcom("churn_gate", approved, "churn_gate.train")["run_id"]
    assert scored.data.tags["triggered_by_version"] == "2"
    assert scored.data.tags["churn.model_run_id"] == trained
    assert scored.data.params["model_uri"] == f"models:/{MODEL}/2"
    assert scored.data.metrics["customers"] == 500
