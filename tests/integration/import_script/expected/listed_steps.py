"""The steps of listed_steps.py, imported by `mlflow-projects import`.

- The option main.steps decides which steps there are; here it is 'all'.
- The script sets WANDB_PROJECT for its steps; set them on the workers.
- listed_steps_files/forest.json is what the script writes for a step, as it was at the
  import.
- A change of main.project, forest.depth, forest.criterion has no effect in the
  environment and listed_steps_files.
"""

from pathlib import Path

from airflow.sdk import DAG, Param
from mlflow_projects import MLflowProjectOperator

PROJECT = Path(__file__).resolve().parents[1] / "drivers"
FILES = Path(__file__).resolve().parent / "listed_steps_files"

with DAG(
    "listed_steps",
    schedule=None,
    params={
        "etl.rows": Param(500, type="integer", title="Rows", section="etl"),
        "etl.low": Param(10.5, type="number", title="Low", section="etl"),
    },
    doc_md=__doc__,
):
    load = MLflowProjectOperator(
        task_id="load",
        uri=f"{PROJECT}/step",
        entry_point="load",
        parameters={"rows": "{{ params['etl.rows'] }}"},
        env_manager="local",
    )
    check = MLflowProjectOperator(
        task_id="check",
        uri=f"{PROJECT}/step",
        parameters={"data": "low={{ params['etl.low'] }}"},
        env_manager="local",
    )
    train = MLflowProjectOperator(
        task_id="train",
        uri=f"{PROJECT}/step",
        entry_point="train",
        parameters={"data": f"{FILES}/forest.json"},
        env_manager="local",
    )
    load >> check >> train
