"""### Echo, then zip

Two MLflow Projects as Airflow tasks: `echo` writes a text to a file, `zip` packs what `echo` left. Both are
children of one MLflow run, `pipeline`, in the experiment `hello_mlflow`.

| | |
|---|---|
| graph | `start_run` → `echo` → `zip` → `end_run` |
| runs | every night at 02:00 UTC, or with *Trigger* and your own values |
| in MLflow | one run for the DAG run, and below it one for each try of each step: see the tab *MLflow* of a DAG run |
| result | the archive `downstream/upstream.zip` of the run `zip` in MLflow |
"""

from datetime import datetime, timedelta
from pathlib import Path

from airflow.sdk import DAG, Param

from mlflow_projects import MLflowProjectOperator, mlflow_run

PROJECTS = Path(__file__).resolve().parents[1] / "sample_projects"

with DAG(
    "echo_zip",
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=10),
    },
    params={
        "text": Param("Step1", type="string", minLength=1, title="Text", description="What echo writes."),
        "num": Param(2, type="integer", minimum=1, maximum=1_000_000, title="Number of lines",
                     description="How often echo writes the text."),
        "backend": Param("local", type="string", enum=["local", "sagemaker"], title="Backend",
                         values_display={"local": "local: on the worker", "sagemaker": "sagemaker: as training jobs"},
                         description="Where the steps run: on the worker, or as SageMaker training jobs."),
    },
    tags=["sample"],
    doc_md=__doc__,
):  # fmt: skip
    with mlflow_run("pipeline", experiment_name="hello_mlflow"):
        echo = MLflowProjectOperator(
            task_id="echo",
            uri=f"{PROJECTS}/echo",
            parameters={"text": "{{ params.text }}", "num": "{{ params.num }}"},
            backend="{{ params.backend }}",
        )
        zipped = MLflowProjectOperator(
            task_id="zip",
            uri=f"{PROJECTS}/zip",
            parameters={"upstream": echo.artifact("downstream")},
            backend="{{ params.backend }}",
        )
        echo >> zipped
