"""### Hands-on

The three steps of the MLflow hands-on, one entry point of the project `hands_on` each. Every step's run is
called `SampleA`.

| | |
|---|---|
| graph | `start_run` → `step2` → `step3` → `step4` → `end_run` |
| step2 | a tag, three parameters, the metrics `mse` and `rmse` with two values each |
| step3 | the same, with the files `file1.txt`, `file2.json` and the picture `sample.png` |
| step4 | two more runs below its own: `ChildrenSampleB` and `ChildrenSampleC` |
| runs | only with *Trigger* |
| result | one experiment in MLflow, named by you or after the time when the DAG run was made |
"""

from datetime import datetime
from pathlib import Path

from airflow.sdk import DAG, Param

from mlflow_projects import MLflowProjectOperator, mlflow_run

PROJECT = Path(__file__).resolve().parents[1] / "sample_projects" / "hands_on"

with DAG(
    "hands_on",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    params={
        "experiment_name": Param("", type="string", title="Experiment", description="Empty: the current time."),
    },
    tags=["sample"],
    doc_md=__doc__,
):
    with mlflow_run(
        "hands_on",
        experiment_name="{{ params.experiment_name or dag_run.run_after.strftime('%Y-%m-%d %H:%M:%S') }}",
    ):
        step2, step3, step4 = (
            MLflowProjectOperator(task_id=step, uri=str(PROJECT), entry_point=step)
            for step in ("step2", "step3", "step4")
        )
        step2 >> step3 >> step4
