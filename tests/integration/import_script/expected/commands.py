"""The steps of commands.py, imported by `mlflow-projects import`.

- commands.py:7 runs rm -rf /tmp/no-such-folder-of-a-driver, which no step here does.
"""

from pathlib import Path

from airflow.sdk import DAG
from mlflow_projects import MLflowProjectOperator

PROJECT = Path(__file__).resolve().parents[1] / "drivers"

with DAG("commands", schedule=None, doc_md=__doc__):
    load = MLflowProjectOperator(
        task_id="load",
        uri=f"{PROJECT}/step",
        entry_point="load",
        parameters={"rows": "3"},
        env_manager="local",
    )
    step = MLflowProjectOperator(
        task_id="step",
        uri=f"{PROJECT}/step",
        parameters={"data": "a b"},
        experiment_name="shell",
        env_manager="local",
    )
    load >> step
