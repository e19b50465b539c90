"""### Quickstart

The smallest record: the project `quickstart` logs a random parameter `param1`, the metric `foo` three times and
the file `test.txt`. The run also holds the git commit, the source and the user, without a line of code for it.

| | |
|---|---|
| graph | `start_run` → `quickstart` → `end_run` |
| runs | only with *Trigger* |
| result | the run `quickstart` in the experiment `quickstart` |
"""

from datetime import datetime
from pathlib import Path

from airflow.sdk import DAG

from mlflow_projects import MLflowProjectOperator, mlflow_run

PROJECTS = Path(__file__).resolve().parents[1] / "sample_projects"

with DAG("quickstart", schedule=None, start_date=datetime(2026, 1, 1), tags=["sample"], doc_md=__doc__):
    with mlflow_run("introduction", experiment_name="quickstart"):
        MLflowProjectOperator(task_id="quickstart", uri=f"{PROJECTS}/quickstart")
