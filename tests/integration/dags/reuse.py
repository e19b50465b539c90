"""Two steps, the second of which reads what the first made; everything from the params."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from mlflow_projects import MLflowProjectOperator, mlflow_run

PARAMETERS = {"text": "{{ params.text }}", "counter": "{{ params.counter }}", "gate": "{{ params.gate }}"}

with DAG(
    "reuse_chain",
    schedule=None,
    default_args={"retries": 0, "retry_delay": timedelta(0), "reuse": "{{ params.mode }}"},
    params={"uri": "", "text": "x", "counter": "", "gate": "/", "mode": "True", "second": "after"},
):
    with mlflow_run("parent", experiment_name="reuse"):
        first = MLflowProjectOperator(task_id="first", uri="{{ params.uri }}", parameters=PARAMETERS)
        MLflowProjectOperator(
            task_id="second",
            uri="{{ params.uri }}",
            parameters={**PARAMETERS, "text": "{{ params.second }}", "upstream": first.artifact("made")},
        )

with DAG(
    "reuse_alone",
    schedule=None,
    params={"uri": "", "text": "x", "counter": ""},
):
    MLflowProjectOperator(
        task_id="step",
        uri="{{ params.uri }}",
        parameters={"text": "{{ params.text }}", "counter": "{{ params.counter }}"},
        experiment_name="reuse",
        reuse=True,
    )
