"""The three steps of the hands-on leave the same records alone and as a DAG."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.cifar10 import CACHE
from tests.support.dagruns import DagRunResult, run_dag
from tests.support.introduction import artifacts, children, histories, kinds_missing, run_alone

STEPS = ("step2", "step3", "step4")
PARAMETERS = {"Dence": "128", "Dropout": "0.1", "Activation": "relu"}
ERRORS = {"mse": [(0, 100.0), (1, 80.0)], "rmse": [(0, 50.0), (1, 30.0)]}
Runs = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def shared_environments() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__MLFLOW_PROJECTS__CACHE_DIR", str(CACHE))
        yield


@pytest.fixture(scope="module")
def as_dag(airflow_db: None, mlflow_server: str) -> DagRunResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
        return run_dag("hands_on")


@pytest.fixture(scope="module", params=["as a DAG", "alone"])
def runs(request: pytest.FixtureRequest, mlflow_server: str) -> Runs:
    """Return the run of each step."""
    from mlflow import MlflowClient

    if request.param == "alone":
        return {step: run_alone(mlflow_server, "hands_on", step, f"alone {step}") for step in STEPS}
    result: DagRunResult = request.getfixturevalue("as_dag")
    assert result.state == "success", result.log
    client = MlflowClient(mlflow_server)
    return {step: client.get_run(result.tasks[f"hands_on.{step}"].xcom["run_id"]) for step in STEPS}


def own_tags(run: Any) -> dict[str, str]:
    """Return the tags that neither MLflow nor Airflow writes."""
    return {
        name: value
        for name, value in run.data.tags.items()
        if not name.startswith(("mlflow.", "airflow.", "mlflow_projects."))
    }


def test_step2_records_a_tag_parameters_and_metrics(runs: Runs, mlflow_server: str, tmp_path: Path) -> None:
    run = runs["step2"]
    assert (run.info.run_name, run.info.status) == ("SampleA", "FINISHED")
    assert own_tags(run) == {"tagA": "hoge"}
    assert run.data.params == PARAMETERS
    assert histories(mlflow_server, run) == ERRORS
    assert artifacts(mlflow_server, run, tmp_path) == {}


def test_step3_records_three_files_more(runs: Runs, mlflow_server: str, tmp_path: Path) -> None:
    from PIL import Image

    run = runs["step3"]
    assert (run.info.run_name, own_tags(run), run.data.params) == ("SampleA", {"tagA": "hoge"}, PARAMETERS)
    assert histories(mlflow_server, run) == ERRORS
    files = artifacts(mlflow_server, run, tmp_path)
    assert set(files) == {"file1.txt", "file2.json", "sample.png"}
    assert files["file1.txt"] == b"Hello world"
    assert json.loads(files["file2.json"]) == {"var1": 1.0, "var2": "fugafuga"}
    with Image.open(tmp_path / "sample.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (600, 400))
        assert len(picture.convert("RGB").getcolors(2**24)) > 10, "it shows something"


def test_step4_records_two_runs_below_its_own(runs: Runs, mlflow_server: str) -> None:
    run = runs["step4"]
    assert (run.info.run_name, own_tags(run)) == ("SampleA", {"parentTagA": "hoge"})
    below = children(mlflow_server, run.info.run_id)
    assert set(below) == {"ChildrenSampleB", "ChildrenSampleC"}
    assert {child.info.status for child in below.values()} == {"FINISHED"}
    second, third = below["ChildrenSampleB"], below["ChildrenSampleC"]
    assert (own_tags(second), second.data.params) == ({"childrenTagA": "fuga"}, PARAMETERS)
    assert histories(mlflow_server, second) == ERRORS
    assert own_tags(third) == {"childrenTagA": "hogehoge"}
    assert third.data.params == {"Dence": "256", "Dropout": "0.3", "Activation": "relu"}
    assert histories(mlflow_server, third) == {"mse": [(0, 120.0), (1, 60.0)], "rmse": [(0, 70.0), (1, 10.0)]}


def made_at(result: DagRunResult) -> datetime:
    """Return when a DAG run was made, by Airflow's database."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        query = select(DagRun.run_after).where(DagRun.dag_id == result.dag_id, DagRun.run_id == result.run_id)
        return session.scalars(query).one()


def test_the_dag_puts_all_steps_below_one_run_in_an_experiment_called_after_the_time(
    as_dag: DagRunResult, mlflow_server: str
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_server)
    parent = client.get_run(as_dag.tasks["hands_on.start_run"].xcom["run_id"])
    experiment = client.get_experiment(parent.info.experiment_id)
    assert experiment.name == made_at(as_dag).strftime("%Y-%m-%d %H:%M:%S")
    below = client.search_runs([experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert sorted(run.data.tags["airflow.task_id"] for run in below) == [f"hands_on.{step}" for step in STEPS]
    assert parent.info.status == "FINISHED"
    missing = {run.data.tags["airflow.task_id"]: kinds_missing(mlflow_server, run) for run in below}
    assert missing == {  # what the hands-on itself does not record
        "hands_on.step2": ["artifacts"],
        "hands_on.step3": [],
        "hands_on.step4": ["params", "metrics", "artifacts"],
    }


def test_the_experiment_can_be_named(airflow_db: None) -> None:
    from mlflow_projects.operators.runs import MLflowStartRunOperator
    from tests.support.dagruns import load_dag

    start = load_dag("hands_on").get_task("hands_on.start_run")
    assert isinstance(start, MLflowStartRunOperator)
    start.render_template_fields({"params": {"experiment_name": "実践 hands-on"}, "task": start})
    assert start.experiment_name == "実践 hands-on"
