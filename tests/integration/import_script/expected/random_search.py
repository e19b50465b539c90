"""The steps of random_search.py, imported by `mlflow-projects import`.

- parameters.rate is new in each run of the script (a clock, random numbers); here it
  stays as it was.
"""

from pathlib import Path

from airflow.sdk import DAG
from mlflow_projects import MLflowProjectOperator, mlflow_run

PROJECT = Path(__file__).resolve().parents[1] / "drivers"

with DAG("random_search", schedule=None, doc_md=__doc__):
    with mlflow_run("search"):
        data = MLflowProjectOperator(
            task_id="data",
            uri=f"{PROJECT}/step",
            env_manager="local",
        )
        with mlflow_run("in_a_loop", run_name="in a loop") as in_a_loop:
            # One after the other, as in the script; without the limit they run side by side.
            MLflowProjectOperator.partial(
                task_id="train",
                uri=f"{PROJECT}/step",
                entry_point="train",
                env_manager="local",
                max_active_tis_per_dagrun=1,
            ).expand(
                parameters=[
                    {"data": data.artifact(), "rate": 0.1},
                    {"data": data.artifact(), "rate": 0.2},
                    {"data": data.artifact(), "rate": 0.3},
                ],
            )
        train_2 = MLflowProjectOperator.partial(
            task_id="train",
            uri=f"{PROJECT}/step",
            entry_point="train",
            env_manager="local",
        ).expand(
            parameters=[
                {"data": "x", "rate": 0.9182343317851318},
                {"data": "x", "rate": 0.8298529036589914},
                {"data": "x", "rate": 0.9677999949201714},
                {"data": "x", "rate": 0.3580493746949883},
            ],
        )
        left = MLflowProjectOperator(
            task_id="left",
            uri=f"{PROJECT}/step",
            parameters={"data": "l"},
            env_manager="local",
        )
        right = MLflowProjectOperator(
            task_id="right",
            uri=f"{PROJECT}/step",
            parameters={"data": "r"},
            env_manager="local",
        )
        last = MLflowProjectOperator(
            task_id="last",
            uri=f"{PROJECT}/step",
            env_manager="local",
        )
        data >> in_a_loop >> train_2 >> [left, right] >> last
