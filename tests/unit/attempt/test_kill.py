"""Airflow's SIGTERM reaches the attempt while it works: it ends at once, and its record says KILLED."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlflow_projects.attempt.life import Attempt
from mlflow_projects.attempt.stopping import AttemptKilledError
from tests.support.attempts import Life, wait_until_gone


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(tmp_path)


@contextlib.contextmanager
def sigterm_kills(attempt: Attempt) -> Iterator[None]:
    """Pass the signal on to the attempt, as Airflow's task process does."""
    previous = signal.signal(signal.SIGTERM, lambda *_: attempt.kill())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextlib.contextmanager
def sigterm_when_there_is(file: Path) -> Iterator[None]:
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            if file.exists():
                os.kill(os.getpid(), signal.SIGTERM)
                return

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()


def test_while_the_command_runs_and_does_not_care(life: Life) -> None:
    """It would run for ten minutes, and so would its child."""
    attempt = life.attempt(
        "trap '' TERM; sleep 600 & echo $! $$; sleep 600; echo ended", backend_config={"grace_seconds": 0.2}
    )
    numbers: list[int] = []

    def begun(line: str) -> None:
        if line[0].isdigit():
            numbers.extend(map(int, line.split()))
            os.kill(os.getpid(), signal.SIGTERM)

    life.on_line = begun
    with sigterm_kills(attempt), pytest.raises(AttemptKilledError, match=r"^stopped by Airflow$"):
        attempt.run()
    run = life.only_run
    assert run.status == "KILLED"
    assert run.tags["mlflow_projects.reason"] == "stopped by Airflow"
    assert run.tags["mlflow_projects.output_tail"] == "{} {}".format(*numbers)
    assert run.tags["mlflow_projects.exit_code"] == "137"
    assert "ended" not in life.log
    assert len(numbers) == 2
    wait_until_gone(*numbers)
    assert life.client.calls.count("update_run") == 1


def test_while_an_environment_is_built(life: Life, tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "slow").mkdir(parents=True)
    (project / "MLproject").write_text("entry_points: {main: {command: 'true'}}")
    (project / "python_env.yaml").write_text("dependencies: ['./slow']")
    backend = f"import pathlib, time\npathlib.Path({str(tmp_path / 'building')!r}).touch()\ntime.sleep(600)\n"
    (project / "slow" / "backend.py").write_text(backend)
    (project / "slow" / "pyproject.toml").write_text(
        "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
        "[project]\nname = 'slow'\nversion = '1'\n"
    )
    attempt = life.attempt(uri=str(project), parameters={}, env_manager="uv")
    with (
        sigterm_kills(attempt),
        sigterm_when_there_is(tmp_path / "building"),
        pytest.raises(AttemptKilledError, match=r"^stopped by Airflow$"),
    ):
        attempt.run()
    assert life.only_run.status == "KILLED"
    assert life.only_run.tags["mlflow_projects.reason"] == "stopped: AttemptKilledError stopped by Airflow"
    assert not list((life.folder / "cache" / "environments").glob("*.ready"))


def test_while_the_record_is_written(life: Life) -> None:
    """Half a request would leave a run that nobody knows of: the attempt ends right after it."""
    attempt = life.attempt("echo started")
    life.client.before = lambda method, _: os.kill(os.getpid(), signal.SIGTERM) if method == "create_run" else None
    with sigterm_kills(attempt), pytest.raises(AttemptKilledError):
        attempt.run()
    assert life.only_run.status == "KILLED"
    assert life.opened == [(life.only_run.run_id, None)]
    assert life.log == []


def test_before_anything_began(life: Life) -> None:
    attempt = life.attempt("echo started")
    attempt.kill()
    with pytest.raises(AttemptKilledError):
        attempt.run()
    assert life.only_run.status == "KILLED"
    assert life.log == []


def test_after_the_end_nothing_happens(life: Life) -> None:
    attempt = life.attempt("true")
    before = attempt.run().run
    calls = list(life.client.calls)
    attempt.kill()
    assert life.client.calls == calls
    assert (life.only_run.run_id, life.only_run.status) == (before.run_id, "FINISHED")
