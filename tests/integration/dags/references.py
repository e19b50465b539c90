"""What steps leave to later ones: in mapped steps, in mapped groups, and models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow.sdk import DAG, TaskGroup, task_group

from mlflow_projects import MLflowProjectOperator, artifact, mlflow_run

SHELL = str(Path(__file__).resolve().parents[2] / "projects" / "shell")


def step(name: str, **parameters: Any) -> MLflowProjectOperator:
    """Return a step that only records what it is given."""
    return MLflowProjectOperator(task_id=name, uri=SHELL, parameters={"command": "true", **parameters})


with DAG("references", schedule=None):
    with mlflow_run("parent", experiment_name="references"):
        one = step("one")
        many = MLflowProjectOperator.partial(task_id="many", uri=SHELL).expand(
            parameters=[{"command": f"echo {n}"} for n in range(2)]
        )
        MLflowProjectOperator.partial(
            task_id="mapped_reader", uri=SHELL, parameters={"command": "true", "up": artifact(one, "x")}
        ).expand_kwargs([{"run_name": "a"}, {"run_name": "b"}])
        step("reads_many", up=artifact(many, "x"), same=artifact(many.output, "x"))

        @task_group
        def group(n: int) -> None:
            """Make something and read it, once for each index."""
            make = step("make", n=n)
            step("read", up=make.artifact("x"), text=f"{make.artifact('y')}")
            with TaskGroup("inner"):
                step("deep", up=artifact(make, "z"), above=one.artifact("w"))
            step("mapped", up=artifact(many, "x"))

        mapped = group.expand(n=[7, 8, 9])
        step("after", up=artifact(mapped.dag.get_task("parent.group.make"), "x"))

LOG_MODEL = """python -c "
import os, mlflow
from mlflow.entities import LoggedModelOutput
client, run = mlflow.MlflowClient(), os.environ['MLFLOW_RUN_ID']
for name in ('model', 'model', 'other'):
    model = client.create_logged_model(os.environ['MLFLOW_EXPERIMENT_ID'], name=name, source_run_id=run)
    client.log_outputs(run, [LoggedModelOutput(model.model_id, step=0)])
    client.finalize_logged_model(model.model_id, 'READY')
client.log_text(run, 'x', 'other/file.txt')
" """

with DAG("model_references", schedule=None):
    train = step("train")
    train.parameters = {"command": LOG_MODEL}
    step("use", model=train.model("model"), text=f"{train.model('other')}", folder=train.artifact("other"))
    step("file", up=train.artifact("other/file.txt"))
    step("wrong_artifact", up=train.artifact("model"))
    step("wrong_file", up=train.artifact("model/MLmodel"))
    step("wrong_model", up=train.model("modle"))
