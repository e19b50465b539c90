"""Many mapped steps of a second each, their bare commands, and many mapped tasks that are nothing."""

import os
from pathlib import Path

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, task

from mlflow_projects import MLflowProjectOperator

TINY = Path(__file__).resolve().parents[1] / "projects" / "tiny"
NUMBERS = range(int(os.environ.get("BENCH_MAPPED", "100")))
FEWER = NUMBERS[: len(NUMBERS) // 5]

with DAG("many_ours", schedule=None) as many_ours:
    MLflowProjectOperator.partial(task_id="step", uri=str(TINY), entry_point="sleep").expand(
        parameters=[{"number": number, "seconds": 1} for number in NUMBERS]
    )

with DAG("many_nothing", schedule=None) as many_nothing:

    @task
    def do_nothing(number: int) -> None:
        """Return."""

    do_nothing.expand(number=list(NUMBERS))

with DAG("many_bare", schedule=None) as many_bare:
    BashOperator.partial(task_id="step").expand(bash_command=["sleep 1" for number in NUMBERS])

with DAG("fewer_bash", schedule=None) as fewer_bash:
    BashOperator.partial(task_id="step").expand(
        bash_command=[
            f"mlflow run '{TINY}' -e sleep --env-manager local -P seconds=1 -P number={number}" for number in FEWER
        ]
    )
