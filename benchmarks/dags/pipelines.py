"""The sample projects ``echo`` and ``zip``, one after the other, in each way that people use; one DAG each."""

import os
from pathlib import Path

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

from mlflow_projects import MLflowProjectOperator, mlflow_run

PROJECTS = Path(__file__).resolve().parents[2] / "sample_projects"
MAIN = Path(__file__).resolve().parents[1] / "projects" / "pipeline" / "main.py"
UPSTREAM = os.environ.get("BENCH_UPSTREAM", "")  # where nothing is handed on: what an earlier run left

with DAG("pipeline_ours", schedule=None), mlflow_run("pipeline", experiment_name="pipeline"):
    echo = MLflowProjectOperator(task_id="echo", uri=f"{PROJECTS}/echo", parameters={"text": "hello", "num": 3})
    MLflowProjectOperator(task_id="zip", uri=f"{PROJECTS}/zip", parameters={"upstream": echo.artifact("downstream")})

with DAG("pipeline_bare", schedule=None):
    (
        BashOperator(task_id="echo", bash_command="python echo.py --text hello --num 3", cwd=f"{PROJECTS}/echo")
        >> BashOperator(
            task_id="zip", bash_command=f"python zip_upstream.py --upstream '{UPSTREAM}'", cwd=f"{PROJECTS}/zip"
        )
    )

with DAG("pipeline_main", schedule=None):
    BashOperator(task_id="main", bash_command=f"python '{MAIN}' '{PROJECTS}'")

with DAG("pipeline_mlflow_run", schedule=None):
    (
        BashOperator(
            task_id="echo", bash_command=f"mlflow run '{PROJECTS}/echo' --env-manager local -P text=hello -P num=3"
        )
        >> BashOperator(
            task_id="zip", bash_command=f"mlflow run '{PROJECTS}/zip' --env-manager local -P 'upstream={UPSTREAM}'"
        )
    )
