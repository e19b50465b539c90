"""### Wine sweep

Trains one model for each combination of `alphas` and `l1_ratios`, all at once as far as the workers allow, and
registers the one with the smallest `rmse`. The alias `champion` of `ElasticnetWineModel` moves only if the new
version is better than the present holder. Then, and only then, the asset `ElasticnetWineModel@champion` is
updated, and the DAG `wine_score` starts by itself.

| | |
|---|---|
| graph | `start_run` → `grid` → `train` (mapped) → `best` → `register` → `promote` → `end_run` |
| runs | only with *Trigger*, with your own values |
| result | one run per combination; a new version of the model, perhaps the champion |
"""

from datetime import datetime, timedelta
from pathlib import Path

from airflow.sdk import DAG, Asset, Param

from mlflow_projects import (
    MLflowBestRunOperator,
    MLflowProjectOperator,
    MLflowPromoteModelOperator,
    MLflowRegisterModelOperator,
    ParameterGridOperator,
    mlflow_run,
)

PROJECTS = Path(__file__).resolve().parents[1] / "sample_projects"
MODEL = "ElasticnetWineModel"

with DAG(
    "wine_sweep",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    params={
        "alphas": Param([0.1, 0.5, 1.0], type="array", items={"type": "number", "minimum": 0},
                        minItems=1, maxItems=20, title="Alphas", description="Strengths of the penalty to try."),
        "l1_ratios": Param([0.1, 0.9], type="array", items={"type": "number", "minimum": 0, "maximum": 1},
                           minItems=1, maxItems=20, title="L1 ratios",
                           description="Shares of the L1 penalty to try with each alpha."),
        "data": Param("", type="string", title="Data",
                      description="A CSV file on the worker, or its URL. Empty: the 1599 red wines."),
    },
    tags=["sample"],
    doc_md=__doc__,
):  # fmt: skip
    with mlflow_run("sweep", experiment_name="wine"):
        grid = ParameterGridOperator(
            task_id="grid",
            axes={"alpha": "{{ params.alphas | tojson }}", "l1_ratio": "{{ params.l1_ratios | tojson }}"},
            common={"data": "{{ params.data }}", "register_as": ""},
        )
        train = MLflowProjectOperator.partial(
            task_id="train",
            uri=f"{PROJECTS}/wine",
            map_index_template="alpha {{ task.parameters.alpha }}, l1_ratio {{ task.parameters.l1_ratio }}",
        ).expand(parameters=grid.output)
        best = MLflowBestRunOperator(task_id="best", metric="rmse", direction="min")
        register = MLflowRegisterModelOperator(task_id="register", name=MODEL, run_id=best.output)
        MLflowPromoteModelOperator(
            task_id="promote",
            name=MODEL,
            version=register.output,
            alias="champion",
            metric="rmse",
            direction="min",
            outlets=[Asset(f"{MODEL}@champion")],
        )
        train >> best
