"""### Churn gate

Trains a model that says which customers leave, and measures it on customers that it has not seen. If it is good
enough (`min_auc`), its version of `ChurnModel` becomes the champion: at once, or after a person has said yes
(`approve` = `ask`; Airflow: *Browse* → *Required Actions*). The moved alias starts the DAG `churn_score`.

| | |
|---|---|
| graph | `start_run` → `train` → `evaluate` → `end_run` |
| | `evaluate` → `decide` → `too_weak`, or `register` → `approve` → `promote` |
| runs | only with *Trigger* |
| result | a run tree of a project and a function; perhaps a new champion |
| a failure | with `customers` = 10 `train` fails; `notify` gets a mail with reason and address of the run |

The MLflow parent run ends before the approval: nothing is left open while a person thinks.
"""

from datetime import datetime
from pathlib import Path

from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Param, task

from mlflow_projects import (
    MLflowProjectOperator,
    MLflowPromoteModelOperator,
    MLflowRegisterModelOperator,
    MLflowRetryPolicy,
    mlflow_run,
    skip_unless,
)

PROJECT = Path(__file__).resolve().parents[1] / "sample_projects" / "churn_gate"
MODEL = "ChurnModel"
MAIL = """\
<p>{{ macros.mlflow_projects.mlflow_reason(ti) | e }}</p>
<p>{{ macros.mlflow_projects.mlflow_run_url(ti) | e }}</p>
<pre>{{ macros.mlflow_projects.mlflow_tree(dag_run) | e }}</pre>
"""


def notice(context):
    """Write to who wants to know, with Airflow's connection smtp_default."""
    if context["params"]["notify"]:
        subject = "{{ ti.task_id }} of {{ dag_run.run_id }} failed"
        SmtpNotifier(to="{{ params.notify }}", subject=subject, html_content=MAIL)(context)


with DAG(
    "churn_gate",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    max_active_runs=1,
    default_args={"on_failure_callback": notice},
    params={
        "customers": Param(2000, type="integer", minimum=1, maximum=1_000_000, title="Customers",
                           description="How many to learn from and to test with."),
        "freedom": Param(1.0, type="number", exclusiveMinimum=0, title="Freedom",
                         description="How freely the model may follow the data."),
        "min_auc": Param(0.75, type="number", minimum=0.5, maximum=1, title="Smallest AUC",
                         description="A model below it is not registered."),
        "approve": Param("auto", enum=["auto", "ask"], title="Approval",
                         description="ask: a person decides whether it becomes the champion."),
        "notify": Param("", type="string", title="Mail to",
                        description="Who hears of a failure (connection smtp_default). Empty: nobody."),
    },
    tags=["sample"],
    doc_md=__doc__,
):  # fmt: skip
    with mlflow_run("churn_gate", experiment_name="churn"):
        train = MLflowProjectOperator(
            task_id="train",
            uri=str(PROJECT),
            parameters={"customers": "{{ params.customers }}", "freedom": "{{ params.freedom }}"},
            retries=2,
            retry_policy=MLflowRetryPolicy({"user_error": "fail"}),  # the same data fails again
        )

        @task.mlflow
        def evaluate(unseen: str, train_accuracy: float) -> float:
            """Measure the model by what it said of unseen customers; return the area under the ROC curve."""
            from io import StringIO

            import mlflow
            import pandas as pd
            from sklearn.metrics import accuracy_score, roc_auc_score

            table = pd.read_csv(StringIO(mlflow.artifacts.load_text(unseen)))
            auc = float(roc_auc_score(table.left, table.said))
            accuracy = accuracy_score(table.left, table.said > 0.5)
            mlflow.log_metrics({"auc": auc, "accuracy": accuracy, "overfit": train_accuracy - accuracy})
            return auc

        auc = evaluate(train.artifact("unseen.csv"), train.metric("train_accuracy"))

    @task.branch
    def decide(auc: float, params: dict | None = None) -> str:
        """Choose by the measure."""
        return "register" if auc >= params["min_auc"] else "too_weak"

    register = MLflowRegisterModelOperator(task_id="register", name=MODEL, run_id=train.output)
    approve = ApprovalOperator(
        task_id="approve",
        subject=f"Make the new version of {MODEL} the champion?",
        body=(
            "Version {{ ti.xcom_pull(task_ids='register').version }}: AUC "
            "{{ '%.4f' | format(ti.xcom_pull(task_ids='churn_gate.evaluate')) }}."
        ),
        pre_execute=skip_unless("approve", "ask"),
    )
    promote = MLflowPromoteModelOperator(
        task_id="promote",
        name=MODEL,
        version=register.output,
        alias="champion",
        trigger_rule="none_failed_min_one_success",
    )
    decide(auc) >> [register, EmptyOperator(task_id="too_weak")]
    register >> approve >> promote
