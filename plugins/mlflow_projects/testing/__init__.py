"""What a backend must pass: pytest cases for the contract of :mod:`mlflow_projects.backends.contract`.

Subclass :class:`BackendConformance`, or :class:`DurableBackendConformance`, in a test module of yours, as
docs/backends.md shows. The cases run real commands through the backend, as an attempt does. This package needs
pytest; nothing else of the library imports it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mlflow_projects.backends.contract import (
    DurableBackend,
    DurableLaunch,
    Handle,
    Host,
    Job,
    Launch,
    News,
    OpenRun,
    Running,
)
from mlflow_projects.backends.registry import backend_class, check_config_keys, durable_class, handle_from
from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.cache import Cache
from mlflow_projects.project.command import check_parameters
from mlflow_projects.project.spec import load_project

_MLPROJECT = """
entry_points:
  main:
    parameters:
      script: string
    command: "bash -c {script}"
"""
_MANY = 5000
_WORKER = """
import json, os, pathlib, sys
sys.path[:0] = {path!r}
from {module} import {case} as case
made = case().job(pathlib.Path({folder!r}), {script!r}, attempt_id={attempt!r})
launch = case().prepared(made)
running = launch.start(case.open_run(), lambda running: None)
print("handle", json.dumps(launch.handle.as_json()), flush=True)
for line in running.lines():
    print(line, flush=True)
