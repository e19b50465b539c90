"""Small random graphs, the same for the same FAULTS_SEED: mapped and plain steps, retries 0 to 2, failures."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from random import Random

from airflow.sdk import DAG

from mlflow_projects import MLflowProjectOperator, mlflow_run

SHELL = str(Path(__file__).resolve().parents[2] / "projects" / "shell")
COMMANDS = (
    "sleep 0.5",
    "sleep 3; true",
    "trap '' TERM; sleep 3; true",
    "setsid sleep 600 & sleep 2",
    "sleep 1; test $AIRFLOW_CTX_TRY_NUMBER -ge 2",
    "sleep 1; exit 4",
)
WEIGHTS = (6, 4, 2, 2, 3, 1)

for number in range(5):
    random = Random(f"{os.environ.get('FAULTS_SEED', '0')}-{number}")
    with DAG(f"random_{number}", schedule=None, max_active_runs=8):
        with mlflow_run("parent", experiment_name="faults random"):
            steps = []
            for index in range(random.randint(1, 4)):
                fixed = {
                    "task_id": f"step{index}",
                    "uri": SHELL,
                    "retries": random.randint(0, 2),
                    "retry_delay": timedelta(seconds=1),
                }
                commands = random.choices(COMMANDS, WEIGHTS, k=random.randint(1, 3))
                if len(commands) > 1:
                    given = [{"command": command} for command in commands]
                    step = MLflowProjectOperator.partial(**fixed).expand(parameters=given)
                else:
                    step = MLflowProjectOperator(parameters={"command": commands[0]}, **fixed)
                if steps and random.random() < 0.7:
                    random.choice(steps) >> step
                steps.append(step)
