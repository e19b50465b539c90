"""What the processes that Airflow forks tasks from have ready for them."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from airflow.sdk import DAG

from mlflow_projects import MLflowProjectOperator
from mlflow_projects.listeners import preload
from mlflow_projects.public_uri import public_text, public_uri

SHOWN = (
    "http://airflow.example.com:8080/dags/a/runs/manual__2026-11-21T11%3A50%3A53.151982%2B00%3A00/tasks/b",
    "http://127.0.0.1:8080/dags/a/runs/scheduled__1/tasks/b?map_index=3",
    "https://mlflow.example.com/#/experiments/1/runs/abc?a=b",
    "git+ssh://git@example.com/team/models.git@main",
    "https://bot:secret@example.com/team/models.git",
    "s3://bucket/a=b",
)


class Job:
    """Airflow's class is told by its name."""


@pytest.fixture(autouse=True)
def forgotten() -> None:
    re.purge()


def patterns() -> set[object]:
    return set(re._cache)  # type: ignore[attr-defined]


def test_no_address_of_a_step_makes_a_task_process_compile_a_pattern() -> None:
    preload.on_starting(Job())
    ready = patterns()
    for address in SHOWN:
        public_uri(address)
        public_text(f"{address} and more")
    assert patterns() - ready == set()


def test_jinja_is_ready_to_read_a_template_of_airflow() -> None:
    from jinja2 import lexer

    lexer._lexer_cache.clear()
    preload.on_starting(Job())
    [ready] = lexer._lexer_cache.values()
    with DAG("dag", schedule=None) as dag:
        task = MLflowProjectOperator(task_id="a", uri="/p", run_name="{{ ds }}")
    for made in (dag.get_template_env(), task.get_template_env()):
        assert lexer.get_lexer(made) is ready


def test_a_task_process_loads_nothing_by_it() -> None:
    code = (
        "import sys; from mlflow_projects.listeners import preload; before = set(sys.modules); "
        "preload.on_starting(object()); print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
