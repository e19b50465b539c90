"""The DAG cifar10, end to end: what Airflow and MLflow say, and whether the figures are those of the files."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from tests.support.cifar10 import CACHE, PROJECTS, ROOT, project_python
from tests.support.cifar10_serving import accuracy, predicted_directly
from tests.support.dagruns import DagRunResult, load_dag, mlflow_runs, run_dag

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("airflow_db", "shared_environments")]
STEPS = ("preprocess", "train", "building", "evaluate")
SMALL = {
    "preprocess_data": "sample",
    "train_model_type": "simple",
    "train_num_workers": 0,
    "building_mode": "process",
}
# Runs in the environment of train: the logits of the .pth file for the same pictures.
_PREDICT_PTH = """
import json, pathlib, sys
import numpy, torch
from PIL import Image
from network import build_network

folder = pathlib.Path(sys.argv[1])
about = json.loads((folder / "model.json").read_text())
network = build_network(about["model_type"], len(about["classes"])).eval()
network.load_state_dict(torch.load(folder / about["pth"], weights_only=True))
mean, std = (numpy.array(about[key], "float32")[:, None, None] for key in ("mean", "std"))
logits = {}
for file in sorted(pathlib.Path(sys.argv[2]).glob("*/*.png")):
    pixels = numpy.asarray(Image.open(file).convert("RGB"), "float32").transpose(2, 0, 1) / 255
    with torch.inference_mode():
        logits["/".join(file.parts[-2:])] = network(torch.from_numpy((pixels - mean) / std)[None])[0].tolist()
print(json.dumps(logits))
"""


@pytest.fixture(scope="module")
def shared_environments() -> Any:
    """Let Airflow take the environments that all tests share, PyTorch among them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__MLFLOW_PROJECTS__CACHE_DIR", str(CACHE))
        yield


@pytest.fixture(scope="module")
def result(airflow_db: None, shared_environments: None, mlflow_server: str) -> DagRunResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
        return run_dag("cifar10", SMALL)


@pytest.fixture(scope="module")
def runs(result: DagRunResult, mlflow_server: str) -> dict[str, Any]:
    assert result.state == "success", result.log[-12000:]
    return result.runs(mlflow_server)


