"""The steps of cached_steps.py, imported by `mlflow-projects import`.

- The script sets SPARK_CONF_DIR for its steps; set them on the workers.
"""

from pathlib import Path

from airflow.sdk import DAG, Param
from mlflow_projects import MLflowProjectOperator, mlflow_run

PROJECT = Path(__file__).resolve().parents[1] / "drivers"

with DAG(
    "cached_steps",
    schedule=None,
    params={
        "rows": Param(100, type="integer", title="Rows", description="of the table"),
        "rate": Param(0.5, type="number", title="Rate"),
        "name": Param("als", type="string", title="Name"),
    },
    doc_md=__doc__,
):
    with mlflow_run("cached_steps", run_name="{{ params.name }}"):
        # The script looks for an earlier run itself; reuse does that.
        load = MLflowProjectOperator(
            task_id="load",
            uri=f"{PROJECT}/step",
            entry_point="load",
            parameters={"rows": "{{ params.rows }}"},
            env_manager="local",
            reuse=True,
        )
        # The script looks for an earlier run itself; reuse does that.
        train = MLflowProjectOperator(
            task_id="train",
            uri=f"{PROJECT}/step",
            entry_point="train",
            parameters={
                "data": load.artifact("ratings-csv-dir"),
                "rate": "{{ params.rate }}",
            },
            env_manager="local",
            reuse=True,
        )
        step = MLflowProjectOperator(
            task_id="step",
            uri=f"{PROJECT}/step",
            parameters={
                "data": "runs:/{{ ti.xcom_pull('cached_steps.train')['run_id'] }}/model",
                "parent": "{{ ti.xcom_pull('cached_steps.start_run')['run_id'] }}",
            },
            env_manager="local",
        )
        load >> train >> step
