"""The files of a new project: two steps that need nothing but Python and MLflow."""

from __future__ import annotations

import json
import os
import platform
import string
from importlib import metadata
from pathlib import Path

_MLPROJECT = """\
# What an MLproject file may hold: https://mlflow.org/docs/latest/ml/projects
name: $name
$environment
entry_points:
  train:
    parameters:
      rows: {type: int, default: 200}
      noise: {type: float, default: 0.1}
    command: "python train.py --rows {rows} --noise {noise}"
  evaluate:
    parameters:
      model: uri
    command: "python evaluate.py --model {model}"
"""

_PYTHON_ENV = """\
# The environment of this project's steps. It is built once, and again when this file changes.
python: "$python"
dependencies:
  - mlflow==$mlflow
"""

_TRAIN = '''\
"""Fit a line to noisy points, and log the model."""

import argparse
import random

import mlflow



class Line(mlflow.pyfunc.PythonModel):
    """y = slope * x + offset."""

    def __init__(self, slope: float, offset: float) -> None:
        self.slope, self.offset = slope, offset

    def predict(self, model_input: list[float]) -> list[float]:
        """Return y for each x."""
        return [self.slope * x + self.offset for x in model_input]


parser = argparse.ArgumentParser()
parser.add_argument("--rows", type=int)
parser.add_argument("--noise", type=float)
options = parser.parse_args()

chance = random.Random(7)
points = []
for _ in range(options.rows):
    x = chance.random()
    points.append((x, 2 * x + 1 + chance.gauss(0, options.noise)))

slope, offset = 0.0, 0.0
with mlflow.start_run():  # continues the run that Airflow opened
    for epoch in range(20):
        for x, y in points:
            error = slope * x + offset - y
            slope, offset = slope - 0.1 * error * x, offset - 0.1 * error
        loss = sum((slope * x + offset - y) ** 2 for x, y in points) / len(points)
        mlflow.log_metric("loss", loss, step=epoch)
    mlflow.pyfunc.log_model(name="model", python_model=Line(slope, offset), pip_requirements=["mlflow"])
print(f"y = {slope:.2f} x + {offset:.2f}")
'''

_EVALUATE = '''\
"""Compare a model with the truth, y = 2 x + 1."""

import argparse

import mlflow

parser = argparse.ArgumentParser()
parser.add_argument("--model")  # models:/m-…, from the step before
model = mlflow.pyfunc.load_model(parser.parse_args().model)

points = [step / 100 for step in range(101)]
worst = max(abs(y - (2 * x + 1)) for x, y in zip(points, model.predict(points), strict=True))
with mlflow.start_run():
    mlflow.log_metric("worst_error", worst)
print(f"off by {worst:.3f} at most")
'''

_DAG = '''\
"""### $name

Trains a model, then evaluates it: two steps, two MLflow runs below one parent run.
"""

from datetime import datetime, timedelta
from pathlib import Path

from airflow.sdk import DAG, Param

from mlflow_projects import MLflowProjectOperator, mlflow_run

PROJECT = $project

with DAG(
    "$name",
    schedule=None,  # "0 3 * * *" is every night at 03:00 UTC
    start_date=datetime(2026, 1, 1),
    catchup=False,
    default_args={"retries": 1, "retry_delay": timedelta(seconds=30)},
    params={
        "rows": Param(200, type="integer", minimum=10, title="Rows", description="How many points to learn from."),
        "noise": Param(0.1, type="number", minimum=0, title="Noise", description="How far the points are off."),
    },
    doc_md=__doc__,
):
    with mlflow_run("$name", experiment_name="$name"):
        train = MLflowProjectOperator(
            task_id="train",
            uri=str(PROJECT),
            entry_point="train",
            parameters={"rows": "{{ params.rows }}", "noise": "{{ params.noise }}"},
        )
        MLflowProjectOperator(
            task_id="evaluate",
            uri=str(PROJECT),
            entry_point="evaluate",
            parameters={"model": train.model("model")},  # so it waits for train
        )
'''


def project_files(name: str, python_env: bool) -> dict[str, str]:
    """Return the text of each file of a project, by the file's name.

    :param python_env: give it an environment of its own, with this Python and this MLflow
    """
    environment = "python_env: python_env.yaml\n" if python_env else ""
    files = {
        "MLproject": string.Template(_MLPROJECT).substitute(name=name, environment=environment),
        "train.py": _TRAIN,
        "evaluate.py": _EVALUATE,
    }
    if python_env:
        python = ".".join(platform.python_version_tuple()[:2])
        mlflow = metadata.version("mlflow-skinny")
        files["python_env.yaml"] = string.Template(_PYTHON_ENV).substitute(python=python, mlflow=mlflow)
    return files


def dag_file(name: str, project: str) -> str:
    """Return the text of the DAG's file.

    :param project: a Python expression for the project's folder
    """
    return string.Template(_DAG).substitute(name=name, project=project)


def path_expression(project: Path, dag: Path) -> str:
    """Return Python for the project's folder, seen from the DAG's file, so that both may move together."""
    parts = Path(os.path.relpath(project.resolve(), dag.parent.resolve())).parts
    up = parts.count("..")
    if up > 2:  # too far apart to move together
        return f"Path({json.dumps(str(project))})"
    names = "".join(f" / {json.dumps(part)}" for part in parts[up:])
    return f"Path(__file__).resolve().parents[{up}]{names}"
