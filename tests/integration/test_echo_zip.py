"""The main job, end to end: what Airflow and MLflow say of one run of dags/echo_zip.py."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from tests.support.dagruns import DagRunResult, run_dag

TEXT = 'こんにちは $(touch pwned) "quoted"'


@pytest.fixture(scope="module", params=["http", "sqlite"])
def store(request: pytest.FixtureRequest, mlflow_server: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "http":
        return mlflow_server
    return f"sqlite:///{tmp_path_factory.mktemp('embedded')}/mlflow.db"


@pytest.fixture(scope="module")
def result(airflow_db: None, store: str) -> DagRunResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", store)
        return run_dag("echo_zip", conf={"text": TEXT, "num": 3})


def test_the_tree_is_one_parent_with_a_finished_child_per_step(result: DagRunResult, store: str) -> None:
    runs = result.runs(store)
    assert result.state == "success"
    assert {name: run.info.status for name, run in runs.items()} == dict.fromkeys(
        ("pipeline", "echo", "zip"), "FINISHED"
    )
    parent = runs["pipeline"].info.run_id
    assert "mlflow.parentRunId" not in runs["pipeline"].data.tags
    assert runs["echo"].data.tags["mlflow.parentRunId"] == runs["zip"].data.tags["mlflow.parentRunId"] == parent
    assert result.tasks["pipeline.start_run"].xcom["run_id"] == parent


def test_the_zip_holds_what_echo_wrote(result: DagRunResult, store: str, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    run_id = result.tasks["pipeline.zip"].xcom["run_id"]
    path = MlflowClient(store).download_artifacts(run_id, "downstream/upstream.zip", str(tmp_path))
    with zipfile.ZipFile(io.BytesIO(Path(path).read_bytes())) as archive:
        assert archive.testzip() is None
        assert archive.read("echo.txt").decode() == f"{TEXT}\n" * 3


def test_a_step_holds_every_one_of_the_seven_kinds_of_record(
    result: DagRunResult, store: str, repository_root: Path
) -> None:
    from mlflow import MlflowClient

    run = result.runs(store)["echo"]
    tags = run.data.tags
    assert re.fullmatch(r"[0-9a-f]{40}", tags["mlflow.source.git.commit"])  # code version
    assert run.info.start_time <= run.info.end_time
    assert tags["mlflow.source.name"] == f"{repository_root}/sample_projects/echo"
    assert tags["mlflow.source.type"] == "PROJECT"
    assert tags["mlflow.project.entryPoint"] == "main"
    assert tags["mlflow.project.backend"] == tags["mlflow.project.env"] == "local"
    assert (tags["airflow.dag_id"], tags["airflow.run_id"]) == ("echo_zip", result.run_id)
    assert (tags["airflow.task_id"], tags["airflow.try_number"], tags["airflow.map_index"]) == (
        "pipeline.echo", "1", "-1",
    )  # fmt: skip
    assert tags["airflow.logical_date"]
    assert run.data.params == {"text": TEXT, "num": "3"}
    assert run.data.metrics == {"lines": 3.0, "bytes": float(len(f"{TEXT}\n".encode()) * 3)}
    (file,) = MlflowClient(store).list_artifacts(run.info.run_id, "downstream")
    assert (file.path, file.file_size) == ("downstream/echo.txt", len(f"{TEXT}\n".encode()) * 3)


def test_airflow_and_mlflow_link_to_each_other(result: DagRunResult, store: str) -> None:
    run = result.runs(store)["echo"]
    task_page = unquote(urlparse(run.data.tags["airflow.task_url"]).path)
    assert task_page == f"/dags/echo_zip/runs/{result.run_id}/tasks/pipeline.echo"
    expected = f"{store}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    assert result.tasks["pipeline.echo"].link == (expected if store.startswith("http") else "")


def test_the_xcom_of_a_step_tells_later_tasks_all_they_need(result: DagRunResult, store: str) -> None:
    run = result.runs(store)["echo"]
    assert result.tasks["pipeline.echo"].xcom == {
        "run_id": run.info.run_id,
        "experiment_id": run.info.experiment_id,
        "artifact_uri": run.info.artifact_uri,
        "status": "FINISHED",
        "run_name": "echo",
        "metrics": run.data.metrics,
        "params": run.data.params,
        "mlflow_conn_id": "mlflow_default",
        "models": {},
    }
    assert result.runs(store)["zip"].data.params == {"upstream": f"{run.info.artifact_uri}/downstream"}


def test_a_value_from_the_trigger_form_never_becomes_shell(result: DagRunResult, repository_root: Path) -> None:
    assert result.state == "success"
    assert not list((repository_root / "sample_projects").rglob("pwned"))
