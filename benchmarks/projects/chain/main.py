"""What a project's main.py looks like where it calls its own steps: ``main.py PROJECT STEPS``."""

import sys

import mlflow

with mlflow.start_run():
    for number in range(int(sys.argv[2])):
        mlflow.projects.run(
            sys.argv[1],
            parameters={"text": f"hello {number}", "num": 3},
            env_manager="local",
            experiment_id="0",
        )
