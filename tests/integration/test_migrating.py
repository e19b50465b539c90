"""The DAGs of docs/migrating.md run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mlflow_projects.cli.check_rules import lint_project
from tests.conftest import HOME, ROOT
from tests.support.dagruns import DagRunResult, run_dag, write_page

FILES = dict(
    re.findall(
        r"^```(?:python|yaml)\n# ((?:dags|projects)/\S+)\n(.*?)^```$",
        (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
)

pytestmark = pytest.mark.usefixtures("airflow_db", "written")


@pytest.fixture(scope="module")
def written() -> Path:
    """Write every file of the page, beside the sample projects; the DAGs inside the DAGs folder."""
    folder = HOME / "dags" / "migrating"
    write_page(folder, FILES)
    for sample in ("echo", "zip"):
        (folder / "projects" / sample).symlink_to(ROOT / "sample_projects" / sample)
    return folder


def states(result: DagRunResult) -> dict[str, str]:
    return {task: instance.state for task, instance in result.tasks.items()}


def test_the_page_holds_three_dags() -> None:
    assert [name for name in FILES if name.startswith("dags/")] == [
        "dags/nightly_echo.py", "dags/two_steps.py", "dags/line.py",
    ]  # fmt: skip


def test_after_bash_operator(tracking_uri: str) -> None:
    hostile = "it's; echo $HOME"
    result = run_dag("nightly_echo", {"text": hostile, "num": 3})
    assert states(result) == {"echo": "success"}, result.log
    run = result.runs(tracking_uri)["echo"]
    assert run.data.params == {"text": hostile, "num": "3"}
    assert run.data.metrics["lines"] == 3


def test_after_main_py(tracking_uri: str) -> None:
    result = run_dag("two_steps")
    assert result.state == "success", result.log
    runs = result.runs(tracking_uri)
    assert set(runs) == {"pipeline", "echo", "zip"}
    parents = {runs[name].data.tags["mlflow.parentRunId"] for name in ("echo", "zip")}
    assert parents == {runs["pipeline"].info.run_id}
    assert runs["zip"].data.params["upstream"] == f"{runs['echo'].info.artifact_uri}/downstream"
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


def test_after_the_astronomer_provider(tracking_uri: str, written: Path) -> None:
    from mlflow import MlflowClient

    assert lint_project(written / "projects" / "line").findings == []
    result = run_dag("line")
    assert result.state == "success", result.log
    runs = result.runs(tracking_uri)
    client = MlflowClient(tracking_uri=tracking_uri)
    champion = client.get_model_version_by_alias("line", "champion")
    assert champion.run_id == runs["train"].info.run_id
    predictions = client.get_metric_history(runs["predict"].info.run_id, "prediction")
    assert [point.value for point in sorted(predictions, key=lambda point: point.step)] == [0.0, 2.0, 4.0]
