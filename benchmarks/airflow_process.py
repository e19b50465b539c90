"""One Python process with Airflow in it, which runs the benchmark's DAGs when told to.

It reads one JSON object a line from its standard input, a DAG to run, and answers with one. Everything that
Airflow and the tasks print goes to the standard error.
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

ROOT = Path(__file__).resolve().parents[1]


class AirflowProcess:
    """Start the process; leaving the ``with`` block ends it.

    :param environment: the complete environment
    :param log: the file that takes what the process prints
    """

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._environment, self._log = dict(environment), log

    def __enter__(self) -> AirflowProcess:
        with self._log.open("a") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.airflow_process"],
                env=self._environment, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file,
                text=True, bufsize=1,
            )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, dag: str, **conf: Any) -> dict[str, Any]:
        """Run a DAG and return ``seconds`` (of all its tasks together), ``tasks`` and ``mlflow_imported``.

        :param dag: ``module.variable`` below benchmarks/dags
        :param conf: of the DAG run
        :raises RuntimeError: the DAG run failed, or the process died
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"dag": dag, "conf": conf}) + "\n")
        answer = json.loads(self._process.stdout.readline() or '{"state": "dead"}')
        if answer["state"] != "success":
            raise RuntimeError(f"The DAG {dag!r} ended as {answer['state']}; see {self._log}.")
        return dict(answer)

    def seconds(self, dag: str, **conf: Any) -> float:
        """Run a DAG and return the seconds of its tasks."""
        return float(self.run(dag, **conf)["seconds"])


def run_dag(dag: str, conf: Mapping[str, Any]) -> dict[str, Any]:
    """Run a DAG with ``dag.test()``.

    The duration is each task instance's own, from Airflow's database: it begins when Airflow hands the
    task to its runner and ends when the runner has reported the result. What dag.test() does around it
    (parsing the DAG folder anew, writing DAGs to the database) is not part of a task in real Airflow.
    """
    module, _, variable = dag.rpartition(".")
    dag_run = getattr(importlib.import_module(module), variable).test(run_conf=dict(conf))
    tasks = {
        f"{ti.task_id}[{ti.map_index}]" if ti.map_index >= 0 else ti.task_id: (
            ti.end_date - ti.start_date
        ).total_seconds()
        for ti in dag_run.get_task_instances()
        if ti.start_date and ti.end_date
    }
    return {
        "state": str(dag_run.state.value),
        "seconds": sum(tasks.values()),
        "tasks": tasks,
        "mlflow_imported": "mlflow" in sys.modules,
    }


def serve() -> None:
    """Answer until the standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    sys.path.insert(0, os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    for line in sys.stdin:
        answers.write(json.dumps(run_dag(**json.loads(line))) + "\n")


if __name__ == "__main__":
    serve()
