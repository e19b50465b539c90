"""### Logistic regression

Fits a logistic regression to six points, then serves the model the way a client would meet it: `mlflow models
serve` on a free port of the worker, one question, and the server is stopped again, whatever happens.

| | |
|---|---|
| graph | `start_run` → `train` → `serve` → `end_run` |
| runs | only with *Trigger* |
| result | the metric `score` of the run `train`; question and answer in `invocation.json` of the run `serve` |
"""

from datetime import datetime
from pathlib import Path

from airflow.sdk import DAG

from mlflow_projects import MLflowProjectOperator, mlflow_run

PROJECT = Path(__file__).resolve().parents[1] / "sample_projects" / "logistic_regression"

with DAG("logistic_regression", schedule=None, start_date=datetime(2026, 1, 1), tags=["sample"], doc_md=__doc__):
    with mlflow_run("introduction", experiment_name="logistic_regression"):
        train = MLflowProjectOperator(task_id="train", uri=str(PROJECT))
        serve = MLflowProjectOperator(
            task_id="serve",
            uri=str(PROJECT),
            entry_point="serve",
            parameters={"model_uri": "runs:/{{ ti.xcom_pull(task_ids='introduction.train')['run_id'] }}/model"},
        )
        train >> serve
