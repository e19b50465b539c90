"""### Wine

Trains an ElasticNet that predicts the quality of red wines from 11 measurements, and makes it the newest version
of the registered model `ElasticnetWineModel`.

| | |
|---|---|
| graph | `start_run` → `train` → `register` → `end_run` |
| runs | only with *Trigger* |
| result | the metrics `rmse`, `mae` and `r2` of the run `train`; a new version in MLflow's model registry |
"""

from datetime import datetime
from pathlib import Path

from airflow.sdk import DAG, Param

from mlflow_projects import MLflowProjectOperator, MLflowRegisterModelOperator, mlflow_run

PROJECTS = Path(__file__).resolve().parents[1] / "sample_projects"
MODEL = "ElasticnetWineModel"

with DAG(
    "wine",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    params={
        "alpha": Param(0.5, type="number", minimum=0, title="Alpha", description="Strength of the penalty."),
        "l1_ratio": Param(0.1, type="number", minimum=0, maximum=1, title="L1 ratio",
                          description="Share of the L1 penalty; the rest is L2."),
        "data": Param("", type="string", title="Data",
                      description="A CSV file on the worker, or its URL. Empty: the 1599 red wines."),
    },
    tags=["sample"],
    doc_md=__doc__,
):  # fmt: skip
    with mlflow_run("wine", experiment_name="wine"):
        train = MLflowProjectOperator(
            task_id="train",
            uri=f"{PROJECTS}/wine",
            parameters={
                "alpha": "{{ params.alpha }}",
                "l1_ratio": "{{ params.l1_ratio }}",
                "data": "{{ params.data }}",
                "register_as": "",  # the next task does it: a retry of that one trains nothing again
            },
        )
        MLflowRegisterModelOperator(task_id="register", name=MODEL, run_id=train.output)
