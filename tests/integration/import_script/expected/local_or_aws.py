"""The steps of local_or_aws.py, imported by `mlflow-projects import`."""

from pathlib import Path

from airflow.sdk import DAG, Param
from mlflow_projects import MLflowProjectOperator, mlflow_run

PROJECT = Path(__file__).resolve().parents[1] / "drivers"

with DAG(
    "local_or_aws",
    schedule=None,
    params={
        "text": Param(
            "hello",
            type="string",
            title="Text",
            description="what the first step writes",
        ),
        "num": Param(2, type="integer", title="Num"),
        "aws_flg": Param(
            False,
            type="boolean",
            title="Aws flg",
            description="as training jobs",
        ),
    },
    doc_md=__doc__,
):
    with mlflow_run("pipeline", experiment_name="pipeline"):
        echo = MLflowProjectOperator(
            task_id="echo",
            uri=f"{PROJECT}/step",
            parameters={"data": "{{ params.text }}", "num": "{{ params.num }}"},
            env_manager="local",
            backend="{{ 'sagemaker' if params.aws_flg else 'local' }}",
            backend_config={"instance_type": "ml.m5.large"},
        )
        zip = MLflowProjectOperator(
            task_id="zip",
            uri=f"{PROJECT}/step",
            parameters={"data": echo.artifact("downstream")},
            env_manager="local",
            backend="{{ 'sagemaker' if params.aws_flg else 'local' }}",
            backend_config={"instance_type": "ml.m5.large"},
        )
        echo >> zip
