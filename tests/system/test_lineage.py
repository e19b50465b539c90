"""What a step hands on: facts in the events of its outlets, and what OpenLineage is told of it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import HOME, ROOT
from tests.support.dagruns import mlflow_runs, run_dag

needs_openlineage = pytest.mark.skipif(
    importlib.util.find_spec("airflow.providers.openlineage") is None,
    reason="needs the package apache-airflow-providers-openlineage, which requirements-dev.txt has",
)


@dataclass(frozen=True)
class Told:
    """A DAG run, told to Airflow's database, to MLflow and to OpenLineage.

    :param extras: of the events of assets, by the asset's name
    :param runs: MLflow's, by name
    :param ends: the last event of OpenLineage of each task
    """

    data: Path
    model: str
    server: str
    extras: dict[str, dict[str, Any]]
    runs: dict[str, Any]
    events: list[dict[str, Any]]

    def end(self, task: str) -> dict[str, Any]:
        (last,) = (
            event
            for event in self.events
            if event["job"]["name"] == f"lineage.{task}" and event["eventType"] in ("COMPLETE", "FAIL")
        )
        return last

    def made_by(self, task: str, *paths: str) -> set[tuple[str, str]]:
        """Return OpenLineage's names of a run's artifacts."""
        uri = self.runs[task].info.artifact_uri
        assert uri.startswith("mlflow-artifacts:/"), uri
        return {(self.server, "/".join((uri.replace(":/", "/", 1), *path.split())).strip("/")) for path in paths}


@pytest.fixture(scope="module")
def told(airflow_db: None, mlflow_server: str, tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("lineage")
    (folder / "dags").mkdir()
    (folder / "dags" / "lineage.py").symlink_to(ROOT / "tests" / "integration" / "dags" / "lineage.py")
    data = folder / "data.csv"
    data.touch()
    log = folder / "events.jsonl"
    name = f"Lineage {uuid.uuid4().hex[:8]}"
    conf = json.dumps({"data": str(data), "model": name})
    # A process of its own: listeners are loaded once.
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "dags", "test", "lineage", "-c", conf],
        env={
            **os.environ,
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
            "AIRFLOW__MLFLOW_PROJECTS__CACHE_DIR": str(folder / "cache"),
            "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(
                {"type": "file", "log_file_path": str(log), "append": True}
            ),
            "AIRFLOW__OPENLINEAGE__NAMESPACE": "team",
            "AIRFLOW__OPENLINEAGE__EXECUTION_TIMEOUT": "60",
            "MLFLOW_TRACKING_URI": mlflow_server,
        },
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    sys.stdout.write(f"{done.stdout[-20_000:]}{done.stderr[-5_000:]}")  # if a test fails
    run_id, extras = last_run("lineage")
    runs = mlflow_runs(mlflow_server, "lineage", run_id)
    events = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    server = mlflow_server.replace("http://", "mlflow://")
    return Told(data, name, server, extras, {run.info.run_name: run for run in runs}, events)


def last_run(dag_id: str) -> tuple[str, dict[str, dict[str, Any]]]:
    from airflow.models.asset import AssetEvent
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        newest = select(DagRun).where(DagRun.dag_id == dag_id).order_by(DagRun.id.desc())
        run = session.scalars(newest).first()
        assert run is not None
        query = select(AssetEvent).where(AssetEvent.source_dag_id == dag_id)
        found = session.scalars(query.where(AssetEvent.source_run_id == run.run_id)).all()
        return run.run_id, {event.asset.name: dict(event.extra) for event in found}


def test_an_event_of_an_outlet_has_the_facts_of_the_run(told: Told) -> None:
    run = told.runs["make"]
    (model,) = told.extras["made"]["models"].values()
    assert told.extras["made"] == {
        "run_id": run.info.run_id,
        "experiment_id": run.info.experiment_id,
        "artifact_uri": run.info.artifact_uri,
        "run_name": "make",
        "metrics": {"loss": 0.5, "odd": None},
        "models": {"model": model},
        "model_versions": [{"name": told.model, "version": 1, "uri": f"models:/{told.model}/1"}],
        "mlflow_conn_id": "mlflow_default",
    }
    assert told.extras["mlflow://models/Lineage"] == told.extras["s3://lake/made"] == told.extras["made"]
    assert (
        told.extras["scored"].items()
        >= {"run_id": told.runs["score"].info.run_id, "metrics": {"ratio": 0.25}}.items()
    )


def test_a_reused_result_has_the_facts_of_the_original(told: Told) -> None:
    once, again = told.extras["once"], told.extras["again"]
    assert again == {**once, "linked_run_id": told.runs["again"].info.run_id}


def test_who_failed_or_skipped_makes_no_event_and_a_run_of_others_gives_no_facts(told: Told) -> None:
    assert told.runs["fails"].info.status == "FAILED"
    assert told.runs["skips"].data.tags["mlflow_projects.reason"]
    assert not {"fails", "skips"} & told.extras.keys()
    assert told.extras["into_parent"] == {}


def names(datasets: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(one["namespace"], one["name"]) for one in datasets}


@needs_openlineage
def test_a_step_tells_what_it_read(told: Told) -> None:
    event = told.end("parent.make")
    assert names(event["inputs"]) == {
        ("s3://lake", "by/hand"),
        ("file", str(told.data)),
        ("https://data.test", "wine.csv"),
        ("file", str(ROOT / "tests" / "projects" / "lineage" / "MLproject")),
        ("s3://lake", "wine/red.csv"),
        (told.server, "datasets/in memory"),
    }
    (red,) = (one["facets"] for one in event["inputs"] if one["name"] == "wine/red.csv")
    assert red["schema"]["fields"][0].items() >= {"name": "x", "type": "long"}.items()
    assert red["version"]["datasetVersion"]
    assert "'red'" in red["documentation"]["description"]


@needs_openlineage
def test_a_step_tells_what_it_made(told: Told) -> None:
    made = told.end("parent.make")["outputs"]
    (model,) = told.extras["made"]["models"].values()
    assert names(made) == {
        ("s3://lake", "made"),
        (told.server, "models/Lineage"),
        (told.server, model.replace(":", "")),
        (told.server, f"models/{told.model}"),
        *told.made_by("make", "", "made", "top.txt"),
    }
    (version,) = (one["facets"]["version"] for one in made if one["name"] == f"models/{told.model}")
    assert version["datasetVersion"] == "1"


@needs_openlineage
def test_what_one_step_made_is_what_the_next_one_read(told: Told) -> None:
    made = names(told.end("parent.make")["outputs"])
    read = names(told.end("parent.read")["inputs"])
    (model,) = told.extras["made"]["models"].values()
    assert read == {*told.made_by("make", "made"), (told.server, model.replace(":", "")), ("s3://lake", "raw")}
    assert read - made == {("s3://lake", "raw")}
    assert names(told.end("parent.score")["inputs"]) == told.made_by("make", "top.txt")
    assert names(told.end("parent.score")["outputs"]) == told.made_by("score", "", "scores.txt")
    assert names(told.end("parent.again")["outputs"]) == names(told.end("parent.once")["outputs"])
    (start,) = (e for e in told.events if e["job"]["name"] == "lineage.parent.read" and e["eventType"] == "START")
    assert names(start["inputs"]) == {("s3://lake", "raw")}


@needs_openlineage
@pytest.mark.parametrize("task", ["make", "fails", "skips", "score", "again"])
def test_a_step_tells_its_code_its_run_and_its_dag_run(told: Told, task: str) -> None:
    event, run = told.end(f"parent.{task}"), told.runs[task]
    code = event["job"]["facets"]["sourceCodeLocation"]
    assert code["url"] == run.data.tags["mlflow.source.name"]
    commit = run.data.tags.get("mlflow.source.git.commit")
    assert (commit is None) == (task == "score")  # whose code is the DAG file, here in a folder of its own
    assert (code["type"], code.get("version")) == ("git" if commit else "file", commit)
    facet = event["run"]["facets"]["mlflow_run"]
    assert facet["runId"] == run.info.run_id
    assert facet["parentRunId"] == told.runs["parent"].info.run_id
    assert facet["url"].endswith(f"/runs/{run.info.run_id}")
    assert event["run"]["facets"]["parent"]["job"].items() >= {"namespace": "team", "name": "lineage"}.items()
    assert event["eventType"] == ("FAIL" if task == "fails" else "COMPLETE")
    if task in ("fails", "skips"):
        assert event["outputs"] == []
    if task == "again":
        assert facet["reusedRunId"] == told.runs["once"].info.run_id


def test_the_dags_of_the_page_run_as_they_stand_there(
    airflow_db: None, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "lineage.md").read_text(encoding="utf-8")
    ((name, text),) = re.findall(r"^```python\n# (dags/\S+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    file = HOME / "dags" / "lineage" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    monkeypatch.setenv("PROJECTS", str(ROOT / "sample_projects"))
    made = run_dag("make_text")
    assert made.state == "success"
    _, extras = last_run("make_text")
    rows = page.partition("| key of `extra` | what |")[2].partition("\n\n")[0].splitlines()
    documented = {key for row in rows for key in re.findall(r"`(\w+)`", row[1:].partition("|")[0])}
    assert extras["text"].keys() == documented - {"linked_run_id"}
    packed = run_dag("pack_text", {"folder": f"{extras['text']['artifact_uri']}/downstream"})
    assert packed.state == "success"
