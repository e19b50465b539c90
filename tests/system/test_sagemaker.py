"""The same steps as training jobs, on the executing stand-in for SageMaker."""

from __future__ import annotations

import json
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from tests.conftest import ROOT
from tests.support.dagruns import mlflow_runs, run_dag
from tests.support.gitserver import GitServer
from tests.support.measured import SCRIPT, SOON, was_measured
from tests.support.waiting import wait

PROJECTS = ROOT / "tests" / "projects"
MODES = ("job_watched", "job_deferred")

pytestmark = pytest.mark.usefixtures("airflow_db")


def job(dag_id: str, command: str, **conf: Any) -> Any:
    return run_dag(dag_id, {"uri": f"{PROJECTS}/shell", "parameters": {"command": command}, **conf})


def steps(tracking_uri: str, result: Any) -> list[Any]:
    found = mlflow_runs(tracking_uri, result.dag_id, result.run_id)
    return [run for run in found if run.data.tags["mlflow_projects.role"] == "step"]


def test_echo_zip_leaves_the_same_record_on_both_backends(tracking_uri: str, sagemaker: Any) -> None:
    records = {}
    for backend in ("local", "sagemaker"):
        result = run_dag("echo_zip", {"text": "both ways", "num": 3, "backend": backend})
        assert result.state == "success", result.log[-12000:]
        runs = result.runs(tracking_uri)
        assert {run.info.status for run in runs.values()} == {"FINISHED"}
        client = MlflowClient(tracking_uri)
        records[backend] = {
            name: {
                "params": {
                    key: value for key, value in run.data.params.items() if key not in ("upstream", "backend")
                },
                "metrics": {k: v for k, v in run.data.metrics.items() if not k.startswith("sagemaker/")},
                "artifacts": [file.path for file in client.list_artifacts(run.info.run_id, "downstream")],
                "sizes": [file.file_size for file in client.list_artifacts(run.info.run_id, "downstream")],
                "parent": bool(run.data.tags.get("mlflow.parentRunId")),
                "commit": run.data.tags.get("mlflow.source.git.commit"),
            }
            for name, run in runs.items()
        }
        tags = runs["echo"].data.tags
        assert tags["mlflow.project.backend"] == backend
        assert ("sagemaker.job_name" in tags) is (backend == "sagemaker")
    assert records["local"] == records["sagemaker"]
    assert runs["echo"].data.metrics["sagemaker/billable_seconds"] >= 0
    assert tags["sagemaker.job_url"].endswith(f"#/jobs/{tags['sagemaker.job_name']}")


@pytest.mark.parametrize(("dag_id", "reuse"), [("job_watched", True), ("job_deferred", "wait")])
def test_a_result_that_is_there_starts_no_job(dag_id: str, reuse: Any, tracking_uri: str, sagemaker: Any) -> None:
    (first,) = steps(tracking_uri, job(dag_id, f"echo made by {dag_id}", take=reuse))
    before = len(sagemaker.jobs())
    result = job(dag_id, f"echo made by {dag_id}", take=reuse)
    (run,) = steps(tracking_uri, result)
    assert result.state == "success", result.log[-12000:]
    assert first.data.tags["sagemaker.job_name"] in first.data.tags["mlflow_projects.job"]
    assert run.data.tags["mlflow_projects.reused_from"] == first.info.run_id
    assert "mlflow_projects.job" not in run.data.tags
    assert not any(key.startswith("sagemaker/") for key in run.data.metrics)
    assert result.tasks["parent.step"].xcom["run_id"] == first.info.run_id
    assert len(sagemaker.jobs()) == before


@pytest.mark.parametrize("dag_id", MODES)
def test_a_job_is_reported_line_by_line(dag_id: str, tracking_uri: str, sagemaker: Any, tmp_path: Path) -> None:
    before, gate = [job["name"] for job in sagemaker.jobs()], tmp_path / "gate"

    def open_the_gate_when_seen() -> None:
        try:
            new = wait(lambda: [job["name"] for job in sagemaker.jobs() if job["name"] not in before], "the job")
            sagemaker.wait_for_line(new[0], "one")
            asked = sagemaker.count("FilterLogEvents", "logs")
            # The second request comes when the answer to the first one is in the task's log.
            wait(lambda: sagemaker.count("FilterLogEvents", "logs") > asked + 1, "the task to ask for the output")
        finally:
            gate.touch()

    with ThreadPoolExecutor() as pool:
        watching = pool.submit(open_the_gate_when_seen)
        result = job(dag_id, f"echo one; until [ -e {gate} ]; do sleep 0.1; done; echo two")
        watching.result()
    (run,) = steps(tracking_uri, result)
    assert result.state == "success", result.log[-12000:]
    assert run.info.status == "FINISHED"
    name = run.data.tags["sagemaker.job_name"]
    log = result.log
    assert log.index(f"{name}: InProgress") < log.index(" two ")
    assert log.index(" one ") < log.index(" two ")
    assert log.index(f"{name}: InProgress") < log.index(f"{name}: Completed")
    assert log.count(" one ") == 1
    assert sagemaker.describe(name)["TrainingJobStatus"] == "Completed"


