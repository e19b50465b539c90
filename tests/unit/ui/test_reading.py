"""What the pages show of a tracking server: bounded, and of the asked DAG run only."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest

from mlflow_projects.exceptions import TrackingUnavailableError
from mlflow_projects.tracking.client import Run, now
from mlflow_projects.tracking.record import resolve_experiment
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
    ending["mlflow_projects.cause"] = "killed_by_memory"
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


def test_a_long_text_is_cut_before_it_is_read(client: MemoryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    public_text = reading.public_text
    monkeypatch.setattr(reading, "public_text", lambda text: read.append(len(text)) or public_text(text))
    long, half = "x" * 10**6, f"{'x' * 7990} https://user:{'p' * 50}@host/x"
    tags = {"mlflow_projects.reason": half, "mlflow_projects.output_tail": long}
    parameters = json.dumps({"a": long})
    tags |= {"airflow.dag_id": "d", "airflow.run_id": "r", "mlflow_projects.parameters": parameters}
    client.search_runs = lambda *_, **__: [Run("i", "0", "n", "FAILED", "", tags=tags)]  # type: ignore[method-assign]
    (shown,) = reading.tree(client, "d", dag_run("r"))["runs"]
    assert shown["reason"] == f"{'x' * 7990} https://h"
    assert (len(shown["output"]), shown["params"]) == (8000, [("a", "x" * 500)])
    assert sorted(read) == [5000, len(half), 80_000]


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


def test_everything_of_a_run_is_shown_as_it_is(client: MemoryClient) -> None:
    original = made(client, "full", "r0", "a")
    top = made(client, "full", "r1", "start", **{"mlflow_projects.role": "parent", "mlflow_projects.reason": "old"})
    step = made(client, "full", "r1", "train", **{
        "airflow.map_index": "2", "airflow.try_number": "3", "mlflow.parentRunId": top.run_id,
        "mlflow_projects.reused_from": original.run_id, "mlflow_projects.parameters": '{"announced": 1}',
    })  # fmt: skip
    client.log_batch(step.run_id, params={"b": "2", "a": "1"})
    for key in ("system/cpu", "loss", "duration (s)", "acc"):
        client.log_metric(step.run_id, key, 1.0)
    client.update_run(step.run_id, "KILLED", 99)
    nested = client.create_run(step.experiment_id, "nested", next(MOMENTS), {"mlflow.parentRunId": step.run_id})
    page = f"https://mlflow.example.com/#/experiments/{step.experiment_id}/runs"
    plain = {
        "status": "RUNNING", "parent": False, "task": "", "attempt": "", "end": None, "reason": "", "cause": "",
        "output": "", "reused": "", "original_url": "",
        "params": [], "metrics": [], "more_params": 0, "more_metrics": 0,
    }  # fmt: skip
    assert reading.tree(client, "full", dag_run("r1")) == {
        "runs": [
            {
                **plain, "depth": 0, "id": top.run_id, "name": "start", "parent": True, "task": "start",
                "start": top.start_time, "url": f"{page}/{top.run_id}",
            },
            {
                **plain, "depth": 1, "id": step.run_id, "name": "train", "status": "KILLED", "task": "train[2]",
                "attempt": "3", "start": step.start_time, "end": 99, "url": f"{page}/{step.run_id}",
                "reused": original.run_id, "original_url": f"{page}/{original.run_id}",
                "params": [("a", "1"), ("b", "2")],
                "metrics": [("acc", 1.0), ("loss", 1.0), ("duration (s)", 1.0), ("system/cpu", 1.0)],
            },
            {
                **plain, "depth": 2, "id": nested.run_id, "name": "nested", "start": nested.start_time,
                "url": f"{page}/{nested.run_id}",
            },
        ],
        "notes": [],
    }  # fmt: skip
    assert "list_artifacts" not in client.calls


@pytest.mark.parametrize(("announced", "shown"), [
    ('{"n": 1, "t": "x"}', [("n", "1"), ("t", "x")]), ("[1]", []), ("no JSON", []), ("", []),
])  # fmt: skip
def test_parameters_that_are_only_announced_are_shown(client: MemoryClient, announced: str, shown: Any) -> None:
    made(client, "tree", "r1", "a", **{"mlflow_projects.parameters": announced})
    [run] = reading.tree(client, "tree", dag_run("r1"))["runs"]
    assert run["params"] == shown


@pytest.mark.parametrize("status", ["RUNNING", "FINISHED", "FAILED", "KILLED"])
def test_only_a_run_that_did_not_end_well_has_a_reason(client: MemoryClient, status: Any) -> None:
    ending = {"mlflow_projects.reason": "why", "mlflow_projects.output_tail": "end"}
    ending["mlflow_projects.cause"] = "killed_by_memory"
    client.update_run(made(client, "tree", "r1", "a", **ending).run_id, status)
    [run] = reading.tree(client, "tree", dag_run("r1"))["runs"]
    shown = ("why", "killed by memory", "end") if status in ("FAILED", "KILLED") else ("", "", "")
    assert (run["reason"], run["cause"], run["output"]) == shown


def test_files_and_plots_of_a_reused_result_are_those_of_its_original(client: MemoryClient) -> None:
    original = made(client, "reuse", "r0", "a", **{"mlflow_projects.reuse.k": "complete"})
    client.log_text(original.run_id, "four", "model/a.txt")
    for step, value in enumerate((0.5, float("nan"), float("inf"), 0.25)):
        client.log_metric(original.run_id, "loss", value, step=step, timestamp=1000 + step)
    proof = {"mlflow_projects.reuse.k": "reused", "mlflow_projects.reused_from": original.run_id}
    reused = made(client, "reuse", "r1", "a", **proof)
    client.log_metric(reused.run_id, "loss", 0.25)
    finite = [(0, 0.5, 1000), (2, 1.7976931348623157e308, 1002), (3, 0.25, 1003)]
    assert reading.details(client, "reuse", "r1", reused.run_id) == {
        "files": [{"path": "model/a.txt", "size": 4}],
        "histories": {"loss": finite},
        "notes": [],
    }


def test_a_plot_of_many_values_keeps_its_ends(client: MemoryClient) -> None:
    run = made(client, "many", "r1", "a")
    for step in range(401):
        client.log_metric(run.run_id, "loss", step, step=step, timestamp=step)
    for step in range(200):
        client.log_metric(run.run_id, "short", step, step=step, timestamp=step)
    histories = reading.details(client, "many", "r1", run.run_id)["histories"]
    assert histories["loss"] == [(step, step, step) for step in (*range(0, 400, 3), 400)]
    assert len(histories["short"]) == 200


def test_a_slow_server_gets_no_more_questions(client: MemoryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(client, "slow", "r1", "a")
    client.log_metric(run.run_id, "loss", 1.0)
    monkeypatch.setattr(reading, "_SECONDS", -1.0)
    client.calls.clear()
    assert reading.details(client, "slow", "r1", run.run_id) == {
        "files": [],
        "histories": {},
        "notes": ["The tracking server is slow; some plots are missing."],
    }
    assert "metric_history" not in client.calls


def test_a_run_far_below_a_step_is_not_looked_for_for_ever(client: MemoryClient) -> None:
    run = made(client, "deep", "r1", "a")
    chain = [run]
    for number in range(11):
        tags = {"mlflow.parentRunId": chain[-1].run_id}
        chain.append(client.create_run(run.experiment_id, str(number), next(MOMENTS), tags))
    assert reading.details(client, "deep", "r1", chain[9].run_id)["files"] == []
    with pytest.raises(PageProblem) as caught:
        reading.details(client, "deep", "r1", chain[10].run_id)
    assert (str(caught.value), caught.value.status) == ("This DAG run has no such MLflow run.", 404)


def test_trouble_with_the_server_is_no_missing_run(client: MemoryClient) -> None:
    run = made(client, "away", "r1", "a")

    def away(method: str, _: Any) -> None:
        raise TrackingUnavailableError("away")

    client.before = away
    with pytest.raises(TrackingUnavailableError):
        reading.details(client, "away", "r1", run.run_id)


def test_dag_runs_are_compared_by_the_clock_of_airflow_which_may_differ(client: MemoryClient) -> None:
    due = next(MOMENTS) + 10_000_000
    for run_id, start in (("near", due - 3_600_000), ("far", due - 3_600_001)):
        tags = {"airflow.dag_id": "clocks", "airflow.run_id": run_id, "airflow.task_id": "a"}
        run = client.create_run("0", "a", start, tags)
        client.log_metric(run.run_id, "acc", float("inf") if run_id == "near" else 1.0)
        client.update_run(run.run_id, "FINISHED", start + 1500)
    shown = reading.comparison(
        client, "clocks", [DagRunRecord("near", "success", due + 5), DagRunRecord("far", "failed", due)]
    )
    assert shown == {
        "series": ["a · acc", "a · duration (s)"],
        "dag_runs": [
            {"run_id": "far", "state": "failed", "due": due, "values": {}},
            {
                "run_id": "near", "state": "success", "due": due + 5,
                "values": {"a · acc": 1.7976931348623157e308, "a · duration (s)": 1.5},
            },
        ],
        "notes": [],
    }  # fmt: skip


def test_what_was_measured_of_a_project_comes_after_what_it_measured(client: MemoryClient) -> None:
    top = made(client, "order", "r1", "start", **{"mlflow_projects.role": "parent"})
    run = made(client, "order", "r1", "a")
    for name in ("sagemaker/seconds", "zeta", "duration (s)", "system/cpu", "alpha"):
        client.log_metric(run.run_id, name, 1.0)
    client.log_metric(top.run_id, "cost", float("nan"))
    shown = reading.comparison(client, "order", [dag_run("r1", 0)])
    assert shown["series"] == [
        "a · alpha", "a · zeta", "start · cost", "a · duration (s)", "a · sagemaker/seconds", "a · system/cpu",
    ]  # fmt: skip
    assert shown["dag_runs"][0]["values"]["start · cost"] == "nan"


def test_a_comparison_has_an_end_and_says_so(client: MemoryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAX_SERIES", "MAX_COMPARED_RUNS"):
        monkeypatch.setattr(reading, name, 2)
    for number in range(3):
        run = made(client, "end", "r1", f"t{number}")
        client.log_batch(run.run_id, metrics={"a": 1.0, "b": 2.0})
    shown = reading.comparison(client, "end", [dag_run("r1", 0)])
    assert shown["series"] == ["t1 · a", "t1 · b"]
    assert shown["notes"] == ["Only the newest 2 MLflow runs are compared.", "2 of 4 metrics can be chosen."]
    monkeypatch.setattr(reading, "MAX_SERIES", 4)
    monkeypatch.setattr(reading, "MAX_COMPARED_RUNS", 4)
    assert reading.comparison(client, "end", [dag_run("r1", 0)])["notes"] == ["4 of 6 metrics can be chosen."]


def test_exactly_as_many_as_are_shown_need_no_note(client: MemoryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(client, "exact", "r1", "a")
    client.log_batch(
        run.run_id, metrics={f"m{n:02}": n for n in range(12)}, params={f"p{n:02}": "" for n in range(50)}
    )
    for n in range(50):
        client.log_text(run.run_id, "x", f"{n:02}.txt")
    details = reading.details(client, "exact", "r1", run.run_id)
    assert (len(details["files"]), len(details["histories"]), details["notes"]) == (50, 12, [])
    [shown] = reading.tree(client, "exact", dag_run("r1"))["runs"]
    assert (len(shown["params"]), shown["more_params"], shown["more_metrics"]) == (50, 0, 0)
    for n in range(30):
        client.log_text(run.run_id, "x", f"folder {n:02}/f")
    monkeypatch.setattr(reading, "MAX_FOLDERS", 2)
    monkeypatch.setattr(reading, "MAX_FILES", 51)
    assert len(reading.details(client, "exact", "r1", run.run_id)["files"]) == 51
