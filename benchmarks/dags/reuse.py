"""A pipeline of ten steps that take over earlier results, and as many tasks that are nothing."""

import os
from pathlib import Path

from airflow.sdk import DAG, task

from mlflow_projects import MLflowProjectOperator, mlflow_run

MAKER = Path(__file__).resolve().parents[2] / "tests" / "projects" / "maker"
COUNTER = str(Path(os.environ["BENCH_WORK"]) / "reuse-counter")
STEPS = 10

with DAG("pipeline", schedule=None) as pipeline:
    with mlflow_run("parent", experiment_name="reuse"):
        before = None
        for number in range(STEPS):
            upstream = {"upstream": before.artifact("made")} if before else {}
            before = MLflowProjectOperator(
                task_id=f"step_{number}",
                uri=str(MAKER),
                parameters={"text": f"step {number}", "counter": COUNTER, **upstream},
                reuse=True,
            )

with DAG("empty", schedule=None) as empty:

    @task
    def do_nothing() -> None:
        """Return."""

    previous = None
    for _ in range(STEPS):
        current = do_nothing()
        if previous is not None:
            previous >> current
        previous = current

with DAG("around_nothing", schedule=None) as around_nothing:
    with mlflow_run("parent", experiment_name="reuse"):

        @task
        def nothing_inside() -> None:
            """Return."""

        nothing_inside()
