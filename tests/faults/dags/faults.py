"""DAGs that faults are done to; each step runs whatever command its DAG run's conf says."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, task, task_group

from mlflow_projects import MLflowProjectOperator, mlflow_run

PROJECTS = Path(__file__).resolve().parents[2] / "projects"
RETRY = {"retries": 1, "retry_delay": timedelta(seconds=1)}
PARAMS = {"command": "true", "parameters": {}, "project": "shell", "told": ""}


def wait_until_told(context: Any) -> None:
    """Wait for the file that the DAG run's conf names.

    As a callback, Airflow calls this in the task process between the report of the success and what follows.
    """
    deadline = time.monotonic() + 300  # a fault that fails must not leave it here for ever
    while not Path(context["params"]["told"]).exists() and time.monotonic() < deadline:
        time.sleep(0.1)


@task
def gate(**context: Any) -> None:
    """Keep what comes after from the scheduler until the file ``told`` exists.

    If a person clears a task in the moment when Airflow 3.3.2's scheduler queues it or makes it upstream_failed, it
    may stay so, or be failed without a process: a race inside Airflow, whatever the operator. The faults are those
    of the step.
    """
    wait_until_told(context)


def fail_afterwards(context: Any, result: Any) -> None:
    """Fail a task whose work was done, as an extension of somebody else may."""
    raise ValueError("after the work")


def one_step(**more: Any) -> MLflowProjectOperator:
    """Return a step that runs the command of the DAG run's conf."""
    return MLflowProjectOperator(
        task_id="step", uri=f"{PROJECTS}/shell", parameters={"command": "{{ params.command }}"}, **more
    )


def build(
    dag_id: str,
    *,
    step: dict[str, Any] | None = None,
    mlflow_conn_id: str = "mlflow_default",
    gated: bool = False,
    **dag: Any,
) -> None:
    """Make a DAG of a step and a step after it, below one parent run.

    :param gated: the step after it waits, however the first one ends, for a task that waits for the file ``told``
    """
    with DAG(dag_id, schedule=None, params=PARAMS, render_template_as_native_obj=True, max_active_runs=8, **dag):
        with mlflow_run("parent", experiment_name="faults", mlflow_conn_id=mlflow_conn_id):
            first = MLflowProjectOperator(
                task_id="step",
                uri=f"{PROJECTS}/{{{{ params.project }}}}",
                parameters="{{ params.parameters or {'command': params.command} }}",
                mlflow_conn_id=mlflow_conn_id,
                **step or {},
            )
            after = MLflowProjectOperator(
                task_id="after",
                uri=f"{PROJECTS}/shell",
                parameters={"command": "true"},
                mlflow_conn_id=mlflow_conn_id,
                trigger_rule="all_done" if gated else "all_success",
            )
            first >> after
            if gated:
                gate() >> after


build("once")
build("again", step=RETRY)
build("tested")
build("gated", gated=True, step={"on_success_callback": wait_until_told})
# Time-outs that strike when the faults say so: by SIGALRM, as Airflow's own clock does, and by Stack.let_time_out.
build("limited", step={"execution_timeout": timedelta(hours=1)})
build("short_run", dagrun_timeout=timedelta(hours=1))
build("hasty", mlflow_conn_id="impatient")
build("elsewhere", step={"experiment_name": "faults elsewhere"}, dagrun_timeout=timedelta(hours=1))
build("silent", default_args={"do_xcom_push": False})
build("late_error", step={"post_execute": fail_afterwards})
for way in ("way_0", "way_1", "way_2"):  # to the same tracking server, each through a proxy of its own
    build(way, mlflow_conn_id=way, dagrun_timeout=timedelta(hours=1))
    build(f"{way}_again", step=RETRY, mlflow_conn_id=way)

for dag_id, more in (("lone", {}), ("lone_late_error", {"post_execute": fail_afterwards})):
    with DAG(dag_id, schedule=None, params=PARAMS, dagrun_timeout=timedelta(hours=1)):
        one_step(experiment_name="faults lone", **more)

with DAG("two_groups", schedule=None, params=PARAMS):
    with mlflow_run("good", experiment_name="faults groups"):
        MLflowProjectOperator(task_id="step", uri=f"{PROJECTS}/shell", parameters={"command": "true"})
    with mlflow_run("parent", experiment_name="faults groups"):
        one_step() >> MLflowProjectOperator(task_id="two", uri=f"{PROJECTS}/shell", parameters={"command": "true"})

with DAG("mapped_groups", schedule=None, params=PARAMS):

    @task_group
    def each(command: str) -> None:
        """Run a command below a parent run of its own."""
        with mlflow_run("parent", experiment_name="faults mapped groups"):
            MLflowProjectOperator(task_id="step", uri=f"{PROJECTS}/shell", parameters={"command": command})

    each.expand(command=["true", "exit 3", "true"])

with DAG("many", schedule=None):
    with mlflow_run("parent", experiment_name="faults many"):
        MLflowProjectOperator.partial(task_id="step", uri=f"{PROJECTS}/shell").expand(
            parameters=[{"command": f"echo {n}"} for n in range(50)]
        )

with DAG("skipping", schedule=None):
    with mlflow_run("parent", experiment_name="faults"):

        @task.short_circuit
        def nothing_to_do() -> bool:
            """Skip what comes after."""
            return False

        nothing_to_do() >> MLflowProjectOperator(
            task_id="step", uri=f"{PROJECTS}/shell", parameters={"command": "true"}
        )
