"""The steps of flame.py, imported by `mlflow-projects import`."""

from pathlib import Path

from airflow.sdk import DAG, Param
from mlflow_projects import MLflowProjectOperator

PROJECT = Path(__file__).resolve().parents[1] / "drivers"

with DAG(
    "flame",
    schedule=None,
    params={
        "data": Param("raw.csv", type="string", title="Data"),
        "rate": Param(0.1, type="number", title="Rate"),
        "deep": Param(False, type="boolean", title="Deep"),
    },
    doc_md=__doc__,
):
    MLflowProjectOperator(
        task_id="train",
        uri=f"{PROJECT}/step",
        entry_point="train",
        parameters={
            "data": "{{ params.data }}",
            "rate": "{{ params.rate }}",
            "deep": "{{ params.deep }}",
        },
        env_manager="local",
    )
