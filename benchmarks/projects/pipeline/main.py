"""What a project's main.py looks like where its second step takes what the first one left: ``main.py PROJECTS``."""

import sys

import mlflow

with mlflow.start_run():
    echo = mlflow.projects.run(
        f"{sys.argv[1]}/echo", parameters={"text": "hello", "num": 3}, env_manager="local", experiment_id="0"
    )
    mlflow.projects.run(
        f"{sys.argv[1]}/zip",
        parameters={"upstream": f"runs:/{echo.run_id}/downstream"},
        env_manager="local",
        experiment_id="0",
    )
