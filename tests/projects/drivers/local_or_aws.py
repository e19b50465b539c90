"""Two steps, here or on SageMaker."""

import argparse

import mlflow

parser = argparse.ArgumentParser()
parser.add_argument("--text", default="hello", help="what the first step writes")
parser.add_argument("--num", type=int, default=2)
parser.add_argument("--aws_flg", action="store_true", help="as training jobs")
options = parser.parse_args()

backend, config = "local", {}
if options.aws_flg:
    backend, config = "sagemaker", {"instance_type": "ml.m5.large"}

mlflow.set_experiment("pipeline")
with mlflow.start_run(run_name="pipeline"):
    echo = mlflow.projects.run(
        "step",
        run_name="echo",
        parameters={"data": options.text, "num": options.num},
        backend=backend,
        backend_config=config,
        env_manager="local",
    )
    artifacts = mlflow.MlflowClient().get_run(echo.run_id).info.artifact_uri
    mlflow.projects.run(
        "step",
        run_name="zip",
        parameters={"data": artifacts + "/downstream"},
        backend=backend,
        backend_config=config,
        env_manager="local",
    )
