"""Small random graphs, the same for the same FAULTS_SEED: mapped and plain steps, retries 0 to 2, failures.

Five have one group of all steps; the others are steps of their own, several groups, and mapped groups.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from random import Random

from airflow.sdk import DAG, task_group

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


def steps(random: Random, most: int = 4, *, may_map: bool = True) -> None:
    """Make some steps, each perhaps after another one, some in an experiment of their own."""
    made = []
    for index in range(random.randint(1, most)):
        fixed = {
            "task_id": f"step{index}",
            "uri": SHELL,
            "retries": random.randint(0, 2),
            "retry_delay": timedelta(seconds=1),
        }
        if random.random() < 0.2:
            fixed["experiment_name"] = "faults random elsewhere"
        commands = random.choices(COMMANDS, WEIGHTS, k=random.randint(1, 3) if may_map else 1)
        if len(commands) > 1:
            given = [{"command": command} for command in commands]
            step = MLflowProjectOperator.partial(**fixed).expand(parameters=given)
        else:
            step = MLflowProjectOperator(parameters={"command": commands[0]}, **fixed)
        if made and random.random() < 0.7:
            random.choice(made) >> step
        made.append(step)


for number in range(10):
    random = Random(f"{os.environ.get('FAULTS_SEED', '0')}-{number}")
    with DAG(f"random_{number}", schedule=None, max_active_runs=8, dagrun_timeout=timedelta(hours=1)):
        if number < 5:
            with mlflow_run("parent", experiment_name="faults random"):
                steps(random)
        elif number < 7:
            steps(random, 2)
        elif number < 9:
            for name in ("one", "two"):
                with mlflow_run(name, experiment_name="faults random groups"):
                    steps(random, 2)
        else:

            @task_group
            def each(index: int) -> None:
                """Make a group of its own for each index."""
                with mlflow_run("parent", experiment_name="faults random groups"):
                    steps(random, 2, may_map=False)  # noqa: B023 - called at once

            each.expand(index=[0, 1, 2])
