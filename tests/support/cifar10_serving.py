"""A model, pictures and answers for the tests of cifar10's building and evaluate, without a training."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from tests.support.cifar10 import project_python, run_project

CLASSES = [f"class {number}" for number in range(10)]
# Runs in the environment of train, which has onnx.
_MAKE_MODEL = """
import sys
import numpy, onnx
from onnx import TensorProto, helper, numpy_helper

random = numpy.random.default_rng(7)
weights = numpy_helper.from_array(random.normal(size=(3072, 10)).astype("float32"), "weights")
nodes = [
    helper.make_node("Flatten", ["input"], ["flat"]), helper.make_node("MatMul", ["flat", "weights"], ["output"])
]
graph = helper.make_graph(
    nodes, "linear",
    [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 32, 32])],
    [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", 10])], [weights],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
onnx.checker.check_model(model)
onnx.save(model, sys.argv[1])
"""
_MAKE_PICTURES = """
import pathlib, sys
import numpy
from PIL import Image

random = numpy.random.default_rng(8)
for label in range(10):
    folder = pathlib.Path(sys.argv[1], "test", str(label))
    folder.mkdir(parents=True)
    for number in range(int(sys.argv[2])):
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype="uint8")).save(folder / f"{label}_{number}.png")
"""
# What evaluate must find, computed from the files alone, one picture at a time.
_PREDICT = """
import json, pathlib, sys
import numpy, onnxruntime
from PIL import Image

about = json.loads(pathlib.Path(sys.argv[1], "model.json").read_text())
session = onnxruntime.InferenceSession(str(pathlib.Path(sys.argv[1], about["onnx"])))
mean, std = (numpy.array(about[key], "float32")[:, None, None] for key in ("mean", "std"))
logits = {}
for file in sorted(pathlib.Path(sys.argv[2]).glob("*/*.png")):
    pixels = numpy.asarray(Image.open(file).convert("RGB"), "float32").transpose(2, 0, 1) / 255
    logits["/".join(file.parts[-2:])] = session.run(None, {about["input"]: [(pixels - mean) / std]})[0][0].tolist()
print(json.dumps(logits))
"""


def make_model(folder: Path) -> Path:
    """Make a folder like train's artifact, with a linear model of random weights."""
    folder.mkdir(parents=True)
    _python("train", _MAKE_MODEL, str(folder / "cifar10_1.onnx"))
    about = {"classes": CLASSES, "mean": [0.5, 0.45, 0.4], "std": [0.2, 0.25, 0.3], "shape": [3, 32, 32]}
    names = {"input": "input", "output": "output", "onnx": "cifar10_1.onnx", "pth": "cifar10_1.pth"}
    (folder / "model.json").write_text(json.dumps({**about, **names, "model_type": "linear"}))
    return folder


def make_pictures(folder: Path, per_class: int) -> Path:
    """Make a folder like preprocess's artifact, with random pictures below ``test``."""
    _python("evaluate", _MAKE_PICTURES, str(folder), str(per_class))
    return folder


def predicted_directly(model: Path, test: Path) -> dict[str, list[float]]:
    """Return the logits of every ``<label>/<file>.png`` by the ONNX file of a folder, without a server."""
    return dict(json.loads(_python("building", _PREDICT, str(model), str(test)).splitlines()[-1]))


def accuracy(logits: dict[str, list[float]]) -> float:
    """Return the part of the pictures whose largest logit is that of their label."""
    right = sum(values.index(max(values)) == int(name.partition("/")[0]) for name, values in logits.items())
    return right / len(logits)


def _python(project: str, code: str, *arguments: str) -> str:
    done = subprocess.run(
        [project_python(project), "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_and_find(name: str, tracking_uri: str, *arguments: str, ok: bool = True, **options: Any) -> tuple[Any, str]:
    """Run a project alone; return its MLflow run and its output."""
    client = MlflowClient(tracking_uri)
    run = client.create_run(client.get_experiment_by_name("Default").experiment_id, run_name=name)
    done = run_project(name, tracking_uri, *arguments, MLFLOW_RUN_ID=run.info.run_id, **options)
    assert (done.returncode == 0) is ok, done.stdout
    return client.get_run(run.info.run_id), done.stdout
