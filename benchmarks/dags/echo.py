"""The sample project ``echo`` as a step of ours."""

from pathlib import Path

from airflow.sdk import DAG

from benchmarks.memory import note_peak
from mlflow_projects import MLflowProjectOperator

ECHO = Path(__file__).resolve().parents[2] / "sample_projects" / "echo"

with DAG("ours", schedule=None) as ours:
    MLflowProjectOperator(
        task_id="echo", uri=str(ECHO), parameters={"text": "hello", "num": 3}, post_execute=note_peak
    )
