"""What a task loads, seen in a fresh process: never mlflow, and nothing of ours that the scheduler could hold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import HOME, ROOT

# Every import of the process passes the hook, also one that somebody undoes afterwards.
NOTHING_HEAVY = """
import sys
seen = set()
class Trace:
    def find_spec(self, name, path=None, target=None):
        seen.add(name.partition(".")[0])
sys.meta_path.insert(0, Trace())
from tests.support.dagruns import alone, load_dag
dag = load_dag("echo_zip")
with alone(dag):  # an asset with a scheme, as another file has, loads every provider
    run = dag.test(run_conf={"text": "x", "num": 1})
print("RESULT", run.state, sorted(seen & {"mlflow", "pandas", "boto3", "docker", "git", "httpx"}))
"""

# A Job is what the scheduler, the DAG processor and the triggerer are; Airflow's listeners hear of it.
NOTHING_NEW = """
import sys
from airflow.jobs.job import Job
def library():
    return {name for name in sys.modules if name.startswith("mlflow_projects.")}
before = library()
Job()
loaded = library()
sys.path.insert(0, "dags")
from echo_zip import echo
run = echo.dag.test(run_conf={"text": "x", "num": 1})
print("RESULT", run.state, bool(loaded - before), sorted(library() - loaded))
"""


def result_of(code: str, **variables: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TESTS_HOME": str(HOME), **variables}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    (result,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT")] or [done.stderr[-3000:]]
    return result


@pytest.mark.usefixtures("airflow_db", "tracking_uri")
def test_a_whole_dag_run_imports_neither_mlflow_nor_anything_else_heavy() -> None:
    assert result_of(NOTHING_HEAVY) == "RESULT success ['httpx']"


@pytest.mark.nightly
@pytest.mark.usefixtures("airflow_db", "tracking_uri")
def test_what_the_tasks_of_a_dag_run_load_is_there_before_the_scheduler_forks_them(tmp_path: Path) -> None:
    # dag.test() parses the whole folder, and the files of other DAGs load more.
    assert result_of(NOTHING_NEW, AIRFLOW__CORE__DAGS_FOLDER=str(tmp_path)) == "RESULT success True []"
