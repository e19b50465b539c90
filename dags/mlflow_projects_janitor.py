"""### Janitor

Closes MLflow runs that are still open although their DAG run ended: because a worker, the scheduler and the
tracking server were lost at the same time, for example. Runs every 15 minutes; the list of what it closed is the
XCom of its task. `mlflow-projects janitor` does the same by hand.
"""

from datetime import datetime

from airflow.sdk import DAG

from mlflow_projects.operators.janitor import MLflowJanitorOperator

with DAG(
    "mlflow_projects_janitor",
    schedule="*/15 * * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    tags=["maintenance"],
    doc_md=__doc__,
):
    MLflowJanitorOperator(task_id="close_stragglers")
