"""What `mlflow-projects import --verify` refuses before anything runs for real."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_projects.cli.import_script.plan import Plan
from mlflow_projects.cli.import_script.recording import Script, ScriptError
from mlflow_projects.cli.import_script.verify import _check_server, verify


def plan(*addresses: str) -> Plan:
    own = [
        {"kind": "own", "does": "sets", "what": f"the tracking server {address}", "where": ["main.py", 3]}
        for address in addresses
    ]
    return Plan([], [{"does": "calls", "what": "mlflow.log_param('x')", "where": None}, *own], [])


def test_a_script_that_names_its_server_is_not_run(tmp_path: Path) -> None:
    script = Script(tmp_path / "main.py", tmp_path, tmp_path)
    with pytest.raises(
        ScriptError, match=r"^main.py:3: this sets the tracking server http://prod:5000, and --verify"
    ):
        verify(script, "no-python", plan("http://prod:5000"), "x", tmp_path / "empty")
    assert list(tmp_path.iterdir()) == []


def test_an_address_from_the_environment_is_no_hindrance(tmp_path: Path) -> None:
    script = Script(tmp_path / "main.py", tmp_path, tmp_path)
    _check_server(script, plan("sqlite:////tmp/mlflow-projects-import-a1/b/mlflow.db"))
