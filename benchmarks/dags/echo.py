"""The sample project ``echo`` in every way that people use, one DAG each; and a task that does nothing."""

import os
from pathlib import Path

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, task

from benchmarks.memory import note_peak
from mlflow_projects import MLflowProjectOperator

ECHO = Path(__file__).resolve().parents[2] / "sample_projects" / "echo"
CHAIN = Path(__file__).resolve().parents[1] / "projects" / "chain" / "main.py"
PARAMETERS = {"text": "hello", "num": 3}

with DAG("nothing", schedule=None) as nothing:

    @task(post_execute=note_peak)
    def do_nothing() -> None:
        """Return; an EmptyOperator would not do, because no process ever runs it."""

    do_nothing()

with DAG("ours", schedule=None) as ours:
    MLflowProjectOperator(task_id="echo", uri=str(ECHO), parameters=PARAMETERS, post_execute=note_peak)

with DAG("bash", schedule=None) as bash:
    BashOperator(
        task_id="echo",
        bash_command=f"mlflow run '{ECHO}' --env-manager local -P text=hello -P num=3",
    )

with DAG("projects", schedule=None) as projects:

    @task(post_execute=note_peak)
    def echo_in_process() -> None:
        """Call MLflow's own function in the task process."""
        import mlflow.projects

        mlflow.projects.run(str(ECHO), parameters=PARAMETERS, env_manager="local")

    echo_in_process()

with DAG("chain", schedule=None) as chain:
    BashOperator(task_id="main", bash_command=f"python '{CHAIN}' '{ECHO}' {os.environ.get('BENCH_CHAIN', '4')}")