"""


def _ignore(_: Any) -> None:
    """Take what nobody wants to know."""


class Killed(Exception):
    """Airflow stops the task."""


class BackendConformance:
    """The cases; a subclass says which backend, and how it is reached.

    :cvar backend: its name
    :cvar config: ``backend_config`` of a job that runs
    :cvar other_configs: settings of which each may change the result of a job; merged into ``config``
    :cvar same_configs: settings that cannot change it
    :cvar bad_configs: settings that it refuses
    :cvar variables: of the attempt, such as the address of the tracking server
    """

    backend: ClassVar[str]
    config: ClassVar[Mapping[str, Any]] = {}
    other_configs: ClassVar[Sequence[Mapping[str, Any]]] = ()
    same_configs: ClassVar[Sequence[Mapping[str, Any]]] = ()
    bad_configs: ClassVar[Sequence[Mapping[str, Any]]] = ()
    variables: ClassVar[Mapping[str, str]] = {}

    def leftovers(self, folder: Path) -> list[str]:  # noqa: ARG002
        """Return what jobs of a test have left running, in words; [] if nothing."""
        return []

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until a condition holds; a test of yours may bring a patience of its own."""
        import time

        until = time.monotonic() + 300
        while not condition():
            assert time.monotonic() < until, f"waited in vain for {what}"
            time.sleep(0.05)

    # --- a job

    @staticmethod
    def open_run(**more: Any) -> OpenRun:
        """Return what is known of an open MLflow run."""
        return OpenRun({"MLFLOW_RUN_ID": "0" * 32, "MLFLOW_EXPERIMENT_ID": "0"}, **more)

    def job(self, folder: Path, script: str, **changes: Any) -> Job:
        """Return a job that runs a script of bash."""
        root, workspace = folder / "project", folder / f"workspace-{uuid.uuid4().hex[:8]}"
        root.mkdir(exist_ok=True)
        workspace.mkdir()
        (root / "MLproject").write_text(_MLPROJECT)
        project = load_project(root)
        entry_point = project.entry_point("main")
        values: dict[str, Any] = {
            "project": project,
            "entry_point": entry_point,
            "parameters": check_parameters(project, entry_point, {"script": script}),
            "variables": self.variables,
            "workspace": workspace,
            "cache": Cache(folder / "cache"),
            "config": self.config,
            "label": "conformance",
            "attempt_id": str(uuid.uuid4()),
            "task_key": "",
        }
        return Job(**{**values, **changes})

    def prepared(self, job: Job, log: list[str] | None = None) -> Launch:
        """Prepare a job, as an attempt does."""
        check_config_keys(job.config)
        host = Host((log if log is not None else []).append, poll_interval=0.2)
        return backend_class(self.backend)(host).prepare(job)

    def started(self, job: Job) -> Running:
        """Start a job, as an attempt does."""
        return self.prepared(job).start(self.open_run(), _ignore)

    @staticmethod
    def of_the_command(running: Running, *expected: str) -> list[str]:
        """Return a job's output without the lines that the backend itself adds."""
        return [line for line in running.lines() if line in expected]

    @pytest.fixture(autouse=True)
    def _nothing_is_left(self, tmp_path: Path) -> Iterator[None]:
        yield
        self.wait(lambda: not self.leftovers(tmp_path), "the end of what the test left behind")

    # --- output and end

    def test_a_success(self, tmp_path: Path) -> None:
        running = self.started(self.job(tmp_path, "echo one; echo two >&2; echo $MLFLOW_RUN_ID"))
        assert sorted(self.of_the_command(running, "one", "two", "0" * 32)) == ["0" * 32, "one", "two"]
        status = running.status()
        assert (status.state, status.exit_code) == ("succeeded", 0)

    @pytest.mark.parametrize("code", [1, 42])
    def test_a_failure_keeps_its_exit_code(self, code: int, tmp_path: Path) -> None:
        running = self.started(self.job(tmp_path, f"echo before; exit {code}"))
        assert self.of_the_command(running, "before") == ["before"]
        status = running.status()
        assert (status.state, status.exit_code) == ("failed", code)
        assert status.reason

    def test_no_line_of_much_output_is_lost_or_moved(self, tmp_path: Path) -> None:
        running = self.started(self.job(tmp_path, f"seq {_MANY}; echo 日本語"))
        expected = [*map(str, range(1, _MANY + 1)), "日本語"]
        assert self.of_the_command(running, *expected) == expected

    # --- cancelling

    def test_a_job_that_runs_is_cancelled(self, tmp_path: Path) -> None:
        running = self.started(self.job(tmp_path, "echo begun; sleep 600 & sleep 600; echo ended"))
        seen = []
        for line in running.lines():
            seen.append(line)
            if line == "begun":
                running.cancel()
        running.finish_cancel(60)
        self.wait(lambda: running.status().state != "running", "the end of the job")
        assert "begun" in seen
        assert "ended" not in seen
        assert running.status().state in ("failed", "stopped")
        running.cancel()  # it is over

    def test_a_kill_before_the_job_is_there_starts_none(self, tmp_path: Path) -> None:
        mark = tmp_path / "mark"
        launch = self.prepared(self.job(tmp_path, f"sleep 5; touch {mark}"))

        def begun(running: Running) -> None:
            running.cancel()
            running.finish_cancel(60)
            raise Killed

        with pytest.raises(Killed):
            launch.start(self.open_run(), begun)
        if isinstance(launch, DurableLaunch):
            backend = durable_class(self.backend)(Host(_ignore))
            assert backend.find(launch.handle) is None
        self.wait(lambda: not self.leftovers(tmp_path), "the end of the job")
        assert not mark.exists()

    # --- what it may and may not know

    def test_the_workers_secrets_are_withheld(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "secret-of-airflow")
        monkeypatch.setenv("AIRFLOW_CONN_SOME", "http://user:secret-of-airflow@host")
        lines = list(self.started(self.job(tmp_path, "env")).lines())
        assert f"MLFLOW_RUN_ID={'0' * 32}" in lines
        assert not any("secret-of-airflow" in line for line in lines)

    def test_bad_settings_are_refused_with_their_key(self, tmp_path: Path) -> None:
        for config in ({"no_such_key_at_all": 1}, *self.bad_configs):
            with pytest.raises(ProjectError) as caught:
                self.prepared(self.job(tmp_path, "true", config={**self.config, **config}))
            assert any(key in str(caught.value) for key in config)

    def test_the_identity_changes_where_the_result_may(self, tmp_path: Path) -> None:
        def identity(**config: Any) -> str:
            made = self.job(tmp_path, "true", config={**self.config, **config})
            return json.dumps(self.prepared(made).identity(), sort_keys=True, default=str)

        found = [identity(), *(identity(**config) for config in self.other_configs)]
        assert len(set(found)) == len(found)
        assert {identity(), *(identity(**config) for config in self.same_configs)} == {found[0]}

    def test_nothing_is_started_by_a_preparation(self, tmp_path: Path) -> None:
        launch = self.prepared(self.job(tmp_path, f"touch {tmp_path}/mark"))
        assert launch.tags["mlflow.project.env"]
        launch.identity()
        assert not self.leftovers(tmp_path)
        assert not (tmp_path / "mark").exists()


