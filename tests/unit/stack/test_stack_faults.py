"""What `make stack-faults` is made of, without a container engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.conftest import ROOT
from tests.faults.observed import DagRun
from tests.faults.verdict import Fault, run_all
from tests.stack import faults, parts


def look(*arguments: str) -> list[list[str]]:
    done = subprocess.run(
        [sys.executable, "-I", "-c", parts._LOOK, *arguments], check=True, capture_output=True, text=True
    )
    found: list[list[str]] = json.loads(done.stdout)
    return found


def test_the_command_of_a_dag_run_is_found_until_it_ends() -> None:
    environment = {**os.environ, "AIRFLOW_CTX_DAG_RUN_ID": "run 1", "MLFLOW_RUN_ID": "a"}
    process = subprocess.Popen(["sleep", "600"], env=environment)
    try:
        deadline = time.monotonic() + 120
        while not look("run 1"):  # it has its environment once it runs the program
            assert time.monotonic() < deadline
        assert look("run 1") == [["sleep", "600"]]
        assert look("run 2") == []
    finally:
        process.kill()
    process.wait()
    assert look("run 1") == []


def test_a_task_is_found_by_the_title_that_airflow_gives_it() -> None:
    with subprocess.Popen(["airflow worker -- 1", "600"], executable="/usr/bin/sleep") as process:
        try:
            deadline = time.monotonic() + 120
            while ["airflow worker -- 1", "600"] not in look():
                assert time.monotonic() < deadline
        finally:
            process.kill()


def test_the_faults_add_settings_and_dags_and_change_nothing_else() -> None:
    added = yaml.safe_load((ROOT / "tests" / "stack" / "faults.yaml").read_text())
    main = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
    for name, service in added["services"].items():
        assert set(service) == {"environment", "volumes"}
        assert name in main["services"]
        assert all(key.startswith("AIRFLOW__") for key in service["environment"])
        assert all(volume.endswith(":ro") for volume in service["volumes"])


def test_a_password_of_env_that_is_shown_is_named() -> None:
    class Shown:
        def last_lines(self, *, count: int) -> list[str]:
            return ["connecting with hunter2-hunter2"]

        def records(self) -> str:
            return "the name stack-admin"

    env = {"S3_ACCESS_KEY": "stack-admin", "REDIS_PASSWORD": "hunter2-hunter2", "AIRFLOW_JWT_SECRET": "not there"}
    shown: Any = Shown()
    assert faults.secrets_shown(shown, env) == ["5: REDIS_PASSWORD of .env"]


def test_a_broken_fault_shows_logs_and_its_name_and_what_it_left_is_mended(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    class Broken(parts.ComposeStack):
        mended = 0

        def __init__(self) -> None:
            pass

        def is_up(self) -> bool:
            return True

        def mend(self, lane: str = "") -> None:
            self.mended += 1

        def ask(self, method: str, path: str, content: Any) -> httpx.Response:
            return httpx.Response(200, json={"dag_run_id": "run 1"})

        def last_lines(self, dag_runs: Sequence[DagRun] = (), count: int = 25) -> list[str]:
            return [f"the end of a log of {dag_run}" for dag_run in dag_runs]

    def break_it(stack: parts.ComposeStack) -> tuple[str, str]:
        stack.trigger("a DAG")
        raise AssertionError("no engine")

    record = tmp_path / "failed_before.txt"
    record.write_text("another fault\n")
    table = [Fault[parts.ComposeStack](name, break_it, "success", True) for name in ("a fault", "another fault")]
    stack = Broken()
    [verdict, _] = run_all(stack, table, record=record)
    assert verdict.problems == ["AssertionError: no engine"]
    assert stack.mended == 2
    output = capsys.readouterr().out
    assert output.startswith("a fault ")
    assert "BROKEN AssertionError: no engine\nthe end of a log of ('a DAG', 'run 1')\n" in output
    assert output.endswith("failed_before.txt:\na fault\n")


def test_each_fault_has_a_name_of_its_own_and_runs_alone() -> None:
    names = [fault.name for fault in faults.FAULTS]
    assert len(names) == len(set(names)) == 12
    assert all(fault.disturbs for fault in faults.FAULTS)


def test_the_dags_are_those_that_the_faults_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.dag_processing.dagbag import DagBag

    monkeypatch.setenv("STACK_FAULTS_PROJECTS", str(ROOT / "tests" / "projects"))
    bag = DagBag(str(Path(faults.__file__).parent / "dags" / "stack_faults.py"))
    assert bag.import_errors == {}
    assert set(bag.dags) == set(faults.DAGS)
