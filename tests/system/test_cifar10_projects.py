"""preprocess and train of cifar10, each run alone in its own environment, and what MLflow holds afterwards."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.cifar10 import PROJECTS, import_from, project_environment, project_python, run_project

METRICS = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "epoch_seconds")
EPOCHS = 8
CHECKPOINTS = "MLFLOW_PROJECTS_CHECKPOINT_DIR"


@dataclass(frozen=True)
class Store:
    """An embedded tracking store whose artifacts are in a local folder."""

    uri: str
    experiment_id: str

    @property
    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(self.uri)

    def run(self, name: str, *arguments: str, **environment: str) -> tuple[Any, str]:
        """Run a project; return its finished MLflow run and its output."""
        run_id = self.client.create_run(self.experiment_id, run_name=name).info.run_id
        done = run_project(name, self.uri, *arguments, MLFLOW_RUN_ID=run_id, **environment)
        assert done.returncode == 0, done.stdout
        run = self.client.get_run(run_id)
        assert run.info.status == "FINISHED"
        return run, done.stdout

    def error(self, name: str, *arguments: str) -> str:
        """Run a project that must fail; return the last line that it says."""
        run_id = self.client.create_run(self.experiment_id).info.run_id
        done = run_project(name, self.uri, *arguments, MLFLOW_RUN_ID=run_id)
        assert (done.returncode, self.client.get_run(run_id).info.status) == (1, "FAILED"), done.stdout
        assert "Traceback" not in done.stdout
        return done.stdout.strip().splitlines()[-1]

    def history(self, run_id: str) -> dict[str, list[tuple[int, float]]]:
        return {
            name: [(metric.step, metric.value) for metric in self.client.get_metric_history(run_id, name)]
            for name in METRICS
        }


def downstream(run: Any) -> Path:
    return Path(run.info.artifact_uri.removeprefix("file://")) / "downstream_directory"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("cifar10")
    uri = f"sqlite:///{folder}/mlflow.db"
    MlflowClient(uri).create_experiment("another", artifact_location=str(folder / "another"))
    return Store(uri, MlflowClient(uri).create_experiment("cifar10", artifact_location=str(folder / "artifacts")))


@pytest.fixture(scope="module")
def sample(store: Store) -> Any:
    """A finished run of preprocess on the sample."""
    return store.run("preprocess", "--data", "sample")[0]


@pytest.fixture(scope="module")
def trained(store: Store, sample: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run of train, without an interruption, and without a place for checkpoints."""
    arguments = ("--upstream", str(downstream(sample)), "--model_type", "simple", "--epochs", str(EPOCHS))
    return store.run("train", *arguments)[0]


def test_preprocess_writes_pictures_with_labels(store: Store, sample: Any, tmp_path: Path) -> None:
    folder = downstream(sample)
    batches = import_from("preprocess", "batches")
    import_from("preprocess", "sample").write_sample(tmp_path)
    expected = batches.BatchFolder(tmp_path)
    assert json.loads((folder / "classes.json").read_text()) == expected.classes
    for split, count in (("train", 800), ("test", 200)):
        meta = json.loads((folder / f"meta_{split}.json").read_text())
        assert {path.name for path in (folder / split).glob("*/*.png")} == set(meta)
        (batch,) = expected.batches(split)
        assert list(meta.values()) == batch.labels
        assert sample.data.metrics[f"{split}_images"] == len(meta) == count
        for index, (name, label) in enumerate(meta.items()):
            assert np.array_equal(np.asarray(Image.open(folder / split / str(label) / name)), batch.images[index])
    assert sample.data.metrics["bytes"] == sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert sample.data.metrics["images"] == 1000
    assert sample.data.params == {"data": "sample", "downstream": "", "cached_data_id": ""}
    assert sample.data.tags["cifar10.data_set"] == "sample of drawn shapes"


