"""Tasks that print a file (the DAG run's ``file``) into their log."""

from pathlib import Path

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Param

from benchmarks.memory import note_peak
from mlflow_projects import MLflowProjectOperator

TINY = Path(__file__).resolve().parents[1] / "projects" / "tiny"
PARAMS = {"file": Param("/dev/null", type="string")}

with DAG("output_ours", schedule=None, params=PARAMS) as output_ours:
    MLflowProjectOperator(
        task_id="print",
        uri=str(TINY),
        entry_point="print",
        parameters={"file": "{{ params.file }}"},
        post_execute=note_peak,
    )

with DAG("output_bash", schedule=None, params=PARAMS) as output_bash:
    BashOperator(task_id="print", bash_command="cat '{{ params.file }}'", post_execute=note_peak)
