"""A step whose project is on the stack's own git server."""

from datetime import datetime

from airflow.sdk import DAG

from mlflow_projects import MLflowProjectOperator

with DAG("stack_private_git", schedule=None, start_date=datetime(2026, 1, 1), tags=["test"]):
    MLflowProjectOperator(
        task_id="echo",
        uri="http://git:3000/stack-tests.git#echo",
        git_conn_id="git_default",
        parameters={"text": "from git", "num": "1"},
        experiment_name="stack_private_git",
    )
