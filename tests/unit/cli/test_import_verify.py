"""What `mlflow-projects import --verify` refuses before anything runs for real."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_projects.cli.import_script.plan import Plan
from mlflow_projects.cli.import_script.recording import Script, ScriptError
from mlflow_projects.cli.import_script.verify import _check_server, _compare, verify


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


def run(name: str, command: str, **params: str) -> dict[str, object]:
    return {
        "id": f"{name} {command}", "name": name, "parent": None, "params": params, "metrics": [], "artifacts": [],
        "command": command,
    }  # fmt: skip


def told(theirs: list[dict[str, object]], ours: list[dict[str, object]], *drawn: str) -> list[str]:
    return ["; ".join(row.problems) for row in _compare(theirs, ours, drawn)]


def test_steps_are_paired_by_their_command_whatever_their_order() -> None:
    theirs = [run("a", "echo 1", n="1"), run("b", "echo 2", n="2")]
    assert told(theirs, [run("x", "echo 2", n="2"), run("y", "echo 1", n="1")]) == ["", ""]
    assert told(theirs, [run("x", "echo 3", n="3"), run("y", "echo 1", n="1")]) == [
        "", "command: 'echo 2' and 'echo 3'; params: {'n': '2'} and {'n': '3'}",
    ]  # fmt: skip
    assert told(theirs, theirs[:1]) == ["", "the DAG has no such step"]
    assert told(theirs[:1], theirs) == ["", "the script has no such step"]


def test_a_value_that_is_drawn_at_random_may_be_another_but_must_be_in_its_place() -> None:
    theirs, ours = run("a", "train 0.25 x", rate="0.25"), run("a", "train 0.75 x", rate="0.75")
    assert told([theirs], [ours], "rate") == [""]
    assert told([theirs], [ours]) != [""]
    assert told([theirs], [run("a", "train x 0.75", rate="0.75")], "rate") != [""]
    assert told([theirs], [run("a", "train 0.75 y", rate="0.75")], "rate") != [""]
    # Of two that differ in more, each finds its own.
    assert told(
        [theirs, run("b", "test 0.5", rate="0.5")], [run("b", "test 0.1", rate="0.1"), ours], "rate"
    ) == ["", ""]  # fmt: skip