@pytest.fixture(scope="module")
def files(runs: dict[str, Any], mlflow_server: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The artifacts ``downstream_directory`` of all steps."""
    return {
        step: Path(
            download_artifacts(
                f"{runs[step].info.artifact_uri}/downstream_directory",
                dst_path=str(tmp_path_factory.mktemp(step)),
                tracking_uri=mlflow_server,
            )
        )
        for step in STEPS
    }


def test_make_demo_takes_the_same_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow accepts a param that no DAG knows, so a wrong name would stay unseen."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    from demo import DEMO_CONF

    assert DEMO_CONF["cifar10"] == SMALL
    assert SMALL.keys() <= load_dag("cifar10").params.keys()


def test_four_finished_children_are_below_one_parent(runs: dict[str, Any]) -> None:
    assert {name: run.info.status for name, run in runs.items()} == dict.fromkeys(("cifar10", *STEPS), "FINISHED")
    parent = runs["cifar10"].info.run_id
    assert {runs[step].data.tags["mlflow.parentRunId"] for step in STEPS} == {parent}
    artifacts = {step: runs[step].info.artifact_uri for step in STEPS}
    assert runs["train"].data.params["upstream"] == f"{artifacts['preprocess']}/downstream_directory"
    assert runs["building"].data.params["model_directory"] == f"{artifacts['train']}/downstream_directory"
    assert runs["evaluate"].data.params["upstream"] == f"{artifacts['building']}/downstream_directory"
    assert (
        runs["evaluate"].data.params["test_data_directory"] == f"{artifacts['preprocess']}/downstream_directory/test"
    )


def test_preprocess_and_train_work_with_a_tracking_server_that_keeps_the_artifacts(
    result: DagRunResult, runs: dict[str, Any], mlflow_server: str
) -> None:
    assert runs["preprocess"].info.artifact_uri.startswith("mlflow-artifacts:/")
    assert runs["train"].data.params["upstream"].startswith("mlflow-artifacts:/")
    assert "train: 800 pictures read" in result.log
    names = MlflowClient(mlflow_server).list_artifacts(runs["train"].info.run_id, "downstream_directory")
    assert len(names) == 3


def test_the_accuracy_is_that_of_the_onnx_file_and_the_logits_are_those_of_the_pth_file(
    runs: dict[str, Any], files: dict[str, Path]
) -> None:
    test = files["preprocess"] / "test"
    by_onnx = predicted_directly(files["train"], test)
    assert runs["evaluate"].data.metrics["accuracy"] == accuracy(by_onnx)
    assert runs["evaluate"].data.metrics["total_tested"] == len(by_onnx) == len(list(test.glob("*/*.png")))
    done = subprocess.run(
        [project_python("train"), "-c", _PREDICT_PTH, files["train"], test],
        cwd=PROJECTS / "train", capture_output=True, text=True, check=True, timeout=280,
    )  # fmt: skip
    by_pth = json.loads(done.stdout.splitlines()[-1])
    assert by_pth.keys() == by_onnx.keys()
    for name, logits in by_pth.items():
        assert logits == pytest.approx(by_onnx[name], abs=1e-4)
    answers = json.loads((files["evaluate"] / "predictions.json").read_text())["predictions"]
    labels = json.loads((files["preprocess"] / "meta_test.json").read_text())
    assert {name.rpartition("/")[2]: answer["label"] for name, answer in answers.items()} == {
        name.rpartition("/")[2]: label for name, label in labels.items()
    }


def test_the_record_of_train_says_what_was_trained(runs: dict[str, Any], files: dict[str, Path]) -> None:
    about = json.loads((files["train"] / "model.json").read_text())
    experiment = runs["train"].info.experiment_id
    assert (about["onnx"], about["pth"]) == (f"cifar10_{experiment}.onnx", f"cifar10_{experiment}.pth")
    metrics = runs["train"].data.metrics
    assert metrics["parameters"] == 62_006
    assert metrics["test_accuracy"] == pytest.approx(runs["evaluate"].data.metrics["accuracy"], abs=1e-9)


def test_a_wrong_cached_data_id_fails_with_one_sentence(tracking_uri: str) -> None:
    # Three tries with the DAG's pauses would say the same three times.
    result = run_dag("cifar10", {**SMALL, "preprocess_cached_data_id": "0" * 32}, retries=0)
    assert result.state == "failed"
    parent, preprocess = mlflow_runs(tracking_uri, "cifar10", result.run_id)
    assert (parent.info.status, preprocess.info.status) == ("FAILED", "FAILED")
    assert preprocess.info.run_name == "preprocess"
    tail = preprocess.data.tags["mlflow_projects.output_tail"]
    assert f"cached_data_id '{'0' * 32}': there is no such run on " in tail
    assert "Traceback" not in tail


@pytest.mark.nightly
def test_a_second_run_takes_the_files_of_the_first_and_train_as_a_training_job_leaves_the_same_record(
    runs: dict[str, Any], files: dict[str, Path], tracking_uri: str, sagemaker: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # The "image" of the stand-in is this machine: it gets the packages of train by the PATH of the job.
    defaults = json.loads(os.environ["AIRFLOW__MLFLOW_PROJECTS__SAGEMAKER"])
    defaults["environment"] = {"PATH": f"{project_python('train').parent}{os.pathsep}{os.environ['PATH']}"}
    monkeypatch.setenv("AIRFLOW__MLFLOW_PROJECTS__SAGEMAKER", json.dumps(defaults))
    cached = runs["preprocess"].info.run_id
    result = run_dag("cifar10", {**SMALL, "preprocess_cached_data_id": cached, "train_backend": "sagemaker"})
    assert result.state == "success", result.log[-12000:]
    assert cached in result.log
    second = result.runs(tracking_uri)
    uri = f"{second['preprocess'].info.artifact_uri}/downstream_directory/meta_test.json"
    copied = Path(download_artifacts(uri, dst_path=str(tmp_path), tracking_uri=tracking_uri))
    assert copied.read_bytes() == (files["preprocess"] / "meta_test.json").read_bytes()
    assert second["train"].data.tags["mlflow.project.backend"] == "sagemaker"
    client = MlflowClient(tracking_uri)

    def record(run: Any) -> dict[str, Any]:
        figures = {k: v for k, v in run.data.metrics.items() if not k.startswith(("sagemaker/", "epoch_seconds"))}
        return {
            "params": {key: value for key, value in run.data.params.items() if key != "upstream"},
            "metrics": {name: pytest.approx(value, rel=1e-6) for name, value in figures.items()},
            "files": [file.path for file in client.list_artifacts(run.info.run_id, "downstream_directory")],
        }

    assert record(second["train"]) == record(runs["train"])
    # The same files, seed and settings: the same model, to the last figure.
    for metric in ("accuracy", "total_tested"):
        assert second["evaluate"].data.metrics[metric] == runs["evaluate"].data.metrics[metric]
