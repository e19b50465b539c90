"""Airflow's SIGTERM while a project is fetched from a server that takes long to answer."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import git
import pytest

from mlflow_projects.attempt.stopping import AttemptKilledError
from tests.support.attempts import Life
from tests.support.gitserver import GitServer


def test_while_a_project_is_fetched(tmp_path: Path) -> None:
    git.Repo.init(tmp_path / "slow.git", bare=True)
    life, over = Life(tmp_path / "life"), threading.Event()
    with GitServer(tmp_path, before_answer=over.wait) as server:
        attempt = life.attempt(uri=f"{server.url}/slow.git", parameters={})

        def when_asked() -> None:
            while not over.wait(0.01):
                if server.requests:
                    os.kill(os.getpid(), signal.SIGTERM)
                    return

        previous = signal.signal(signal.SIGTERM, lambda *_: attempt.kill())
        watching = threading.Thread(target=when_asked)
        watching.start()
        try:
            with pytest.raises(AttemptKilledError, match=r"^stopped by Airflow$"):
                attempt.run()
        finally:
            over.set()
            watching.join()
            signal.signal(signal.SIGTERM, previous)
    assert life.only_run.status == "KILLED"
    assert life.only_run.tags["mlflow_projects.reason"] == "stopped: AttemptKilledError stopped by Airflow"
