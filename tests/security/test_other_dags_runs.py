"""Who may see one DAG's runs sees no run of another DAG through a tag (issue 22, row 8)."""

from __future__ import annotations

import pytest

from mlflow_projects.tracking.client import Run
from mlflow_projects.tracking.reuse_key import ReuseKey, maker_of
from mlflow_projects.ui import reading
from tests.support.memory_tracking import MemoryClient

KEY = ReuseKey({"code": "theirs"}, "theirs.train")
GUESSED = ReuseKey({"code": "guessed"}, "mine.train")


@pytest.fixture
def client() -> MemoryClient:
    return MemoryClient()


def their_result(client: MemoryClient) -> Run:
    run = client.create_run("0", "theirs", 1, {"airflow.dag_id": "theirs", **KEY.tags("complete")})
    client.log_text(run.run_id, "secret", "salaries.csv")
    client.log_metric(run.run_id, "revenue", 7.0)
    return run


def files_shown(client: MemoryClient, experiment_id: str, tags: dict[str, str]) -> list[str]:
    own = {"airflow.dag_id": "mine", "airflow.run_id": "r1", "mlflow_projects.role": "step"}
    run = client.create_run(experiment_id, "mine", 2, {**own, **tags})
    client.log_text(run.run_id, "mine", "own.txt")
    client.log_metric(run.run_id, "revenue", 1.0)
    shown = reading.details(client, "mine", "r1", run.run_id)
    files = [file["path"] for file in shown["files"]]
    assert [value for _, value, _ in shown["histories"]["revenue"]] == [1.0 if files == ["own.txt"] else 7.0]
    return files


@pytest.mark.parametrize("key", [{}, GUESSED.tags("reused"), KEY.tags("complete"), KEY.tags("running")])
def test_a_tag_that_a_person_set_leads_to_no_other_run(client: MemoryClient, key: dict[str, str]) -> None:
    tags = {**key, "mlflow_projects.reused_from": their_result(client).run_id}
    assert files_shown(client, "0", tags) == ["own.txt"]


def test_a_key_leads_to_no_run_of_another_experiment(client: MemoryClient) -> None:
    """MLflow's rights go by experiment, and a step looks for results in its own one only."""
    tags = {**KEY.tags("reused"), "mlflow_projects.reused_from": their_result(client).run_id}
    assert files_shown(client, client.create_experiment("mine"), tags) == ["own.txt"]


def test_a_result_that_a_step_took_over_from_another_dag_is_shown(client: MemoryClient) -> None:
    tags = {**KEY.tags("reused"), "mlflow_projects.reused_from": their_result(client).run_id}
    assert files_shown(client, "0", tags) == ["salaries.csv"]


@pytest.mark.parametrize("odd", ["../../x", "x' or '1' = '1", "\x00", "é" * 5000])
def test_what_is_no_id_of_a_run_leads_nowhere(client: MemoryClient, odd: str) -> None:
    run = client.create_run("0", "mine", 1, {**KEY.tags("reused"), "mlflow_projects.reused_from": odd})
    assert maker_of(client, run) == run.run_id
