"""reuse="wait" between processes: of two that make the same result one runs; a lost one holds nobody up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import HOME, ROOT
from tests.support.logs import shown_on_failure
from tests.support.reuse_chain import Chain
from tests.support.waiting import PATIENCE, wait

pytestmark = [
    pytest.mark.system, pytest.mark.nightly, pytest.mark.usefixtures("airflow_db", "tracking_uri"),
]  # fmt: skip

WAITS = "which makes the same result"
CODE = """
import json, sys
from tests.support.dagruns import alone, load_dag
dag = load_dag("reuse_chain")
with alone(dag):
    run = dag.test(run_conf=json.loads(sys.argv[1]))
print("RESULT", run.state, sorted({"mlflow", "git", "docker", "boto3"} & set(sys.modules)))
"""


def start(conf: dict[str, Any], log: Path) -> subprocess.Popen[bytes]:
    """Run the DAG in a process of its own."""
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-c", CODE, json.dumps(conf)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TESTS_HOME": str(HOME)},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


def test_of_two_that_wait_for_each_other_one_runs(chain: Chain, tmp_path: Path) -> None:
    chain.run(text="before")  # Airflow knows the DAG then; else both processes would add it
    chain.counter.write_text("")
    conf = {**chain.conf, "mode": "wait", "gate": str(tmp_path / "gate")}
    logs = [tmp_path / f"log{n}" for n in range(2)]
    with shown_on_failure(tmp_path, "log?"):
        both = [start(conf, log) for log in logs]
        wait(lambda: chain.ran > 1 or any(WAITS in log.read_text() for log in logs), "the one that waits")
        assert chain.ran == 1
        (tmp_path / "gate").touch()
        assert [process.wait(PATIENCE) for process in both] == [0, 0]
        assert ["RESULT success []" in log.read_text() for log in logs] == [True, True]
    assert chain.ran == 2  # each step once


def test_whoever_waits_takes_over_from_one_that_is_lost(chain: Chain, tmp_path: Path) -> None:
    conf = {**chain.conf, "mode": "wait", "gate": str(tmp_path / "gate")}
    with shown_on_failure(tmp_path, "lost", "other", "same"):
        lost = start(conf, tmp_path / "lost")
        wait(chain.counter.exists, "the command of the one that will be lost")
        lost.kill()
        lost.wait()
        other = start({**conf, "gate": "/"}, tmp_path / "other")  # another content …
        assert other.wait(PATIENCE) == 0
        same = start(conf, tmp_path / "same")  # … and the same: it waits
        wait(lambda: WAITS in (tmp_path / "same").read_text(), "the one that waits")
        assert same.poll() is None
        _give_up("first")  # as the scheduler does when the heartbeat is overdue
        wait(lambda: chain.ran == 4, "its command")  # after the lost one and two of the other content
        same.terminate()
        same.wait(PATIENCE)


def _give_up(task: str) -> None:
    """Set the oldest running instance of a task to failed."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        running = select(TaskInstance).where(
            TaskInstance.dag_id == "reuse_chain",
            TaskInstance.task_id == f"parent.{task}",
            TaskInstance.state == "running",
        )
        found = sorted(session.scalars(running), key=lambda instance: instance.start_date)
        assert len(found) == 2
        found[0].state = "failed"
