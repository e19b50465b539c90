"""### CIFAR-10 sweep

Prepares the pictures once, trains a network for each combination of `learning_rates` and `model_types`, and
registers the one with the greatest `accuracy` as `Cifar10Model`. With `approval` on, a person then decides (Airflow:
*Browse* → *Required Actions*); *Reject* leaves the champion as it is. The alias `champion` moves only to a better
version.

| | |
|---|---|
| graph | `start_run` → `preprocess` → `grid` → `train` (mapped) → `best` → `end_run` |
| | `best` → `register` → `approve` → `promote` |
| runs | only with *Trigger* |
| result | one run per combination; a new version of the model, perhaps the champion |

The MLflow parent run ends before the approval: nothing is left open while a person thinks.
"""

from datetime import datetime, timedelta
from pathlib import Path

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Asset, Param

from mlflow_projects import (
    MLflowBestRunOperator,
    MLflowProjectOperator,
    MLflowPromoteModelOperator,
    MLflowRegisterModelOperator,
    ParameterGridOperator,
    mlflow_run,
    skip_unless,
)

PROJECTS = Path(__file__).resolve().parents[1] / "sample_projects" / "cifar10"
MODEL = "Cifar10Model"

with DAG(
    "cifar10_sweep",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    max_active_runs=1,
    default_args={"retries": 1, "retry_delay": timedelta(seconds=30)},
    params={
        "data": Param("sample", type="string", minLength=1, title="Data set",
                      examples=["sample", "fashion-mnist", "cifar10", "cifar100"],
                      description="sample (drawn shapes, no network), or another that preprocess knows."),
        "learning_rates": Param([0.001, 0.003], type="array", minItems=1, maxItems=10, title="Learning rates",
                                items={"type": "number", "exclusiveMinimum": 0},
                                description="To try with each model type."),
        "model_types": Param(["simple"], type="array", minItems=1, maxItems=3, title="Model types",
                             items={"type": "string", "enum": ["simple", "vgg11", "vgg16"]},
                             examples=["simple", "vgg11", "vgg16"], description="Networks to try."),
        "epochs": Param(1, type="integer", minimum=1, maximum=1000, title="Epochs"),
        "approval": Param(False, type="boolean", title="Ask a person before the promotion"),
    },
    tags=["sample"],
    doc_md=__doc__,
):  # fmt: skip
    with mlflow_run("sweep", experiment_name="cifar10_sweep"):
        preprocess = MLflowProjectOperator(
            task_id="preprocess", uri=f"{PROJECTS}/preprocess", parameters={"data": "{{ params.data }}"}
        )
        grid = ParameterGridOperator(
            task_id="grid",
            axes={
                "learning_rate": "{{ params.learning_rates | tojson }}",
                "model_type": "{{ params.model_types | tojson }}",
            },
            common={"upstream": preprocess.artifact("downstream_directory"), "epochs": "{{ params.epochs }}"},
        )
        train = MLflowProjectOperator.partial(
            task_id="train",
            uri=f"{PROJECTS}/train",
            map_index_template="{{ task.parameters.model_type }}, {{ task.parameters.learning_rate }}",
        ).expand(parameters=grid.output)
        best = MLflowBestRunOperator(task_id="best", metric="accuracy", direction="max")
        train >> best
    register = MLflowRegisterModelOperator(task_id="register", name=MODEL, run_id=best.output)
    approve = ApprovalOperator(
        task_id="approve",
        subject=f"Make the new version of {MODEL} the champion?",
        body=(
            "Version {{ ti.xcom_pull(task_ids='register').version }}: accuracy "
            "{{ '%.4f' | format(ti.xcom_pull(task_ids='sweep.best').value) }}. It replaces the champion only if it "
            "is better."
        ),
        pre_execute=skip_unless("approval"),
    )
    promote = MLflowPromoteModelOperator(
        task_id="promote",
        name=MODEL,
        version=register.output,
        alias="champion",
        metric="accuracy",
        direction="max",
        outlets=[Asset(f"{MODEL}@champion")],
        trigger_rule="none_failed",
    )
    register >> approve >> promote
