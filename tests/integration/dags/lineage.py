"""What steps hand on: facts in the events of their outlets, and lineage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, task

from mlflow_projects import MLflowProjectOperator, artifact, mlflow_run

PROJECTS = Path(__file__).resolve().parents[2] / "projects"
SHELL = str(PROJECTS / "shell")


def ends(name: str, command: str, **arguments: Any) -> MLflowProjectOperator:
    """Return a step whose outlet is named as the step is."""
    return MLflowProjectOperator(
        task_id=name, uri=SHELL, parameters={"command": command}, outlets=[Asset(name)], **arguments
    )


@task.mlflow(outlets=[Asset("scored")])
def score(file: str, ratio: float) -> float:
    """Log a metric of its own."""
    import mlflow

    mlflow.log_metric("ratio", ratio)
    mlflow.log_text(file, "scores.txt")
    return ratio


@task.mlflow(log_to="parent", outlets=[Asset("into_parent")])
def into_parent() -> None:
    """Have no run of its own."""


with DAG("lineage", schedule=None, params={"data": "/", "model": "x"}):
    with mlflow_run("parent", experiment_name="lineage"):
        make = MLflowProjectOperator(
            task_id="make",
            uri=str(PROJECTS / "lineage"),
            parameters={"data": "{{ params.data }}", "model": "{{ params.model }}"},
            inlets=[Asset("s3://lake/by/hand")],
            outlets=[Asset("made"), Asset("mlflow://models/Lineage"), Asset("s3://lake/made")],
        )
        read = MLflowProjectOperator(
            task_id="read",
            uri=SHELL,
            parameters={
                "command": "true", "file": artifact(make, "made/text.txt"), "model": make.model("model"),
                "raw": "s3a://lake/raw/",
            },
        )  # fmt: skip
        score(artifact(make, "top.txt"), 0.25) >> into_parent()
        once = ends("once", "echo once", reuse=True)
        once >> ends("again", "echo once", reuse=True)
        ends("fails", "exit 1")
        ends("skips", "exit 99", skip_on_exit_code=99)
