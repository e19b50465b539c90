"""The DAG of docs/functions.md runs as it stands there, and each macro that the page names is one."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from mlflow_projects.plugin import MLflowProjectsPlugin
from tests.conftest import HOME, ROOT
from tests.support.dagruns import mlflow_runs, run_dag, write_page

PAGE = (ROOT / "docs" / "functions.md").read_text(encoding="utf-8")
FILES = dict(
    re.findall(r"^```(?:python|yaml)\n# ((?:dags|projects)/\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
)


@pytest.fixture(scope="module")
def written() -> Path:
    folder = HOME / "dags" / "functions"
    write_page(folder, FILES)
    return folder


@pytest.mark.usefixtures("airflow_db", "written")
@pytest.mark.parametrize(("limit", "chosen", "left"), [(0.5, "promote", "stop"), (0.9, "stop", "promote")])
def test_the_dag_of_the_page(
    tracking_uri: str, limit: float, chosen: str, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    result = run_dag("functions_page", {"limit": limit})
    assert result.state == "success", result.log
    states = {name.rpartition(".")[2]: task.state for name, task in result.tasks.items()}
    assert (states[chosen], states[left]) == ("success", "skipped")
    runs = {run.info.run_name: run for run in mlflow_runs(tracking_uri, "functions_page", result.run_id)}
    parent = runs["pipeline"]
    assert parent.data.metrics == {"from_bash": 1}
    assert parent.data.tags["good"] == str(chosen == "promote")
    assert runs["evaluate"].data.metrics["margin"] == pytest.approx(0.75 - limit)
    assert runs["evaluate"].data.params == {"accuracy": "0.75", "limit": str(limit)}
    assert runs["evaluate"].data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert ("promote" in runs) == (chosen == "promote")


def test_every_macro_of_the_page_is_one_of_the_plugins() -> None:
    named = set(re.findall(r"macros\.mlflow_projects\.(\w+)", PAGE))
    assert named == {"mlflow_run_url", "mlflow_reason", "mlflow_tree"}
    assert named < {macro.__name__ for macro in MLflowProjectsPlugin.macros}
