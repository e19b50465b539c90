"""The DAGs that ``benchmarks/run.py`` measures, one task each."""

from pathlib import Path

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, task

from mlflow_projects import MLflowProjectOperator

ECHO = Path(__file__).resolve().parents[2] / "sample_projects" / "echo"

with DAG("nothing", schedule=None) as nothing:

    @task
    def do_nothing() -> None:
        """Return; an EmptyOperator would not do, because no process ever runs it."""

    do_nothing()

with DAG("ours", schedule=None) as ours:
    MLflowProjectOperator(task_id="echo", uri=str(ECHO), parameters={"text": "hello", "num": 3})

with DAG("bash", schedule=None) as bash:
    BashOperator(
        task_id="echo",
        bash_command=f"mlflow run '{ECHO}' --env-manager local -P text=hello -P num=3",
    )
