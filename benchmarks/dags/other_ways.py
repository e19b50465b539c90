"""The sample project ``echo`` in the ways that people use without us, one DAG each."""

import os
from pathlib import Path

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, task

from benchmarks.memory import note_peak

ECHO = Path(__file__).resolve().parents[2] / "sample_projects" / "echo"
CHAIN = Path(__file__).resolve().parents[1] / "projects" / "chain" / "main.py"

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

        mlflow.projects.run(str(ECHO), parameters={"text": "hello", "num": 3}, env_manager="local")

    echo_in_process()

with DAG("chain", schedule=None) as chain:
    BashOperator(task_id="main", bash_command=f"python '{CHAIN}' '{ECHO}' {os.environ.get('BENCH_CHAIN', '4')}")
