"""A step whose project folder holds little, and one whose folder holds gigabytes of data."""

import os
from pathlib import Path

from airflow.sdk import DAG

from mlflow_projects import MLflowProjectOperator

FOLDER = Path(os.environ["BENCH_WORK"]) / "big_folder"

with DAG("folder_small", schedule=None) as folder_small:
    MLflowProjectOperator(task_id="step", uri=str(FOLDER / "small"))

with DAG("folder_big", schedule=None) as folder_big:
    MLflowProjectOperator(task_id="step", uri=str(FOLDER / "big"))
