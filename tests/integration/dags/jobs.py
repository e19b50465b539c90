"""One step as a SageMaker training job, waited for by the worker or by a trigger."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from mlflow_projects import MLflowProjectOperator, mlflow_run

for dag_id, deferrable, git, measured in (
    ("job_watched", False, None, False),
    ("job_deferred", True, None, False),
    ("job_private", False, "private_git", False),
    ("job_measured", False, None, True),
):
    with DAG(
        dag_id,
        schedule=None,
        render_template_as_native_obj=True,
        default_args={"retries": 1, "retry_delay": timedelta(0)},
        params={"uri": "", "parameters": {}, "backend_config": {}, "env_manager": None, "take": False},
    ):
        with mlflow_run("parent", experiment_name="jobs"):
            MLflowProjectOperator(
                task_id="step",
                uri="{{ params.uri }}",
                parameters="{{ params.parameters }}",
                env_manager="{{ params.env_manager }}",
                backend="sagemaker",
                backend_config="{{ params.backend_config }}",
                deferrable=deferrable,
                poll_interval=0.2,
                git_conn_id=git,
                system_metrics=measured,
                reuse="{{ params.take }}",
            )
