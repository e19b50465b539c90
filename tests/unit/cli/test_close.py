"""A person closes one run by hand, truthfully."""

from __future__ import annotations

import pytest

from mlflow_projects.cli import airflow_side, main
from mlflow_projects.tracking.client import now
from tests.support.memory_tracking import MemoryClient, opened_again, statuses

REASON = "mlflow_projects.reason"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> MemoryClient:
    client = MemoryClient()
    monkeypatch.setattr("mlflow_projects.tracking.connect.connect", lambda _: client)
    monkeypatch.setattr(airflow_side, "tracking_settings", lambda: client.settings)
    monkeypatch.setattr(airflow_side, "dag_run_state", lambda *_: None)
    monkeypatch.setattr("getpass.getuser", lambda: "ann")
    return client


@pytest.mark.parametrize(("options", "status"), [([], "KILLED"), (["--status", "FAILED"], "FAILED")])
def test_it_is_closed_after_what_is_below_it(
    client: MemoryClient, capsys: pytest.CaptureFixture[str], options: list[str], status: str
) -> None:
    run = client.create_run("0", "train", now(), {})
    below = client.create_run("0", "fold", now(), {"mlflow.parentRunId": run.run_id})
    assert main(["close", run.run_id, "--reason", "its cluster is gone", *options]) == 0
    assert statuses(client, (run, below)) == {"train": status, "fold": "KILLED"}
    assert {client.get_run(one.run_id).tags[REASON] for one in (run, below)} == {"closed by ann: its cluster is gone"}
    assert capsys.readouterr().out == f"KILLED   {below.run_id}  fold\n{status:8} {run.run_id}  train\n"
    assert client.calls.count("close") == 1


def test_a_run_that_a_killed_function_had_opened_again_gets_its_end_back(
    client: MemoryClient, capsys: pytest.CaptureFixture[str]
) -> None:
    run = opened_again(client, client.create_run("0", "train", now(), {}), "FAILED 1234")
    assert main(["close", run.run_id, "--reason", "why"]) == 0
    assert (client.get_run(run.run_id).status, client.get_run(run.run_id).end_time) == ("FAILED", 1234)
    assert capsys.readouterr().out == f"FAILED   {run.run_id}  train\n"


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["close", *arguments, "--reason", "why"]) == 1
    return capsys.readouterr().err


def test_without_a_reason_nothing_is_closed(client: MemoryClient, capsys: pytest.CaptureFixture[str]) -> None:
    run = client.create_run("0", "train", now(), {})
    assert main(["close", run.run_id, "--reason", " "]) == 1
    assert capsys.readouterr().err == (
        "mlflow-projects: --reason is empty; say in one sentence why the run is closed.\n"
    )
    assert client.get_run(run.run_id).status == "RUNNING"


@pytest.mark.parametrize("error", [OSError, KeyError])  # of Python 3.13, and before
def test_a_user_without_a_name_closes_too(
    client: MemoryClient, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def nobody() -> str:
        raise error("getpwuid(): uid not found: 50000")

    monkeypatch.setattr("getpass.getuser", nobody)
    run = client.create_run("0", "train", now(), {})
    assert main(["close", run.run_id, "--reason", "why"]) == 0
    assert client.get_run(run.run_id).tags[REASON] == "closed by hand: why"


def test_a_closed_run_keeps_its_end(client: MemoryClient, capsys: pytest.CaptureFixture[str]) -> None:
    run = client.create_run("0", "train", now(), {})
    client.update_run(run.run_id, "FINISHED", 77)
    assert "is FINISHED; only an open run can be closed" in refused([run.run_id], capsys)
    assert REASON not in client.get_run(run.run_id).tags


def test_a_run_that_airflow_works_on_is_airflows_to_close(
    client: MemoryClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = client.create_run("0", "train", now(), {"airflow.dag_id": "dag", "airflow.run_id": "r1"})
    monkeypatch.setattr(airflow_side, "dag_run_state", lambda *key: {("dag", "r1"): "running"}[key])
    assert "DAG run r1 of dag is running; mark or clear its task in Airflow" in refused([run.run_id], capsys)
    assert client.get_run(run.run_id).status == "RUNNING"


def test_a_deleted_run_and_none_at_all(client: MemoryClient, capsys: pytest.CaptureFixture[str]) -> None:
    run = client.create_run("0", "train", now(), {})
    client.delete_run(run.run_id)
    assert "was deleted in MLflow; restore it first" in refused([run.run_id], capsys)
    assert "not found" in refused(["f" * 32], capsys)