def test_an_earlier_run_is_taken_over_without_its_data(store: Store, sample: Any, tmp_path: Path) -> None:
    other = Store(store.uri, store.client.get_experiment_by_name("another").experiment_id)
    run, output = other.run(
        "preprocess", "--data", "cifar10", "--cached_data_id", sample.info.run_id, "--downstream", str(tmp_path)
    )
    assert "no download, no decoding" in output
    assert "The data set is sample of drawn shapes; data=cifar10 does not count." in output

    def files(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert files(downstream(run)) == files(downstream(sample)) == files(tmp_path / run.info.run_id)
    assert run.data.tags["cifar10.reused_run"] == sample.info.run_id
    for name in ("images", "train_images", "test_images", "bytes", "classes"):
        assert run.data.metrics[name] == sample.data.metrics[name]


def test_a_run_that_cannot_be_taken_over_is_one_sentence(
    store: Store, sample: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = store.error("preprocess", "--cached_data_id", "0" * 32)
    assert error == f"cached_data_id '{'0' * 32}': there is no such run on {store.uri}."
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    artifacts, client = import_from("preprocess", "artifacts"), store.client

    def made(status: str | None) -> str:
        run_id = str(client.create_run(store.experiment_id, run_name="made").info.run_id)
        if status:
            client.set_terminated(run_id, status)
        return run_id

    deleted, empty = made("FINISHED"), made("FINISHED")
    client.delete_run(deleted)
    client.set_tag(empty, "cifar10.step", "preprocess")
    for run_id, words in (
        ("../../etc", "there is no such run"),
        (made(None), "this run is RUNNING; only a FINISHED one"),
        (made("FAILED"), "this run is FAILED; only a FINISHED one"),
        (made("FINISHED"), "this run (made) is not one of cifar10's preprocess"),
        (deleted, "this run was deleted"),
        (empty, "classes.json, meta_test.json, meta_train.json, test, train is missing in its artifact"),
    ):
        with pytest.raises(artifacts.DataError) as caught:
            artifacts.finished_run(run_id)
        assert words in str(caught.value)


# Says in the environment of train what the files of a trained model answer.
READ_BACK = """
import json, sys, pathlib
import mlflow.pyfunc, mlflow.pytorch, numpy as np, onnxruntime, torch
from PIL import Image
from network import build_network
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

model, pictures, board, uri = sys.argv[1:]
model, pictures = pathlib.Path(model), pathlib.Path(pictures)
about = json.loads((model / "model.json").read_text())
meta = json.loads((pictures / "meta_test.json").read_text())
images = np.stack([np.asarray(Image.open(pictures / "test" / str(label) / name)) for name, label in meta.items()])
mean, std = (np.array(about[name], np.float32).reshape(3, 1, 1) for name in ("mean", "std"))
images = (images.transpose(0, 3, 1, 2).astype(np.float32) / 255 - mean) / std
network = build_network(about["model_type"], len(about["classes"])).eval()
network.load_state_dict(torch.load(model / about["pth"], weights_only=True))
with torch.inference_mode():
    expected = network(torch.from_numpy(images)).numpy()
session = onnxruntime.InferenceSession(str(model / about["onnx"]))
parts = np.split(images, [1, 3])
onnx = np.concatenate([session.run([about["output"]], {about["input"]: part})[0] for part in parts])
loaded = mlflow.pyfunc.load_model(uri)
logged = np.concatenate([loaded.predict(part) for part in parts])
events = EventAccumulator(board).Reload()
print(json.dumps({
    "onnx": float(abs(onnx - expected).max()),
    "mlflow": float(abs(logged - expected).max()),
    "accuracy": float((expected.argmax(1) == np.array(list(meta.values()))).mean()),
    "std": [float(images.std()), float(images.mean())],
    "inputs": str(loaded.metadata.signature.inputs),
    "example": loaded.metadata.saved_input_example_info is not None,
    "board": {name: [event.step for event in events.Scalars(name)] for name in events.Tags()["scalars"]},
}))
"""


def test_all_forms_of_the_trained_model_answer_alike(store: Store, sample: Any, trained: Any) -> None:
    folder, name = downstream(trained), f"cifar10_{store.experiment_id}"
    assert {path.name for path in folder.iterdir()} == {f"{name}.pth", f"{name}.onnx", "model.json"}
    (model,) = store.client.search_logged_models([store.experiment_id], f"source_run_id = '{trained.info.run_id}'")
    assert model.name == "model"
    board = str(folder.parent / "tensorboard_directory")
    read_back = [str(project_python("train")), "-c", READ_BACK, str(folder), str(downstream(sample)), board]
    done = subprocess.run(
        [*read_back, model.artifact_location],
        cwd=PROJECTS / "train",
        env=project_environment(store.uri, {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert max(found["onnx"], found["mlflow"], trained.data.metrics["onnx_max_difference"]) < 1e-4
    assert found["accuracy"] == pytest.approx(trained.data.metrics["accuracy"])
    assert found["accuracy"] > 0.8
    assert found["std"] == pytest.approx([1, 0], abs=0.1)
    assert (found["example"], "(-1, 3, 32, 32)" in found["inputs"]) == (True, True)
    assert found["board"] == {metric: list(range(1, EPOCHS + 1)) for metric in METRICS}


def test_train_records_each_epoch_once_and_what_it_was_asked_for(store: Store, trained: Any) -> None:
    history = store.history(trained.info.run_id)
    assert all([step for step, _ in history[name]] == list(range(1, EPOCHS + 1)) for name in METRICS)
    assert trained.data.metrics["accuracy"] == history["test_accuracy"][-1][1]
    assert trained.data.metrics["loss"] == history["test_loss"][-1][1]
    assert history["train_loss"][-1][1] < history["train_loss"][0][1] / 2
    expected = {
        "epochs": str(EPOCHS),
        "batch_size": "32",
        "learning_rate": "0.001",
        "model_type": "simple",
        "seed": "42",
    }
    assert expected.items() <= trained.data.params.items()
    assert trained.data.metrics["parameters"] == 62_006


@pytest.mark.nightly
def test_a_killed_training_is_resumed_as_if_it_had_not_been_killed(
    store: Store, sample: Any, trained: Any, tmp_path: Path
) -> None:
    """A job that is started again goes on in the same run; then another attempt, with a run of its own, ends it."""
    arguments = ["--upstream", str(downstream(sample)), "--model_type", "simple", "--epochs", str(EPOCHS)]
    run_id = str(store.client.create_run(store.experiment_id).info.run_id)
    variables = project_environment(store.uri, {"MLFLOW_RUN_ID": run_id, CHECKPOINTS: str(tmp_path)})
    first = killed_in_training(arguments, variables)
    second = killed_in_training(arguments, variables)
    steps = [step for step, _ in store.history(run_id)["test_accuracy"]]
    resumed, third = store.run("train", *arguments, **{CHECKPOINTS: str(tmp_path)})
    assert resumed_after(first) == 0
    assert 1 <= resumed_after(second) < resumed_after(third) < EPOCHS
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= resumed_after(second)
    assert f"Epoch {resumed_after(third)} of" not in third
    expected, history = store.history(trained.info.run_id), store.history(resumed.info.run_id)
    for name in METRICS:
        assert [step for step, _ in history[name]] == list(range(1, EPOCHS + 1))
        if name != "epoch_seconds":
            assert [value for _, value in history[name]] == pytest.approx([value for _, value in expected[name]])
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def resumed_after(output: str) -> int:
    found = re.search(r"Resuming after epoch (\d+)", output)
    return int(found[1]) if found else 0


def killed_in_training(arguments: list[str], environment: dict[str, str]) -> str:
    """Start a training, kill it after the first epoch that it does, and return its output."""
    process = subprocess.Popen(
        [str(project_python("train")), "train.py", *arguments],
        cwd=PROJECTS / "train",
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    output = ""
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            output += line
            if line.startswith("Epoch "):
                os.killpg(process.pid, signal.SIGKILL)
                break
    assert process.wait() == -signal.SIGKILL, output
    return output


UNITS = """
import pathlib, sys
import torch
from checkpoint import Checkpoints
from network import build_network

print([sum(parameter.numel() for parameter in build_network(name, 10).parameters())
       for name in ("simple", "vgg11", "vgg16")])
print([tuple(build_network(name, 100)(torch.zeros(2, 3, 32, 32)).shape) for name in ("simple", "vgg11", "vgg16")])
file = pathlib.Path(sys.argv[1])
network = build_network("simple", 10)
optimizer = torch.optim.Adam(network.parameters())
cpu = torch.device("cpu")
Checkpoints(file, {"learning_rate": 0.1, "seed": 1}).save(network, optimizer, [{"loss": 1.0}, {"loss": 0.5}])
for settings, epochs in (({"learning_rate": 0.1, "seed": 1}, 2), ({"learning_rate": 0.2, "seed": 1}, 2),
                         ({"learning_rate": 0.1, "seed": 1}, 1)):
    print(Checkpoints(file, settings).restore(network, optimizer, epochs, cpu))
file.write_bytes(file.read_bytes()[:5000])
print(Checkpoints(file, {"learning_rate": 0.1, "seed": 1}).restore(network, optimizer, 2, cpu))
"""


def test_networks_have_their_sizes_and_checkpoints_of_other_trainings_are_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pt"
    done = subprocess.run(
        [str(project_python("train")), "-c", UNITS, str(file)],
        cwd=PROJECTS / "train",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["[62006, 9505386, 15002538]", "[(2, 100), (2, 100), (2, 100)]"]
    assert lines[2:4] == [
        "[{'loss': 1.0}, {'loss': 0.5}]",
        f"The checkpoint {file} is left alone: it has other learning_rate.",
    ]
    assert lines[4:7] == ["[]", f"The checkpoint {file} is left alone: it has other epochs or format.", "[]"]
    assert lines[7].startswith(f"The checkpoint {file} is left alone, because it cannot be read: ")
    assert lines[-1] == "[]"


def test_what_is_no_output_of_preprocess_is_one_sentence(store: Store, sample: Any, tmp_path: Path) -> None:
    damaged = [shutil.copytree(downstream(sample), tmp_path / name) for name in ("first", "second", "third")]
    (damaged[0] / "classes.json").unlink()
    (damaged[1] / "meta_test.json").write_text("{}")
    next(damaged[2].glob("train/3/*")).write_bytes(b"")
    done = subprocess.run(
        [str(project_python("train")), "-c", DAMAGED, *map(str, damaged)],
        cwd=PROJECTS / "train",
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line for line in done.stdout.splitlines() if not line.endswith("pictures read")]
    assert len(found) == 3, done
    assert f"{damaged[0]}/classes.json is missing: upstream must be what preprocess made." in found
    assert f"{damaged[1]}/meta_test.json must give each picture a label below 10, and name at least one." in found
    assert "is not a picture of 32×32" in found[2]
    assert store.error("train", "--upstream", f"{tmp_path}/none") == (
        f"upstream {tmp_path}/none is not a folder; it must be what preprocess made."
    )


DAMAGED = """
import pathlib, sys
from pictures import TrainingError, read_pictures

for folder in sys.argv[1:]:
    try:
        read_pictures(pathlib.Path(folder), 1)
    except TrainingError as error:
        print(error)
"""
