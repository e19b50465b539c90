"""One attempt, one run: how it ends in MLflow and in Airflow."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlflow_projects.backends.local.process import ProcessTree
from tests.conftest import ROOT
from tests.support.dagruns import mlflow_runs, run_dag

PROJECTS = ROOT / "tests" / "projects"
SECRET = "correct-horse-battery"

pytestmark = pytest.mark.usefixtures("airflow_db", "tracking_uri")


def shell(command: str, *, retries: int | None = None) -> Any:
    conf = {"uri": f"{PROJECTS}/shell", "parameters": {"command": command}}
    return run_dag("one_step", conf, retries=retries)


def test_failing_work_fails_the_dag_run_although_the_end_task_succeeds(tracking_uri: str) -> None:
    result = run_dag("failing_pipeline")
    runs = result.runs(tracking_uri)
    assert result.state == "failed"
    assert {name: task.state for name, task in result.tasks.items()} == {
        "parent.start_run": "success",
        "parent.bad": "failed",
        "parent.never": "upstream_failed",
        "parent.end_run": "success",
    }
    assert runs["parent"].info.status == runs["bad"].info.status == "FAILED"
    assert runs["parent"].data.tags["mlflow_projects.reason"] == "parent.bad failed; parent.never could not run"
    tags = runs["bad"].data.tags
    assert tags["mlflow_projects.output_tail"] == "the last words"
    assert tags["mlflow_projects.exit_code"] == "3"
    assert "never" not in runs


def test_a_failure_that_the_dag_tolerates_leaves_a_finished_parent(tracking_uri: str) -> None:
    result = run_dag("tolerated_failure")
    runs = result.runs(tracking_uri)
    assert result.state == "success"
    assert (runs["parent"].info.status, runs["bad"].info.status) == ("FINISHED", "FAILED")


def test_each_try_is_a_run_of_its_own(tracking_uri: str, tmp_path: Any) -> None:
    result = shell(f"test -e {tmp_path}/second || {{ touch {tmp_path}/second; exit 1; }}")
    steps = [
        run
        for run in mlflow_runs(tracking_uri, "one_step", result.run_id)
        if run.data.tags["airflow.task_id"] == "parent.step"
    ]
    assert result.state == "success"
    assert [(run.data.tags["airflow.try_number"], run.info.status) for run in steps] == [
        ("1", "FAILED"),
        ("2", "FINISHED"),
    ]
    assert result.tasks["parent.step"].xcom["run_id"] == steps[1].info.run_id
    assert steps[1].data.tags["mlflow_projects.supersedes"] == steps[0].info.run_id
    assert "mlflow_projects.supersedes" not in steps[0].data.tags


@pytest.mark.parametrize(("ends_as", "code", "verdict"), [("FINISHED", 1, "FAILED"), ("FAILED", 0, "FINISHED")])
def test_the_exit_status_decides_over_what_the_project_wrote(
    tracking_uri: str, ends_as: str, code: int, verdict: str
) -> None:
    conf = {"uri": f"{PROJECTS}/tracked", "parameters": {"ends_as": ends_as, "code": code}}
    result = run_dag("one_step", conf, retries=0)
    assert result.tasks["parent.step"].state == {"FAILED": "failed", "FINISHED": "success"}[verdict]
    assert result.runs(tracking_uri)["step"].info.status == verdict


def test_a_run_that_was_given_up_meanwhile_stays_as_it_is(tracking_uri: str) -> None:
    """As when a worker's network was cut: the next try closes the run, then the worker comes back."""
    give_up = (
        "import os, mlflow; client, run = mlflow.MlflowClient(), os.environ['MLFLOW_RUN_ID']; "
        "client.set_tag(run, 'mlflow_projects.reason', 'its worker was lost'); client.set_terminated(run, 'KILLED')"
    )
    result = shell(f'python -c "{give_up}"', retries=0)
    run = result.runs(tracking_uri)["step"]
    assert result.tasks["parent.step"].state == "failed"
    assert (run.info.status, run.data.tags["mlflow_projects.reason"]) == ("KILLED", "its worker was lost")
    assert run.data.params == {}
    assert "given up before its command ended: its worker was lost" in result.log


