"""Tell people: a mail and a chat message for a task that failed, and a mail for a DAG run that takes too long."""

from datetime import timedelta
from pathlib import Path

from airflow.providers.http.notifications.http import HttpNotifier
from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk import DAG, DeadlineAlert, DeadlineReference, Param, SyncCallback, task

from mlflow_projects import mlflow_run

TEAM = "team@example.org"
MAIL = """\
<p>{{ macros.mlflow_projects.mlflow_reason(ti) | e }}</p>
<p><a href="{{ macros.mlflow_projects.mlflow_run_url(ti) | e }}">The run in MLflow</a></p>
<pre>{{ macros.mlflow_projects.mlflow_tree(dag_run) | e }}</pre>
"""

mail = SmtpNotifier(to=TEAM, subject="{{ ti.task_id }} failed", html_content=MAIL)
message = HttpNotifier(
    http_conn_id="chat",
    endpoint="messages",
    json={
        "text": "{{ ti.task_id }}: {{ macros.mlflow_projects.mlflow_reason(ti) }} "
        "{{ macros.mlflow_projects.mlflow_run_url(ti) }}"
    },
)


def late(context):
    """Say how far the DAG run is. A deadline's context has no macros: call them as functions."""
    from html import escape

    from mlflow_projects.hooks.macros import mlflow_tree

    dag_run = context["dag_run"]
    tree = escape(mlflow_tree(dag_run))
    SmtpNotifier(to=TEAM, subject=f"{dag_run['dag_id']} is late", html_content=f"<pre>{tree}</pre>")(context)


with DAG(
    "notices",
    schedule="@daily",
    catchup=False,
    params={"data": Param("/data/orders.csv", type="string")},
    default_args={"on_failure_callback": [mail, message]},
    deadline=DeadlineAlert(DeadlineReference.DAGRUN_QUEUED_AT, timedelta(hours=2), SyncCallback(late)),
):
    with mlflow_run("orders", experiment_name="orders"):

        @task.mlflow
        def count(data: str) -> int:
            """Count the orders."""
            return len(Path(data).read_text().splitlines())

        count("{{ params.data }}")
