"""### Wine score

Predicts the quality of a batch of wines with the champion of `ElasticnetWineModel`. The tag `triggered_by_version`
of the run says which new version started it; it is `none` when a person did.

| | |
|---|---|
| graph | `start_run` → `score` → `end_run` |
| runs | whenever the asset `ElasticnetWineModel@champion` is updated (see the DAG `wine_sweep`), or with *Trigger* |
| result | `predictions.csv` of the run `score` in the experiment `wine` |
"""

from datetime import datetime, timedelta
from pathlib import Path

from airflow.sdk import DAG, Asset, Param

from mlflow_projects import MLflowProjectOperator, mlflow_run

PROJECTS = Path(__file__).resolve().parents[1] / "sample_projects"
CHAMPION = "ElasticnetWineModel@champion"

with DAG(
    "wine_score",
    schedule=[Asset(CHAMPION)],
    start_date=datetime(2026, 1, 1),
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    params={
        "data": Param("", type="string", title="Data",
                      description="A CSV file on the worker, or its URL. Empty: the 1599 red wines."),
    },
    tags=["sample"],
    doc_md=__doc__,
):  # fmt: skip
    with mlflow_run("wine_score", experiment_name="wine"):
        MLflowProjectOperator(
            task_id="score",
            uri=f"{PROJECTS}/wine",
            entry_point="score",
            parameters={"model_uri": f"models:/{CHAMPION}", "data": "{{ params.data }}"},
            tags={
                "triggered_by_version": (
                    "{{ (triggering_asset_events.values() | map('last') | list | last).extra.version"
                    " if triggering_asset_events else 'none' }}"
                ),
            },
        )