def test_a_parameter_that_the_project_logs_in_another_spelling_is_no_clash(tracking_uri: str) -> None:
    conf = {"uri": f"{PROJECTS}/tracked", "parameters": {"learning_rate": "1e-5", "note": "extra"}}
    result = run_dag("one_step", conf)
    run = result.runs(tracking_uri)["step"]
    assert result.state == "success"
    assert run.data.params == {
        "learning_rate": "1e-05",  # the project's own; the DAG's spelling is in the tag
        "code": "0",
        "ends_as": "FINISHED",
        "loss": "0.5",
        "note": "extra",
    }
    assert json.loads(run.data.tags["mlflow_projects.parameters"])["learning_rate"] == "1e-5"


def test_a_time_out_closes_the_run_as_killed_and_leaves_no_process(
    tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ProcessTree.lines

    def timed_out(tree: ProcessTree) -> Iterator[str]:
        for line in lines(tree):
            yield line
            signal.raise_signal(signal.SIGALRM)  # what Airflow's timer sends, once the line was read

    monkeypatch.setattr(ProcessTree, "lines", timed_out)
    result = run_dag("timed_out")
    run = result.runs(tracking_uri)["step"]
    assert result.tasks["parent.step"].state == "failed"
    assert run.info.status == "KILLED"
    assert run.data.tags["mlflow_projects.reason"] == "stopped: its execution_timeout is over"
    found = re.fullmatch(r"waiting as (\d+)", run.data.tags["mlflow_projects.output_tail"])
    assert found
    assert not psutil.pid_exists(int(found[1]))


def test_the_command_gets_its_run_and_none_of_airflows_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SOMETHING", f"http://user:{SECRET}@host")
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", SECRET)
    monkeypatch.setenv("AIRFLOW_VAR_KEY", SECRET)
    monkeypatch.setenv("MLFLOW_RUN_ID", "of somebody else")
    result = shell("env | sort")
    lines = [line for line in result.log.splitlines() if "=" in line]
    seen = {part.split("=")[0].split()[-1] for part in lines}
    assert {"MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_TRACKING_URI", "AIRFLOW_CTX_DAG_ID"} <= seen
    assert not any(name.startswith(("AIRFLOW__", "AIRFLOW_CONN", "AIRFLOW_VAR", "AIRFLOW_HOME")) for name in seen)
    assert f"MLFLOW_RUN_ID={result.tasks['parent.step'].xcom['run_id']}" in result.log
    assert SECRET not in result.log


def test_a_secret_in_the_output_is_masked_in_the_log_and_in_the_record(
    tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = {"conn_type": "mlflow", "host": tracking_uri, "login": "me", "password": SECRET}
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps(connection))
    result = shell("echo the password is $MLFLOW_TRACKING_PASSWORD of $MLFLOW_TRACKING_USERNAME; exit 1")
    assert "the password is *** of me" in result.log
    assert SECRET not in result.log
    records = mlflow_runs(tracking_uri, "one_step", result.run_id)
    assert SECRET not in str([run.to_dictionary() for run in records])
    assert records[-1].data.tags["mlflow_projects.output_tail"] == "the password is *** of me"


def test_progress_bars_and_colours_become_readable_lines() -> None:
    result = shell(r"for i in 1 2 3; do printf '\r%s%%' $i; done; printf '\ndone\n'")
    assert "3%" in result.log
    assert "done" in result.log
    assert "2%" not in result.log.replace("'%", "")


def test_mapped_steps_are_told_apart(tracking_uri: str) -> None:
    result = run_dag("mapped")
    runs = result.runs(tracking_uri)
    assert result.state == "success"
    assert sorted(runs) == ["parent", "step[0]", "step[1]", "step[2]"]
    for index in range(3):
        run = runs[f"step[{index}]"]
        assert run.data.tags["mlflow.parentRunId"] == runs["parent"].info.run_id
        assert run.data.tags["airflow.map_index"] == str(index)
        assert run.data.params == {"command": f"echo number {index}"}
        assert result.tasks[f"parent.step[{index}]"].xcom["run_id"] == run.info.run_id


def test_groups_nest(tracking_uri: str) -> None:
    result = run_dag("nested")
    runs = result.runs(tracking_uri)
    assert result.state == "success"
    parents = {name: run.data.tags.get("mlflow.parentRunId") for name, run in runs.items()}
    assert parents == {
        "outer": None,
        "first": runs["outer"].info.run_id,
        "inner": runs["outer"].info.run_id,
        "second": runs["inner"].info.run_id,
    }
    assert {run.info.experiment_id for run in runs.values()} == {runs["outer"].info.experiment_id}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


def test_start_and_end_tasks_work_without_the_group(tracking_uri: str) -> None:
    result = run_dag("by_hand")
    runs = result.runs(tracking_uri)
    assert result.state == "success"
    (step,) = (run for name, run in runs.items() if name.startswith("named 20"))
    assert step.data.tags["mlflow.parentRunId"] == runs["mine"].info.run_id
    assert step.data.tags["team"] == "blue"
    assert step.info.experiment_id == runs["mine"].info.experiment_id != "0"
    assert runs["mine"].info.status == "FINISHED"


def test_a_step_alone_takes_the_experiment_of_the_environment(
    tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    assert run_dag("alone").runs(tracking_uri)["step"].info.experiment_id == "0"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "from the environment")
    run = run_dag("alone").runs(tracking_uri)["step"]
    experiment = MlflowClient(tracking_uri).get_experiment(run.info.experiment_id)
    assert experiment.name == "from the environment"
    assert os.environ.get("MLFLOW_RUN_ID") is None


def test_a_remote_path_parameter_is_there_as_a_local_folder_while_the_command_runs(tracking_uri: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri)
    run_id = client.create_run("0").info.run_id
    client.log_text(run_id, "from upstream\n" * 2, "downstream/echo.txt")
    conf = {"uri": f"{PROJECTS}/reader", "parameters": {"data": f"runs:/{run_id}/downstream"}}
    result = run_dag("one_step", conf)
    assert result.state == "success", result.log[-3000:]
    assert result.log.count("read: from upstream") == 2
    assert result.runs(tracking_uri)["step"].data.params == {"data": f"runs:/{run_id}/downstream"}
    (path,) = set(re.findall(r"folder: (\S+)", result.log))
    assert not Path(path).exists(), "the download goes with the attempt"


def test_a_project_with_a_python_env_runs_in_an_environment_of_its_own(tracking_uri: str, tmp_path: Path) -> None:
    (tmp_path / "python_env.yaml").write_text("dependencies: []")
    (tmp_path / "MLproject").write_text(
        "entry_points: {main: {command: \"python -c 'import sys; print(sys.prefix)'\"}}"
    )
    result = run_dag("one_step", {"uri": str(tmp_path)})
    assert result.state == "success", result.log[-3000:]
    assert "/mlflow_projects_cache/environments/" in result.log
    assert result.runs(tracking_uri)["step"].data.tags["mlflow.project.env"] == "uv"
    local = run_dag("one_step", {"uri": str(tmp_path), "env_manager": "local"})
    assert f" {sys.prefix} " in local.log


def test_a_value_too_long_for_mlflow_reaches_the_command_whole_and_the_record_in_part(tracking_uri: str) -> None:
    conf = {"uri": f"{PROJECTS}/shell", "parameters": {"command": f"echo -n {'x' * 7000} | wc -c"}}
    result = run_dag("one_step", conf)
    assert result.state == "success", result.log[-3000:]
    assert " 7000 " in result.log
    assert "Parameter 'command' has 7016 characters; MLflow records the first 6000." in result.log
    assert len(result.runs(tracking_uri)["step"].data.params["command"]) == 6000


def test_the_janitor_dag_runs(tracking_uri: str) -> None:
    result = run_dag("mlflow_projects_janitor")
    assert result.state == "success", result.log[-3000:]
    assert result.tasks["close_stragglers"].xcom == []


def test_a_run_does_not_stay_finished_when_its_task_failed_after_all(tracking_uri: str) -> None:
    result = run_dag("lost_report")
    parent, first, second = mlflow_runs(tracking_uri, "lost_report", result.run_id)
    assert result.tasks["parent.step"].state == "failed"
    assert {run.info.status for run in (parent, first, second)} == {"FAILED"}
    said = "the task failed after its end: RuntimeError: the report of the success gets lost"
    assert {run.data.tags["mlflow_projects.reason"] for run in (first, second)} == {said}