@pytest.mark.parametrize("dag_id", MODES)
def test_a_failed_job_tells_why_in_both_records_and_is_tried_again(
    dag_id: str, tracking_uri: str, sagemaker: Any
) -> None:
    result = job(dag_id, "echo the last words; exit 3")
    first, second = steps(tracking_uri, result)
    assert result.tasks["parent.step"].state == "failed"
    for run in (first, second):
        assert run.info.status == "FAILED"
        assert run.data.tags["mlflow_projects.exit_code"] == "3"
        assert "the last words" in run.data.tags["mlflow_projects.output_tail"]
        assert "the last words" in run.data.tags["mlflow_projects.reason"], "SageMaker's FailureReason"
    assert first.data.tags["sagemaker.job_name"] != second.data.tags["sagemaker.job_name"]
    assert second.data.tags["mlflow_projects.supersedes"] == first.info.run_id


@pytest.mark.parametrize("dag_id", MODES)
def test_a_job_over_max_run_is_no_success(dag_id: str, tracking_uri: str, sagemaker: Any) -> None:
    result = job(dag_id, "sleep 60", backend_config={"max_run": 1})
    runs = steps(tracking_uri, result)
    assert result.tasks["parent.step"].state == "failed"
    assert [run.info.status for run in runs] == ["KILLED", "KILLED"]
    assert "ran longer than 'max_run'" in runs[0].data.tags["mlflow_projects.reason"]


@pytest.mark.parametrize("dag_id", MODES)
def test_a_job_that_cannot_start_says_so(dag_id: str, tracking_uri: str, sagemaker: Any) -> None:
    missing = f"{sagemaker.role.split(':')[4]}.dkr.ecr.us-east-1.amazonaws.com/no-such:1"
    result = job(dag_id, "true", backend_config={"image_uri": missing})
    assert result.tasks["parent.step"].state == "failed"
    run = steps(tracking_uri, result)[0]
    assert run.info.status == "FAILED"
    assert "no-such" in run.data.tags["mlflow_projects.reason"]


def test_mlflow_measures_the_machine_of_the_job(tracking_uri: str, sagemaker: Any) -> None:
    result = job("job_measured", f"python -c '{SCRIPT}'", backend_config={"environment": SOON})
    (run,) = steps(tracking_uri, result)
    assert was_measured(run), result.log[-3000:]


def test_large_parameters_and_long_variables_reach_the_command(tracking_uri: str, sagemaker: Any) -> None:
    config = {"environment": {"LONG": "v" * 513}}
    many = {f"key{number}": "x" * 50_000 for number in range(20)}
    conf = {"uri": f"{PROJECTS}/shell", "parameters": {"command": 'echo ${#LONG}; echo "$*" | wc -c', **many}}
    result = run_dag("job_watched", {**conf, "backend_config": config})
    assert result.state == "success", result.log[-2000:]
    assert " 513 " in result.log
    assert re.search(r" 1000\d\d\d ", result.log), "1 MB"


