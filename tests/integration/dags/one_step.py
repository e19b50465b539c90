"""One step below a parent run, everything from the params: the tests' workhorse."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from mlflow_projects import MLflowProjectOperator, mlflow_run

more: dict[str, Any]
for dag_id, more in (("one_step", {}), ("measured_step", {"system_metrics": True})):
    with DAG(
        dag_id,
        schedule=None,
        render_template_as_native_obj=True,
        default_args={"retries": 1, "retry_delay": timedelta(0)},
        params={
            "uri": "",
            "entry_point": "main",
            "version": None,
            "parameters": {},
            "env_manager": None,
            "backend": "local",
            "backend_config": {},
            "experiment_name": "one_step",
            "reuse": None,
        },
    ):
        with mlflow_run("parent", experiment_name="{{ params.experiment_name }}"):
            MLflowProjectOperator(
                task_id="step",
                uri="{{ params.uri }}",
                entry_point="{{ params.entry_point }}",
                version="{{ params.version }}",
                parameters="{{ params.parameters }}",
                env_manager="{{ params.env_manager }}",
                backend="{{ params.backend }}",
                backend_config="{{ params.backend_config }}",
                reuse="{{ params.reuse }}",
                git_conn_id=None,
                **more,
            )

with DAG("private_step", schedule=None, params={"uri": "", "version": None}):
    with mlflow_run("parent", experiment_name="one_step"):
        MLflowProjectOperator(
            task_id="step",
            uri="{{ params.uri }}",
            version="{{ params.version }}",
            git_conn_id="private_git",
        )
