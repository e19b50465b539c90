"""A project with a conda.yaml in a DAG: from the file to a finished run, without conda and without a network."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.support.conda_channel import MINOR, make_channel
from tests.support.dagruns import run_dag

pytestmark = pytest.mark.usefixtures("airflow_db", "tracking_uri")


def test_a_conda_project_ends_as_its_command_in_its_environment(
    tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = make_channel(tmp_path / "conda")
    project = tmp_path / "project"
    project.mkdir()
    (project / "MLproject").write_text(
        "name: forest\nconda_env: conda.yaml\nentry_points:\n  main:\n    parameters: {given: {default: 1.0}}\n"
        "    command: python main.py {given}\n"
    )
    (project / "main.py").write_text(
        "import os, sys, tiny\nprint('tiny', tiny.ANSWER, sys.prefix == os.environ['CONDA_PREFIX'])\n"
        "sys.exit(0 if sys.argv[1] in tiny.ANSWER else 3)\n"
    )
    content = {"channels": ["chan"], "dependencies": [f"python={MINOR}", "tiny=1.0"]}
    (project / "conda.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setenv("AIRFLOW__MLFLOW_PROJECTS__CONDA_CHANNELS", f"chan={channel.address}")
    monkeypatch.setenv("AIRFLOW__MLFLOW_PROJECTS__CACHE_DIR", str(tmp_path / "cache"))
    result = run_dag("one_step", {"uri": str(project), "parameters": {}})
    step = result.runs(tracking_uri)["step"]
    assert step.info.status == "FINISHED"
    assert step.data.tags["mlflow.project.env"] == "conda"
    assert "tiny 1.0=0 True" in result.log
    content["dependencies"] = [f"python={MINOR}", "tiny>=3"]
    (project / "conda.yaml").write_text(yaml.safe_dump(content))
    result = run_dag("one_step", {"uri": str(project), "parameters": {}})
    step = result.runs(tracking_uri)["step"]
    assert (result.state, step.info.status) == ("failed", "FAILED")
    assert "no packages fit together" in step.data.tags["mlflow_projects.reason"]
    assert result.tasks["parent.step"].try_number == 1, "another try would change nothing"
