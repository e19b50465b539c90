"""The project and the DAG of docs/first_dag.md (the DAG is README's too) run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mlflow_projects.cli.check_rules import lint_project
from tests.conftest import HOME, ROOT
from tests.support.dagruns import run_dag, write_page

PAGE = (ROOT / "docs" / "first_dag.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`((?:dags|sample_projects)/\S+)`:\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))

pytestmark = pytest.mark.usefixtures("airflow_db", "written")


@pytest.fixture(scope="module")
def written() -> Path:
    """Write every file of the page; the DAG inside the DAGs folder."""
    folder = HOME / "dags" / "first_dag"
    write_page(folder, FILES)
    return folder


def test_the_page_holds_a_project_and_a_dag(written: Path) -> None:
    project = "sample_projects/churn"
    assert [*FILES] == [
        f"{project}/MLproject",
        f"{project}/train.py",
        f"{project}/predict.py",
        "dags/nightly_churn.py",
    ]
    assert lint_project(written / project).findings == []


def test_the_dag_runs(tracking_uri: str) -> None:
    result = run_dag("nightly_churn", {"rows": 200})
    assert result.state == "success", result.log
    runs = result.runs(tracking_uri)
    assert set(runs) == {"churn", "train", "predict"}
    assert runs["train"].data.metrics["rows_seen"] == 200
    assert runs["predict"].data.metrics["first"] == 3  # the mean of 1, 2 and 6
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
