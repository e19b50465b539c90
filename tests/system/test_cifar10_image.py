"""preprocess and train as steps in the image of custom_images/cifar10, which is built for it with a real engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.cifar10 import CACHE, PROJECTS, build_image
from tests.support.dagruns import run_dag
from tests.support.engine import Engine

# Building the image takes minutes.
pytestmark = [pytest.mark.full_size, pytest.mark.timeout(3600), pytest.mark.usefixtures("airflow_db")]


@pytest.fixture
def image(engine: Engine, base_image: str) -> str:
    return build_image(engine, base_image)


def test_both_run_in_the_image(engine: Engine, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    MlflowClient(uri).create_experiment("in the image", artifact_location=str(tmp_path / "artifacts"))

    def step(name: str, **parameters: Any) -> Any:
        conf = {"uri": str(PROJECTS / name), "parameters": parameters, "experiment_name": "in the image"}
        result = run_dag("one_step", {**conf, "backend_config": {"docker_image": image}})
        assert result.state == "success", result.log
        return result.runs(uri)["step"]

    made = step("preprocess", data="sample")
    assert made.data.metrics["images"] == 1000
    trained = step("train", upstream=f"{made.info.artifact_uri}/downstream_directory", model_type="simple")
    assert trained.data.metrics["parameters"] == 62_006
    assert trained.data.metrics["onnx_max_difference"] < 1e-4
    assert engine.leftovers() == []


def test_the_whole_pipeline_in_containers(
    engine: Engine, image: str, base_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """preprocess and train in the image; the server's image built, run and evaluated."""
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("AIRFLOW__MLFLOW_PROJECTS__CACHE_DIR", str(CACHE))
    MlflowClient(uri).create_experiment("cifar10", artifact_location=str(tmp_path / "artifacts"))
    small = {"preprocess_data": "sample", "train_model_type": "simple", "train_num_workers": 0}
    in_containers = {
        "environment": "image",
        "image": image,
        "building_mode": "image",
        "building_base_image": base_image,
    }
    result = run_dag("cifar10", {**small, **in_containers})
    assert result.state == "success", result.log[-12000:]
    runs = result.runs(uri)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert runs["evaluate"].data.tags["server_kind"] == "image"
    assert runs["evaluate"].data.metrics["accuracy"] == runs["train"].data.metrics["test_accuracy"]
    assert engine.leftovers() == []
