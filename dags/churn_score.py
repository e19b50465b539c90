"""### Churn score

Says which of this month's customers will leave, with the champion of `ChurnModel`, as soon as somebody moves that
alias: the DAG `churn_gate`, or a person in MLflow. The tag `triggered_by_version` of the run says which version
started it; it is `none` when a person started the DAG.

| | |
|---|---|
| graph | `start_run` → `score` → `end_run` |
| runs | when the alias moves in MLflow (the triggerer looks once a minute), or with *Trigger* |
| result | `leaving.csv` of the run `score` in the experiment `churn` |
"""

from datetime import datetime, timedelta
from pathlib import Path

from airflow.sdk import DAG, Asset, AssetWatcher, Param

from mlflow_projects import MLflowModelTrigger, MLflowProjectOperator, mlflow_run

PROJECT = Path(__file__).resolve().parents[1] / "sample_projects" / "churn_gate"
MOVED = MLflowModelTrigger("ChurnModel", alias="champion")
EVENT = "(triggering_asset_events.values() | map('last') | list | last).extra.payload"

with DAG(
    "churn_score",
    schedule=[Asset("churn_champion_moved", watchers=[AssetWatcher(name="mlflow", trigger=MOVED)])],
    start_date=datetime(2026, 1, 1),
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    params={"customers": Param(500, type="integer", minimum=1, maximum=1_000_000, title="Customers")},
    tags=["sample"],
    doc_md=__doc__,
):
    with mlflow_run("churn_score", experiment_name="churn"):
        MLflowProjectOperator(
            task_id="score",
            uri=str(PROJECT),
            entry_point="score",
            parameters={
                # The version of the event, even if the alias has moved on.
                "model_uri": f"{{{{ {EVENT}.uri if triggering_asset_events else 'models:/ChurnModel@champion' }}}}",
                "customers": "{{ params.customers }}",
            },
            tags={"triggered_by_version": f"{{{{ {EVENT}.version if triggering_asset_events else 'none' }}}}"},
        )
