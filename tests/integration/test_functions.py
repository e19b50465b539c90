"""A function is an attempt: what it logs goes to its run, and the run ends as the function does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.dagruns import mlflow_runs, run_dag
from tests.support.measured import SOON, was_measured

pytestmark = pytest.mark.usefixtures("airflow_db", "tracking_uri")


_once: dict[str, Any] = {}


@pytest.fixture
def result(tracking_uri: str) -> Any:
    """Run the DAG for the first test that wants it."""
    return _once.setdefault("result", _once.get("result") or run_dag("functions"))


def runs_by_task(tracking_uri: str, dag_id: str, run_id: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for run in mlflow_runs(tracking_uri, dag_id, run_id):
        found.setdefault(run.data.tags["airflow.task_id"], []).append(run)
    return found


def test_fluent_calls_reach_the_functions_own_run(tracking_uri: str, result: Any) -> None:
    assert result.state == "success"
    tasks = runs_by_task(tracking_uri, "functions", result.run_id)
    own = next(run for run in tasks["parent.measure"] if run.info.run_name == "measure")
    inner = next(run for run in tasks["parent.measure"] if run.info.run_name == "inner")
    (parent,) = tasks["parent.start_run"]
    assert own.info.run_id == result.tasks["parent.measure"].xcom["run"]
    assert {run.info.status for runs in tasks.values() for run in runs} == {"FINISHED"}
    assert own.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert inner.data.tags["mlflow.parentRunId"] == own.info.run_id
    assert own.data.metrics == {"rate": 0.25}
    # What the function logs itself stays; lists are no parameters.
    assert own.data.params == {"rate": "0.25", "name": "mine", "deep": "True"}
    assert own.data.tags["own"] == "yes"
    assert own.data.tags["mlflow.source.name"].endswith("tests/functions.py")
    assert result.tasks["parent.measure"].link.endswith(own.info.run_id)


def test_several_tasks_may_log_to_the_parent_which_stays_open(tracking_uri: str, result: Any) -> None:
    tasks = runs_by_task(tracking_uri, "functions", result.run_id)
    (parent,) = tasks["parent.start_run"]
    assert parent.data.metrics == {"a": 1, "b": 1}
    assert "name" not in parent.data.params
    assert not {"parent.one", "parent.two"} & tasks.keys()


def test_nothing_of_a_run_is_left_in_the_process(result: Any, tracking_uri: str) -> None:
    assert result.tasks["parent.environment_of_next"].xcom == {
        "variables": [], "active": False, "uri": tracking_uri,
    }  # fmt: skip


def test_a_run_that_another_task_left_open_gets_nothing(tracking_uri: str) -> None:
    from mlflow import MlflowClient

    result = run_dag("function_after_open_run")
    left = result.tasks["leave_open"].xcom
    own = next(run for run in mlflow_runs(tracking_uri, result.dag_id, result.run_id) if run.data.metrics)
    assert own.data.metrics == {"own": 1}
    assert result.tasks["measure_after"].xcom == own.info.run_id
    assert result.tasks["end_it"].xcom == left != own.info.run_id
    assert MlflowClient(tracking_uri).get_run(left).data.metrics == {}


def test_mapped_functions_and_mapped_groups(tracking_uri: str, result: Any) -> None:
    tasks = runs_by_task(tracking_uri, "functions", result.run_id)
    plain = {run.info.run_name: run.data.params for run in tasks["parent.plain"]}
    assert plain == {"plain[0]": {"number": "1"}, "plain[1]": {"number": "2"}}
    assert [result.tasks[f"parent.plain[{index}]"].xcom for index in (0, 1)] == [2, 3]
    parents = {run.data.tags["airflow.map_index"]: run.info.run_id for run in tasks["group.inner.start_run"]}
    below = {run.data.tags["airflow.map_index"]: run.data.tags for run in tasks["group.inner.plain"]}
    assert {index: tags["mlflow.parentRunId"] for index, tags in below.items()} == parents


def test_later_steps_take_its_artifacts_and_what_it_returns(tracking_uri: str, result: Any) -> None:
    tasks = runs_by_task(tracking_uri, "functions", result.run_id)
    own = next(run for run in tasks["parent.measure"] if run.info.run_name == "measure")
    (reads,) = tasks["parent.reads"]
    assert reads.data.params["file"] == f"{own.info.artifact_uri}/file.txt"
    assert reads.data.params["text"] == f"{own.info.artifact_uri}/x"
    assert reads.data.params["value"] == "[1, 2]"


@pytest.mark.parametrize(
    ("how", "state", "status", "reason"),
    [
        ("end", "success", "FINISHED", None),
        ("fail", "failed", "FAILED", "ValueError: no such luck"),
        ("fail for good", "failed", "FAILED", "AirflowFailException: never again"),
        ("skip", "skipped", "FINISHED", "skipped: nothing new"),
        ("exit", "failed", "FAILED", "SystemExit: 3"),
        ("finished by itself", "success", "FINISHED", None),
    ],
)
def test_the_run_ends_as_the_function_does(
    tracking_uri: str, how: str, state: str, status: str, reason: str | None
) -> None:
    result = run_dag("function_ends", {"how": how})
    (run,) = runs_by_task(tracking_uri, "function_ends", result.run_id)["parent.step"]
    assert result.tasks["parent.step"].state == state
    assert (run.info.status, run.data.tags.get("mlflow_projects.reason")) == (status, reason)
    assert run.data.params == {"how": how}
    assert run.data.metrics == {"begun": 1}
    if status == "FAILED":
        assert run.data.tags["mlflow_projects.output_tail"].splitlines()[0] == "Traceback (most recent call last):"


def test_a_value_that_no_xcom_holds_fails_the_run_as_it_fails_the_task(tracking_uri: str) -> None:
    result = run_dag("function_ends", {"how": "return what no XCom holds"})
    (run,) = runs_by_task(tracking_uri, "function_ends", result.run_id)["parent.step"]
    assert (result.tasks["parent.step"].state, run.info.status) == ("failed", "FAILED")
    assert run.data.tags["mlflow_projects.reason"].startswith("the task failed after its end: TypeError: ")
    assert run.data.tags["mlflow_projects.cause"] == "user_error"


@pytest.mark.parametrize("how", ["fail", "finished by itself"])
def test_a_run_of_others_is_left_open_however_the_function_ends(tracking_uri: str, how: str) -> None:
    result = run_dag("function_ends", {"how": how, "log_to": "parent"})
    tasks = runs_by_task(tracking_uri, "function_ends", result.run_id)
    (parent,) = tasks["parent.start_run"]
    assert parent.data.metrics == {"begun": 1}
    assert parent.info.status == {"fail": "FAILED"}.get(how, "FINISHED")
    assert "parent.step" not in tasks
    reason = {"fail": "parent.step failed"}.get(how)
    assert parent.data.tags.get("mlflow_projects.reason") == reason


def test_a_run_to_log_to_that_is_not_there_is_one_sentence(tracking_uri: str) -> None:
    result = run_dag("function_ends", {"log_to": "0" * 32})
    assert result.tasks["parent.step"].state == "failed"
    assert f"There is no run '{'0' * 32}'" in result.log


def test_mlflow_measures_the_machine_of_functions_and_projects(
    tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SOON.items():
        monkeypatch.setenv(name, value)
    result = run_dag("function_measures")
    assert result.state == "success"
    for runs in runs_by_task(tracking_uri, "function_measures", result.run_id).values():
        assert all(map(was_measured, runs))


def test_a_commands_whole_output_is_an_artifact_of_its_run(tracking_uri: str) -> None:
    from mlflow import MlflowClient

    result = run_dag("kept_output")
    (run,) = mlflow_runs(tracking_uri, "kept_output", result.run_id)
    assert run.info.status == "FINISHED"
    file = MlflowClient(tracking_uri).download_artifacts(run.info.run_id, "airflow/attempt_1.log")
    assert Path(file).read_text().splitlines()[-2:] == ["one", "two"]
