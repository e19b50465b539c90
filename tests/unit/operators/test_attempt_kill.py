"""Airflow's SIGTERM reaches the attempt in any phase: it ends in seconds, and its record says KILLED."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlflow_projects.operators.attempt import Attempt, AttemptKilledError, Step
from mlflow_projects.project.cache import Cache
from mlflow_projects.tracking.client import TrackingClient, connect
from mlflow_projects.tracking.record import TaskIdentity, now, resolve_experiment
from mlflow_projects.tracking.settings import TrackingSettings
from tests.conftest import ROOT
from tests.support.gitserver import GitServer


@pytest.fixture
def client(mlflow_server: str) -> Iterator[TrackingClient]:
    connected = connect(TrackingSettings(uri=mlflow_server))
    yield connected
    connected.close()


def kill_during(
    client: TrackingClient, tmp_path: Path, *, uri: str, parameters: dict[str, str], after: float, env: str = "local"
) -> tuple[float, list[str], str]:
    """Run an attempt, send SIGTERM to this process ``after`` seconds; return (seconds, log, experiment id)."""
    experiment = resolve_experiment(client, f"killed {now()}")
    log: list[str] = []
    step = Step(uri, "main", None, parameters, "local", {}, env, "step", experiment, None)
    task = TaskIdentity("dag", "run", "task", 1, f"attempt {now()}")
    attempt = Attempt(step, task, client, Cache(tmp_path / "cache"), log.append, str, lambda *_: None)
    previous = signal.signal(signal.SIGTERM, lambda *_: attempt.kill())
    timer = threading.Timer(after, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    start = time.monotonic()
    try:
        with pytest.raises(AttemptKilledError):
            attempt.run()
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, previous)
    return time.monotonic() - start - after, log, experiment


def test_while_the_command_runs(client: TrackingClient, tmp_path: Path) -> None:
    command = f"trap '' TERM; echo begun; echo $$ > {tmp_path}/pid; sleep 60; sleep 60"
    seconds, log, experiment = kill_during(
        client, tmp_path, uri=str(ROOT / "tests/projects/shell"), parameters={"command": command}, after=1.5
    )
    (run,) = client.search_runs([experiment], "")
    assert run.status == "KILLED"
    assert run.tags["mlflow_projects.output_tail"] == "begun"
    assert "begun" in log
    assert seconds < 4.8, "Airflow sends SIGKILL after 5 s"
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_while_an_environment_is_built(client: TrackingClient, tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "slow").mkdir(parents=True)
    (project / "MLproject").write_text("entry_points: {main: {command: 'true'}}")
    (project / "python_env.yaml").write_text("dependencies: ['./slow']")
    backend = "import time\ntime.sleep(60)\n"
    (project / "slow" / "backend.py").write_text(backend)
    (project / "slow" / "pyproject.toml").write_text(
        "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
        "[project]\nname = 'slow'\nversion = '1'\n"
    )
    seconds, _, experiment = kill_during(client, tmp_path, uri=str(project), parameters={}, after=2.0, env="uv")
    (run,) = client.search_runs([experiment], "")
    assert run.status == "KILLED"
    assert seconds < 4.8
    assert not list((tmp_path / "cache" / "environments").glob("*.ready"))


def test_while_a_project_is_fetched(client: TrackingClient, tmp_path: Path) -> None:
    import git

    git.Repo.init(tmp_path / "slow.git", bare=True)
    with GitServer(tmp_path, delay=30) as server:
        seconds, _, experiment = kill_during(client, tmp_path, uri=f"{server.url}/slow.git", parameters={}, after=1.0)
    (run,) = client.search_runs([experiment], "")
    assert run.status == "KILLED"
    assert seconds < 2
