"""Steps around which secrets are planted: tests/system/test_planted_secrets.py."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from mlflow_projects import MLflowProjectOperator, mlflow_run

for name, seconds in (("planted", 600), ("planted_slow", 5)):
    with DAG(
        name,
        schedule=None,
        render_template_as_native_obj=True,
        params={"command": "true", "conn": "planted_mlflow", "backend": "local", "backend_config": {}},
    ):
        with mlflow_run("parent", experiment_name="planted", mlflow_conn_id="planted_mlflow"):
            MLflowProjectOperator(
                task_id="step",
                uri="{{ var.value.planted_uri }}",
                parameters={"command": "{{ params.command }}"},
                backend="{{ params.backend }}",
                backend_config="{{ params.backend_config }}",
                mlflow_conn_id="{{ params.conn }}",
                git_conn_id="planted_git",
                aws_conn_id="planted_aws",
                execution_timeout=timedelta(seconds=seconds),
                env_manager="local",
            )
