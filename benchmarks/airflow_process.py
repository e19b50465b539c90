"""One Python process with Airflow in it, which runs the benchmark's DAGs when told to.

``run.py`` writes one DAG id a line to the standard input and reads one JSON object a line.
Everything that Airflow and the tasks print goes to the standard error.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DAGS = Path(__file__).resolve().parent / "dags"


class AirflowProcess:
    """Start the process; leaving the ``with`` block ends it.

    :param environment: the complete environment
    :param log: the file that takes what the process prints
    """

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("a") as file:
            self._process = subprocess.Popen(
                [sys.executable, __file__],
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                bufsize=1,
            )

    def run(self, dag_id: str) -> dict[str, Any]:
        """Run a DAG and return ``seconds`` (of its task) and ``mlflow_imported``.

        :raises RuntimeError: the DAG run failed, or the process died
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{dag_id}\n")
        answer = json.loads(self._process.stdout.readline() or '{"state": "dead"}')
        if answer["state"] != "success":
            raise RuntimeError(f"The DAG {dag_id!r} ended as {answer['state']}; see {self._log}.")
        return answer

    def __enter__(self) -> AirflowProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


def run_dag(dag_id: str) -> dict[str, Any]:
    """Run a DAG of one task with ``dag.test()``.

    The duration is the task instance's own, from Airflow's database: it begins when Airflow hands the
    task to its runner and ends when the runner has reported the result. What dag.test() does around it
    (parsing the DAG folder anew, writing DAGs to the database) is not part of a task in real Airflow.
    """
    module = importlib.import_module("bench_echo")
    dag_run = getattr(module, dag_id).test()
    (ti,) = dag_run.get_task_instances()
    return {
        "state": str(dag_run.state.value),
        "seconds": (ti.end_date - ti.start_date).total_seconds(),
        "mlflow_imported": "mlflow" in sys.modules,
    }


def serve() -> None:
    """Answer until the standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    sys.path.insert(0, str(DAGS))
    for line in sys.stdin:
        answers.write(json.dumps(run_dag(line.strip())) + "\n")


if __name__ == "__main__":
    serve()
