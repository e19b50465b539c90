"""The table of ``mlflow-projects tree``."""

from __future__ import annotations

import argparse

import pytest

from mlflow_projects.cli import tree
from mlflow_projects.cli.tree import _shown_files
from mlflow_projects.tracking.client import Artifact
from mlflow_projects.tracking.record import Outcome, RunRecord, SourceTags, TaskIdentity
from tests.support.tracked import connected


def test_a_run_with_many_files_takes_a_few_lines() -> None:
    pictures = [Artifact(f"data/train/3/{number}.png", is_dir=False, size=7) for number in range(50)]
    shown = _shown_files([*pictures, Artifact("data/classes.json", is_dir=False, size=90)])
    assert shown[:2] == ["data/classes.json (90 B)", "data/train/3/0.png (7 B)"]
    assert len(shown) == 9
    assert shown[-1] == "… and more"
    assert _shown_files(pictures[:8]) == [f"data/train/3/{number}.png (7 B)" for number in range(8)]


def test_a_check_names_what_records_lack(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    client = connected(monkeypatch)
    monkeypatch.setattr("mlflow_projects.cli.airflow_side.tracking_settings", lambda: client.settings)
    task = TaskIdentity("dag", "run", "train", 1, "attempt")
    record = RunRecord(client, "0", "train", task, SourceTags("src", commit="abc"), parameters={"alpha": "1"})
    made = record.open()
    record.close(Outcome("FINISHED", metrics={"loss": 0.5}))
    arguments = argparse.Namespace(dag_id="dag", run_id="run", check=True)
    assert tree.run(arguments) == 1
    assert f"train ({made.run_id}) lacks: artifacts." in capsys.readouterr().out
    arguments.check = False
    assert tree.run(arguments) == 0
    assert "lacks" not in capsys.readouterr().out


def test_logged_models_stand_beside_the_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = connected(monkeypatch)
    monkeypatch.setattr("mlflow_projects.cli.airflow_side.tracking_settings", lambda: client.settings)
    task = TaskIdentity("dag", "run", "train", 1, "attempt")
    record = RunRecord(client, "0", "train", task, SourceTags("src"), parameters={"rows": "50", "noise": "0.1"})
    made = record.open()
    client.log_model(made)
    client.log_text(made.run_id, "x", "a/file.txt")
    record.close(Outcome("FINISHED", metrics={"loss": 0.00994}))
    assert tree.run(argparse.Namespace(dag_id="dag", run_id="run", check=False)) == 0
    shown = [line.split("│")[6].strip() for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert shown[0] == "model (model)"
    assert "a/file.txt (1 B)" in shown
