"""Row 12: what the library does inside the scheduler when a DAG run ends, while the tracking server hangs."""

from __future__ import annotations

import json
import socket
import sys
import time
import uuid
from typing import Any

from benchmarks.row import Bench, Row, ensure, medians

STEPS = 50
GOAL_MS = 20.0
COMMIT, OURS, SUCCESS = "commit alone", "a failed DAG run", "a success of which the end task said all"


def measure(bench: Bench) -> Row:
    """Let one process end DAG runs of 50 steps in turns: with a commit alone, and with our listener before it."""
    rounds = bench.size(100, 5)
    with socket.create_server(("127.0.0.1", 0)) as hanging:  # it takes connections, and never answers
        uri = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        environment = bench.environment(AIRFLOW_HOME=str(bench.airflow_home), MLFLOW_TRACKING_URI=uri)
        command = [sys.executable, "-m", "benchmarks.rows.row_12_dag_run_end", str(rounds)]
        measured = json.loads(bench.output(command, environment).splitlines()[-1])
        hanging.settimeout(0)
        asked = True
        try:
            hanging.accept()
        except BlockingIOError:
            asked = False
    figures = medians(measured["ms"], 2)
    ensure(measured["rows"] == rounds, f"a row for the triggerer for each failed DAG run: {measured['rows']}")
    return Row(
        number=12,
        name=f"end of a DAG run of {STEPS} steps in the scheduler, MLflow hanging",
        unit="ms",
        ours=round(figures[OURS] - figures[COMMIT], 2),
        limit=0.0,
        goal=GOAL_MS,
        peers={},
        conditions={"no request to MLflow": not asked},
        details={"with the commit": figures, "rounds": rounds},
    )


def end_in_turns(rounds: int) -> dict[str, Any]:
    """Return the milliseconds of each way, and how many rows wait for the triggerer; the first round fills caches."""
    from airflow.jobs.job import Job
    from airflow.models.callback import TriggererCallback
    from airflow.models.dagrun import DagRun
    from airflow.sdk import DAG, timezone
    from airflow.serialization.serialized_objects import DagSerialization
    from airflow.utils.session import create_session
    from sqlalchemy import select

    from mlflow_projects import MLflowProjectOperator, mlflow_run
    from mlflow_projects.listeners import dag_run as listener

    with DAG("ends", schedule=None) as dag, mlflow_run("pipeline"):
        for number in range(STEPS):
            MLflowProjectOperator(task_id=f"step_{number}", uri="/projects/echo")
    serialized = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    measured: dict[str, list[float]] = {COMMIT: [], OURS: [], SUCCESS: []}
    with create_session() as session:
        scheduler = Job(job_type="SchedulerJob", state="running", latest_heartbeat=timezone.utcnow())
        session.add_all(
            [scheduler, Job(job_type="TriggererJob", state="running", latest_heartbeat=timezone.utcnow())]
        )
    for number in range(rounds + 1):
        for way in measured:
            with create_session() as session:
                run = DagRun(
                    dag_id="ends", run_id=uuid.uuid4().hex, run_type="manual", state="running",
                    run_after=timezone.utcnow(),
                )  # fmt: skip
                run.scheduled_by_job_id = session.scalar(select(Job.id).where(Job.job_type == "SchedulerJob"))
                session.add(run)
                session.commit()
                run.dag = serialized
                begin = time.perf_counter()
                run.state = "success" if way == SUCCESS else "failed"
                if way == OURS:
                    listener.on_dag_run_failed(dag_run=run, msg="timed_out")
                elif way == SUCCESS:
                    listener.on_dag_run_success(dag_run=run, msg="success")
                session.commit()
                if number:
                    measured[way].append((time.perf_counter() - begin) * 1000)
    with create_session() as session:
        waiting = len(session.scalars(select(TriggererCallback)).all()) - 1
    return {"ms": measured, "rows": waiting}


if __name__ == "__main__":
    print(json.dumps(end_in_turns(int(sys.argv[1]))))