BAD = {
    "no role": ({"role": ""}, "'role'"),
    "image": ({"image_uri": ""}, "'image_uri'"),
    "a long tag": ({"tags": {"k" * 129: "v"}}, "128"),
    "spot": ({"use_spot_instances": True, "max_wait": 5, "max_run": 10}, "'max_wait' (5 s) must be at least"),
    "a number": ({"instance_count": "many"}, "'instance_count' must be a whole number, not 'many'"),
    "an instance type": ({"instance_type": "ml.nothing.large"}, "InstanceType"),
    "a secret as text": ({"secret_environment": {"TOKEN": "abc"}}, "must be the ARN of a secret"),
    "a known secret": ({"environment": {"TOKEN": "correct-horse-battery"}}, "holds a secret that Airflow knows"),
    "an unknown key": ({"gpu": 1}, "unknown key 'gpu'"),
    "the name": ({"overrides": {"TrainingJobName": "mine"}}, "must not change TrainingJobName"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings_are_refused_before_any_call(
    name: str, tracking_uri: str, sagemaker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, sentence = BAD[name]
    secret = {"conn_type": "mlflow", "host": tracking_uri, "login": "", "password": ""}
    if name == "a known secret":
        monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({**secret, "login": "me"}))
        from airflow.sdk.log import mask_secret

        mask_secret("correct-horse-battery")
    if name in ("no role", "image"):
        defaults = json.loads(os.environ["AIRFLOW__MLFLOW_PROJECTS__SAGEMAKER"])
        defaults.pop("role" if name == "no role" else "image_uri")
        monkeypatch.setenv("AIRFLOW__MLFLOW_PROJECTS__SAGEMAKER", json.dumps(defaults))
    sagemaker.forget_requests()
    result = job("job_watched", "true", backend_config=config)
    (run,) = steps(tracking_uri, result)
    assert run.info.status == "FAILED"
    assert sentence in run.data.tags["mlflow_projects.reason"]
    assert sagemaker.count("CreateTrainingJob") == 0


def test_the_password_of_the_tracking_server_comes_from_secrets_manager(
    tracking_uri: str, sagemaker: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    password = "correct-horse-battery-staple"
    connection = {"conn_type": "mlflow", "host": tracking_uri, "login": "me", "password": password}
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps(connection))
    refused = job("job_watched", "true")
    (run,) = steps(tracking_uri, refused)
    assert "secret_environment.MLFLOW_TRACKING_PASSWORD" in run.data.tags["mlflow_projects.reason"]
    arn = sagemaker.client("secretsmanager").create_secret(
        Name="tracking", SecretString=json.dumps({"password": password})
    )["ARN"]
    config = {"secret_environment": {"MLFLOW_TRACKING_PASSWORD": f"{arn}:password"}}
    sagemaker.forget_requests()
    result = job("job_watched", "echo I say $MLFLOW_TRACKING_PASSWORD; test ${#MLFLOW_TRACKING_PASSWORD} = 28",
                 backend_config=config)  # fmt: skip
    assert result.state == "success", result.log[-12000:]
    (run,) = steps(tracking_uri, result)
    name = run.data.tags["sagemaker.job_name"]
    spec = sagemaker.get(f"s3://{sagemaker.bucket}/mlflow/jobs/{name}/spec.json").decode()
    everywhere = [result.log, spec, str(sagemaker.describe(name)), str(sagemaker.requests()), *sagemaker.logs(name)]
    assert not any(password in text for text in [*everywhere, str(run.data.tags), str(run.data.params)])
    assert any("I say ***" in line for line in sagemaker.logs(name))


def test_neither_git_token_nor_aws_keys_reach_the_job(
    tracking_uri: str, sagemaker: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    token, key = "glpat-Zq83hfk2-private-token", "planted-aws-key-6Hq0vT"
    work, bare = tmp_path / "work", tmp_path / "samples.git"
    work.mkdir()
    # The project tells all that it can see.
    (work / "MLproject").write_text("entry_points: {main: {command: 'env; ls -a; cat /proc/*/cmdline'}}")
    for command in (
        "init --quiet --initial-branch=trunk",
        "add .",
        "-c user.name=t -c user.email=t@x commit -qm one",
    ):
        subprocess.run(["git", "-C", str(work), *command.split()], check=True)
    subprocess.run(["git", "clone", "--quiet", "--bare", str(work), str(bare)], check=True)
    monkeypatch.setenv("AIRFLOW__MLFLOW_PROJECTS__CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key)
    connection = {"conn_type": "git", "login": "me", "password": token}
    monkeypatch.setenv("AIRFLOW_CONN_PRIVATE_GIT", json.dumps(connection))
    sagemaker.forget_requests()
    with GitServer(tmp_path, username="me", password=token) as server:
        result = run_dag("job_private", {"uri": f"{server.url}/samples.git"})
    assert result.state == "success", result.log[-3000:]
    (run,) = steps(tracking_uri, result)
    assert run.data.tags["mlflow.source.name"].endswith("/samples.git")
    name = run.data.tags["sagemaker.job_name"]
    (request,) = sagemaker.requests()["create_training_job"]
    source = request["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"]
    files = sagemaker.unpacked(f"{source}project.tar.gz")
    assert set(files) == {"MLproject"}, "without .git"
    spec = sagemaker.get(f"s3://{sagemaker.bucket}/mlflow/jobs/{name}/spec.json").decode()
    output = sagemaker.logs(name)
    assert any("MLFLOW_RUN_ID" in line for line in output)
    texts = [
        str(request),
        str(sagemaker.describe(name)),
        spec,
        str(files),
        *output,
        result.log,
        str(run.to_dictionary()),
    ]
    assert [text[:100] for text in texts if token in text or key in text] == []


def test_the_buttons_lead_to_the_job_and_its_output(tracking_uri: str, sagemaker: Any) -> None:
    result = job("job_deferred", "true")
    (run,) = steps(tracking_uri, result)
    name = run.data.tags["sagemaker.job_name"]
    links = result.links("parent.step")
    assert links["SageMakerJobLink"].endswith(f"/sagemaker/home?region=us-east-1#/jobs/{name}")
    assert name in links["CloudWatchLogsLink"]
    assert run.info.run_id in links["MLflowRunLink"]
