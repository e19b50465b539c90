"""The table of ``mlflow-projects tree``."""

from __future__ import annotations

from mlflow_projects.cli.tree import _shown_files
from mlflow_projects.tracking.client import Artifact


def test_a_run_with_many_files_takes_a_few_lines() -> None:
    pictures = [Artifact(f"data/train/3/{number}.png", is_dir=False, size=7) for number in range(50)]
    shown = _shown_files([*pictures, Artifact("data/classes.json", is_dir=False, size=90)])
    assert shown[:2] == ["data/classes.json (90 B)", "data/train/3/0.png (7 B)"]
    assert len(shown) == 9
    assert shown[-1] == "… and more"
    assert _shown_files(pictures[:8]) == [f"data/train/3/{number}.png (7 B)" for number in range(8)]
