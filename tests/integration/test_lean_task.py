"""With an http tracking server, a task process never loads mlflow: traced in a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import HOME, ROOT

# Every import of the process passes the hook, also one that somebody undoes afterwards.
CODE = """
import sys
seen = set()
class Trace:
    def find_spec(self, name, path=None, target=None):
        seen.add(name.partition(".")[0])
sys.meta_path.insert(0, Trace())
from tests.support.dagruns import load_dag
run = load_dag("echo_zip").test(run_conf={"text": "x", "num": 1})
print("RESULT", run.state, sorted(seen & {"mlflow", "pandas", "boto3", "docker", "git", "httpx"}))
"""


@pytest.mark.usefixtures("airflow_db", "tracking_uri")
def test_a_whole_dag_run_imports_neither_mlflow_nor_anything_else_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "TESTS_HOME": str(HOME)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    (result,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT")] or [done.stderr[-3000:]]
    assert result == "RESULT success ['httpx']"
