"""What the pages show of a tracking server: bounded, and of the asked DAG run only."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest

from mlflow_projects.tracking.client import Run
from mlflow_projects.tracking.record import now, resolve_experiment
from mlflow_projects.ui import reading
from mlflow_projects.ui.sources import DagRunRecord, PageProblem
from tests.support.memory_tracking import MemoryClient


@pytest.fixture
def client() -> MemoryClient:
    client = MemoryClient()
    client.settings = replace(client.settings, ui_url="https://mlflow.example.com")
    return client


MOMENTS = itertools.count(now())  # no two runs start in one millisecond


def dag_run(run_id: str, start: int | None = None) -> DagRunRecord:
    return DagRunRecord(run_id, "success", start or now())


def made(client: MemoryClient, dag_id: str, run_id: str, task: str, **tags: str) -> Run:
    identity = {"airflow.dag_id": dag_id, "airflow.run_id": run_id, "airflow.task_id": task}
    more = {"airflow.map_index": "-1", "airflow.try_number": "1", "mlflow_projects.role": "step"}
    experiment = resolve_experiment(client, "pages")
    return client.create_run(experiment, task, next(MOMENTS), {**identity, **more, **tags})


def test_a_running_step_shows_its_parameters_and_a_failed_one_why(client: MemoryClient) -> None:
    parameters = json.dumps({"lr": "1e-5"})
    running = made(client, "tree", "r1", "a", **{"mlflow_projects.parameters": parameters})
    ending = {"mlflow_projects.reason": "why", "mlflow_projects.output_tail": "end"}
    failed = made(client, "tree", "r1", "b", **ending)
    client.log_batch(failed.run_id, metrics={"acc": 0.5})
    client.log_metric(failed.run_id, "loss", float("nan"))
    client.update_run(failed.run_id, "FAILED", now())
    shown = {run["name"]: run for run in reading.tree(client, "tree", dag_run("r1"))["runs"]}
    assert json.dumps(shown, allow_nan=False)
    assert shown["a"]["params"] == [("lr", "1e-5")]
    page = f"https://mlflow.example.com/#/experiments/{running.experiment_id}/runs/{running.run_id}"
    assert shown["a"]["url"] == page
    assert (shown["b"]["reason"], shown["b"]["output"]) == ("why", "end")
    assert shown["b"]["metrics"] == [("acc", 0.5), ("loss", "nan")]


def test_details_are_given_only_to_the_dag_run_that_owns_the_run(client: MemoryClient) -> None:
    step = made(client, "mine", "r1", "a")
    nested = client.create_run(step.experiment_id, "nested", now(), {"mlflow.parentRunId": step.run_id})
    orphan = client.create_run(step.experiment_id, "orphan", now(), {})
    for run in (step, nested):
        assert reading.details(client, "mine", "r1", run.run_id)["files"] == []
    for dag_id, run_id, asked in (
        ("theirs", "r1", step), ("mine", "r2", step), ("theirs", "r1", nested), ("mine", "r1", orphan),
    ):  # fmt: skip
        with pytest.raises(PageProblem, match="no such MLflow run"):
            reading.details(client, dag_id, run_id, asked.run_id)
    with pytest.raises(PageProblem, match="no such MLflow run"):
        reading.details(client, "mine", "r1", "0" * 32)


def test_every_list_has_an_end_and_says_so(client: MemoryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(client, "bounds", "r1", "a")
    client.log_batch(run.run_id, params={f"p{n:03}": "x" * 900 for n in range(60)})
    client.log_batch(run.run_id, metrics={f"m{n:03}": n for n in range(60)})
    for step in range(30):
        client.log_metric(run.run_id, "m000", step, step=step)
    for n in range(3):
        client.log_text(run.run_id, "x", f"{n}.txt")
    for name, value in {"MAX_FILES": 2, "MAX_POINTS": 25, "PLOTTED_POINTS": 10}.items():
        monkeypatch.setattr(reading, name, value)
    [shown] = reading.tree(client, "bounds", dag_run("r1"))["runs"]
    assert (len(shown["params"]), shown["more_params"], len(shown["params"][0][1])) == (50, 10, 500)
    assert (len(shown["metrics"]), shown["more_metrics"]) == (50, 10)
    details = reading.details(client, "bounds", "r1", run.run_id)
    assert [file["path"] for file in details["files"]] == ["0.txt", "1.txt"]
    assert len(details["histories"]) == reading.MAX_HISTORIES
    assert len(details["histories"]["m000"]) <= 11
    assert details["notes"] == [
        "Only 2 files are listed.", "m000: the plot holds the first 25 values.", "Plots of 12 of 60 metrics.",
    ]  # fmt: skip
    monkeypatch.setattr(reading, "MAX_RUNS", 1)
    made(client, "bounds", "r1", "b")
    assert reading.tree(client, "bounds", dag_run("r1"))["notes"] == ["Only 1 runs are shown."]


def test_the_newest_try_of_each_task_is_compared(client: MemoryClient) -> None:
    first = now()
    for run_id, values in {"n1": [0.9], "n2": [0.1, 0.8]}.items():
        for value in values:
            run = made(client, "nightly", run_id, "train", **{"airflow.map_index": "2"})
            client.log_batch(run.run_id, metrics={"acc": value})
            client.update_run(run.run_id, "FINISHED", now() + 1)
    made(client, "nightly", "n0", "train")
    made(client, "weekly", "n1", "train")
    shown = reading.comparison(client, "nightly", [dag_run("n2"), dag_run("n1", first)])
    assert shown["series"] == ["train[2] · acc", "train[2] · duration (s)"]
    assert [(run["run_id"], run["values"]["train[2] · acc"]) for run in shown["dag_runs"]] == [
        ("n1", 0.9),
        ("n2", 0.8),
    ]
    assert reading.comparison(client, "nightly", []) == {"series": [], "dag_runs": [], "notes": []}
