"""What an attempt leaves in its checkpoint folder is there for the next one, and goes with success."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import HOME, ROOT
from tests.support.dagruns import mlflow_runs, run_dag
from tests.support.engine import Engine, on_both_engines

SHELL = str(ROOT / "tests" / "projects" / "shell")
# Counts its attempts in the checkpoint folder; each fails until WANTED were there before.
COUNT = """\
folder=$MLFLOW_PROJECTS_CHECKPOINT_DIR
before=$(ls $folder/deep/step-* 2>/dev/null | wc -l)
echo "steps found: $before"
mkdir -p $folder/deep
echo $before > $folder/deep/tmp && mv $folder/deep/tmp $folder/deep/step-$before
test $before -ge WANTED
"""

pytestmark = pytest.mark.usefixtures("airflow_db", "tracking_uri")


def count(dag_id: str, wanted: int, **conf: Any) -> Any:
    return run_dag(dag_id, {"uri": SHELL, "parameters": {"command": COUNT.replace("WANTED", str(wanted))}, **conf})


def found_by(result: Any) -> list[int]:
    """Return what each attempt found, as its output says."""
    numbers = re.findall(r"steps found: (\d+)", result.log)
    return [int(number) for number in dict.fromkeys(numbers)]  # a failure quotes the last lines again


def objects(sagemaker: Any, prefix: str) -> list[str]:
    answer = sagemaker.client("s3").list_objects_v2(Bucket=sagemaker.bucket, Prefix=prefix)
    return [found["Key"] for found in answer.get("Contents", ())]


@pytest.fixture(params=["folder", "s3"])
def left(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set a place for checkpoints; return a function that lists the files there."""
    if request.param == "folder":
        monkeypatch.setenv("AIRFLOW__MLFLOW_PROJECTS__CHECKPOINT_DIR", str(tmp_path / "kept"))
        return lambda: [str(path) for path in (tmp_path / "kept").rglob("*") if path.is_file()]
    sagemaker = request.getfixturevalue("sagemaker")
    place = f"kept-{tmp_path.name}"
    monkeypatch.setenv("AIRFLOW__MLFLOW_PROJECTS__CHECKPOINT_DIR", f"s3://{sagemaker.bucket}/{place}")
    return lambda: objects(sagemaker, f"{place}/")


def test_a_retry_finds_what_the_first_attempt_left_and_success_clears_it(left: Any, tracking_uri: str) -> None:
    result = count("one_step", wanted=1)
    assert result.state == "success", result.log[-3000:]
    assert found_by(result) == [0, 1]
    assert left() == []
    first, second = mlflow_runs(tracking_uri, "one_step", result.run_id)[1:]
    assert (first.info.status, second.info.status) == ("FAILED", "FINISHED")


def test_after_the_last_failure_it_stays_and_another_dag_run_does_not_see_it(left: Any) -> None:
    result = count("one_step", wanted=5)
    assert result.tasks["parent.step"].state == "failed"
    assert found_by(result) == [0, 1]
    assert len(left()) in (2, 3)  # two files; on S3, with their manifest
    assert found_by(count("one_step", wanted=1)) == [0, 1]


def test_by_default_it_is_below_airflows_home_and_a_step_without_one_leaves_nothing() -> None:
    result = run_dag(
        "one_step", {"uri": SHELL, "parameters": {"command": "echo at $MLFLOW_PROJECTS_CHECKPOINT_DIR."}}
    )
    assert f"at {HOME}/mlflow_projects_checkpoints/one-step-parent-step-" in result.log
    assert list((HOME / "mlflow_projects_checkpoints").iterdir()) == []


@on_both_engines
def test_a_container_sees_it_too(engine: Engine, base_image: str) -> None:
    result = count("one_step", wanted=1, backend_config={"docker_image": base_image})
    assert result.state == "success", result.log[-3000:]
    assert found_by(result) == [0, 1]
    assert engine.leftovers() == []


@pytest.mark.parametrize("dag_id", ["job_watched", "job_deferred"])
def test_a_training_job_has_one_of_its_own_without_being_asked(dag_id: str, sagemaker: Any) -> None:
    result = count(dag_id, wanted=1)
    assert result.state == "success", result.log[-3000:]
    assert found_by(result) == [0, 1]
    first, second = sagemaker.requests()["create_training_job"][-2:]
    assert first["CheckpointConfig"] == second["CheckpointConfig"]
    address = first["CheckpointConfig"]["S3Uri"]
    assert address.startswith(f"s3://{sagemaker.bucket}/mlflow/checkpoints/{dag_id.replace('_', '-')}-parent-step-")
    assert objects(sagemaker, address.partition(f"{sagemaker.bucket}/")[2]) == []


def test_an_address_that_the_settings_name_is_the_users_own(sagemaker: Any) -> None:
    config = {"checkpoint_s3_uri": f"s3://{sagemaker.bucket}/mine"}
    result = count("job_watched", wanted=0, backend_config=config)
    assert result.state == "success", result.log[-3000:]
    assert objects(sagemaker, "mine/") == ["mine/deep/step-0"]