class DurableBackendConformance(BackendConformance):
    """The cases of a durable backend besides."""

    def durable(self) -> DurableBackend:
        """Return the backend."""
        return durable_class(self.backend)(Host(_ignore, poll_interval=0.2))

    def prepared_durable(self, job: Job) -> DurableLaunch:
        """Prepare a job, as an attempt does."""
        launch = self.prepared(job)
        assert isinstance(launch, DurableLaunch)
        return launch

    def test_a_handle_finds_the_job_from_another_process_after_the_worker_was_killed(self, tmp_path: Path) -> None:
        backend = self.durable()
        go = tmp_path / "go"
        script = f"echo begun; while [ ! -e {go} ]; do sleep 0.1; done; echo ended; exit 7"
        attempt = str(uuid.uuid4())
        code = _WORKER.format(
            path=[path for path in sys.path if path], module=type(self).__module__, case=type(self).__name__,
            folder=str(tmp_path), script=script, attempt=attempt,
        )  # fmt: skip
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout
            told = next(line for line in worker.stdout if line.startswith("handle "))
            handle = handle_from(json.loads(told.partition(" ")[2]))
            os.kill(worker.pid, signal.SIGKILL)
        running = backend.find(handle)
        assert running
        assert running.status().state == "running"
        assert not self._news(backend, handle).ended
        go.touch()
        assert self.of_the_command(running, "begun", "ended") == ["begun", "ended"]
        self.wait(lambda: self._news(backend, handle).ended, "the news of the end")
        assert (running.status().state, running.status().exit_code) == ("failed", 7)
        assert "ended" in running.last_lines(5)

    def test_a_job_that_was_never_submitted_is_not_found(self, tmp_path: Path) -> None:
        backend = self.durable()
        handle = self.prepared_durable(self.job(tmp_path, "true")).handle
        assert backend.find(handle) is None
        backend.stop(handle)  # harmless

    def test_any_process_stops_a_job(self, tmp_path: Path) -> None:
        backend = self.durable()
        launch = self.prepared_durable(self.job(tmp_path, "echo begun; sleep 600"))
        launch.start(self.open_run(), _ignore)
        handle = handle_from(json.loads(json.dumps(launch.handle.as_json())))
        running = backend.attach(handle)
        assert "begun" in running.lines()
        backend.stop(handle)
        backend.stop(handle)
        self.wait(lambda: running.status().state != "running", "the end of the job")
        assert running.status().state in ("failed", "stopped")

    def test_a_deadline_counts_from_the_start_and_links_have_their_names(self, tmp_path: Path) -> None:
        backend = self.durable()
        launch = self.prepared_durable(self.job(tmp_path, "true"))
        later = launch.postponed()
        assert backend.deadline(launch.handle) <= backend.deadline(later.handle)
        assert handle_from(json.loads(json.dumps(later.handle.as_json()))) == later.handle
        assert list(backend.links(later.handle)) == list(backend.link_names)

    @staticmethod
    def _news(backend: DurableBackend, handle: Handle) -> News:
        (news,) = backend.poll_many([handle])
        return news
