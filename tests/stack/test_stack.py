"""The stack of docker-compose.yaml on a real engine: do DAGs run, is everything recorded, is nothing open."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError

from tests.conftest import ROOT
from tests.stack.client import StackClient, wait_until
from tests.stack.conftest import ENV_FILE, compose, stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(3600)]
sys.path.insert(0, str(ROOT / "tools"))
from compose import containers, run_engine  # noqa: E402
from env import LONG, PASSWORDS, read  # noqa: E402
from stack import is_healthy  # noqa: E402

OWN_IMAGE = ("mlflow", "api-server", "scheduler", "dag-processor", "triggerer", "worker", "sagemaker", "git")
LASTING = ("postgres", "redis", "s3", *OWN_IMAGE)
CIFAR10 = {
    "preprocess_data": "sample",
    "train_model_type": "simple",
    "train_num_workers": 0,
    "building_mode": "process",
}


@pytest.fixture(scope="module")
def echo_zip(client: StackClient) -> str:
    """Return the id of a DAG run that has ended well."""
    client.wait_for_dag("echo_zip")
    run_id = client.trigger("echo_zip", {"text": "from the stack", "num": 3})
    assert client.wait_for_end("echo_zip", run_id) == "success", all_logs(client, "echo_zip", run_id)
    return run_id


def all_logs(client: StackClient, dag_id: str, run_id: str) -> str:
    """Return the logs of the tasks that did not succeed."""
    return "\n".join(
        f"--- {task['task_id']} {task['state']}\n"
        + client.log(dag_id, run_id, task["task_id"], task["try_number"], task["map_index"])[-3000:]
        for task in client.task_instances(dag_id, run_id)
        if task["state"] != "success"
    )


def recorded(client: StackClient, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
    """Return the MLflow runs of a DAG run by name, after looking that all have ended well."""
    runs = {run["info"]["run_name"]: run for run in client.runs(dag_id, run_id)}
    assert {run["info"]["status"] for run in runs.values()} == {"FINISHED"}, runs
    return runs


def test_echo_zip_is_recorded_in_mlflow_and_s3(client: StackClient, echo_zip: str) -> None:
    runs = recorded(client, "echo_zip", echo_zip)
    assert runs.keys() == {"pipeline", "echo", "zip"}
    assert runs["echo"]["params"] == {"text": "from the stack", "num": "3"}
    assert runs["zip"]["tags"]["mlflow.parentRunId"] == runs["pipeline"]["info"]["run_id"]
    assert runs["zip"]["tags"]["mlflow.user"] == "airflow"
    zipped = runs["zip"]["info"]["run_id"]
    [artifact] = client.artifacts(zipped, "downstream")
    [key] = [key for key in client.objects("mlflow") if zipped in key and key.endswith(artifact)]
    assert client.s3().get_object(Bucket="mlflow", Key=key)["Body"].read().startswith(b"PK")


def test_logs_come_from_s3(client: StackClient, echo_zip: str) -> None:
    """The worker removes its own copy, so what is read is what S3 has."""

    def local() -> str:
        look = ["find", "/opt/airflow/logs", "-path", f"*{echo_zip}*", "-name", "*.log"]
        return "".join(
            run_engine("exec", worker, *look, capture_output=True).stdout for worker in containers("worker")
        )

    wait_until(lambda: not local(), 60, "the upload of the last log")  # which follows the task's end
    keys = [key for key in client.objects("airflow-logs") if "dag_id=echo_zip" in key and echo_zip in key]
    assert {"pipeline.echo", "pipeline.zip"} <= {
        part.removeprefix("task_id=") for key in keys for part in key.split("/")
    }, keys
    run_id = recorded(client, "echo_zip", echo_zip)["echo"]["info"]["run_id"]
    assert run_id in client.log("echo_zip", echo_zip, "pipeline.echo")


def test_cifar10_trains_serves_and_measures(client: StackClient) -> None:
    run_id = client.trigger("cifar10", CIFAR10)
    assert client.wait_for_end("cifar10", run_id, 2400) == "success", all_logs(client, "cifar10", run_id)
    runs = recorded(client, "cifar10", run_id)
    assert runs.keys() == {"cifar10", "preprocess", "train", "building", "evaluate"}
    assert runs["train"]["metrics"]["parameters"] == 62_006
    assert runs["evaluate"]["metrics"]["accuracy"] == pytest.approx(runs["train"]["metrics"]["test_accuracy"])
    trained = runs["train"]["info"]["run_id"]
    assert any(path.endswith(".onnx") for path in client.artifacts(trained))
    assert any(trained in key and key.endswith(".onnx") for key in client.objects("mlflow"))
    assert not [key for key in client.objects("airflow-checkpoints") if run_id in key]  # gone with the success


def test_two_workers_share_the_mapped_steps_of_one_dag_run(client: StackClient) -> None:
    client.wait_for_dag("stack_sharing")
    told = f"/opt/airflow/cache/told-{uuid.uuid4().hex}"  # in the volume that the workers share
    run_id = client.trigger("stack_sharing", {"told": told})
    workers = {
        run_engine("exec", worker, "hostname", capture_output=True).stdout.strip() for worker in containers("worker")
    }
    assert len(workers) >= 2
    wait_until(lambda: {*hosts(client, run_id, "running")} == workers, 300, "a step on each worker")
    run_engine("exec", containers("worker")[0], "touch", told)
    assert client.wait_for_end("stack_sharing", run_id, 900) == "success", all_logs(client, "stack_sharing", run_id)
    done = hosts(client, run_id, "success")
    assert len(done) == 8
    assert {*done} == workers


def hosts(client: StackClient, run_id: str, state: str) -> list[str]:
    """Return where each of the slow steps in a state runs, or ran."""
    tasks = client.task_instances("stack_sharing", run_id)
    return [
        str(task["hostname"]).split(".")[0]
        for task in tasks
        if (task["task_id"], task["state"]) == ("sharing.slow", state)
    ]


def test_nothing_listens_beyond_loopback(client: StackClient) -> None:
    published = {}
    for name in containers():
        ports = json.loads(run_engine("inspect", "--format", "{{json .NetworkSettings.Ports}}", name,
                                      capture_output=True).stdout) or {}  # fmt: skip
        for bindings in ports.values():
            for binding in bindings or []:
                published[binding["HostPort"]] = binding["HostIp"]
    assert set(published.values()) == {"127.0.0.1"}
    assert published.keys() == {client.env[name] for name in ("AIRFLOW_PORT", "MLFLOW_PORT", "S3_PORT", "GIT_PORT")}
    listening = subprocess.run(["ss", "--listening", "--tcp", "--numeric", "--no-header"], check=True,
                               capture_output=True, text=True).stdout  # fmt: skip
    open_at = {line.split()[3].rpartition(":")[::2] for line in listening.splitlines()}
    assert {address for address, port in open_at if port in published} <= {"127.0.0.1"}


@pytest.mark.parametrize("login", [("airflow", "airflow"), ("admin", "admin"), ("admin", "password"), ("admin", "")])
def test_no_default_password_opens_airflow(client: StackClient, login: tuple[str, str]) -> None:
    body = {"username": login[0], "password": login[1]}
    assert httpx.post(f"{client.airflow_url}/auth/token", json=body, timeout=60).status_code in (400, 401)
    assert httpx.get(f"{client.airflow_url}/api/v2/dags", timeout=60).status_code == 401


@pytest.mark.parametrize("login", [None, ("admin", "password1234"), ("admin", "password"), ("airflow", "airflow")])
def test_no_default_password_opens_mlflow(client: StackClient, login: tuple[str, str] | None) -> None:
    url = f"{client.mlflow_url}/api/2.0/mlflow/experiments/search"
    assert httpx.post(url, json={"max_results": 1}, auth=login, timeout=60).status_code == 401


def test_no_default_password_opens_what_is_inside(client: StackClient) -> None:
    """From the container of a worker, where a step of anybody may run."""
    [worker, *_] = containers("worker")
    probe = """
import psycopg2, redis
for user, password in (("postgres", "postgres"), ("postgres", ""), ("airflow", "airflow"), ("mlflow", "mlflow")):
    try:
        psycopg2.connect(host="postgres", user=user, password=password, dbname="postgres", connect_timeout=20)
        print("open", user)
    except psycopg2.OperationalError as error:
        assert "password" in str(error), error
for password in (None, "redis", "password"):
    try:
        redis.Redis("redis", password=password, socket_timeout=20).ping()
        print("open redis")
    except (redis.AuthenticationError, redis.ResponseError):
        pass
"""
    done = run_engine("exec", worker, "python", "-c", probe, capture_output=True)
    assert done.stdout == ""
    assert httpx.get(f"{client.s3_url}/mlflow", timeout=60).status_code == 403
    for key, secret in (("any", "any"), ("airflow", "airflow"), (client.env["S3_ACCESS_KEY"], "any")):
        with pytest.raises(ClientError, match=r"InvalidAccessKeyId|SignatureDoesNotMatch|AccessDenied"):
            client.s3(key, secret).list_buckets()
    airflow = client.s3("airflow", client.env["AIRFLOW_S3_SECRET_KEY"])
    airflow.list_objects_v2(Bucket="airflow-logs")
    with pytest.raises(ClientError, match="AccessDenied"):
        airflow.list_objects_v2(Bucket="mlflow")


def test_containers_have_no_secret_but_their_own_and_none_in_a_command_line(client: StackClient) -> None:
    secrets = {client.env[name]: name for name in (*PASSWORDS, *LONG, "AIRFLOW_FERNET_KEY")}
    for name in containers(ended=False):
        top = run_engine("top", name, "args", capture_output=True).stdout
        assert not [secrets[value] for value in secrets if value in top], name
    # The library withholds all of these from the commands of steps; that of S3 opens the bucket of the logs only.
    [worker, *_] = containers("worker")
    variables = run_engine("exec", worker, "env", capture_output=True).stdout
    assert {name for value, name in secrets.items() if value in variables} == {
        "AIRFLOW_S3_SECRET_KEY",
        "AIRFLOW_SECRET_KEY",
        "CELERY_DB_PASSWORD",
        "REDIS_PASSWORD",
    }


def test_the_image_has_no_secret_and_no_cache_and_is_not_root(client: StackClient) -> None:
    [worker, *_] = containers("worker")
    image = run_engine("inspect", "--format", "{{.Image}}", worker, capture_output=True).stdout.strip()
    about = run_engine("image", "inspect", image, capture_output=True).stdout
    about += run_engine("history", "--no-trunc", image, capture_output=True).stdout
    assert not [name for name in (*PASSWORDS, *LONG, "AIRFLOW_FERNET_KEY") if client.env[name] in about]
    look = "find / -xdev ( -name .env -o -name .git -o -path */.cache/uv -o -path */.cache/pip ) -not -path /proc/*"
    found = run_engine("run", "--rm", "--entrypoint", "", image, *look.split(), check=False, capture_output=True)
    assert found.stdout == ""
    for service in OWN_IMAGE:
        for name in containers(service):
            assert run_engine("exec", name, "id", "-u", capture_output=True).stdout.strip() == "50000"


def test_a_release_lists_what_is_in_the_image(client: StackClient, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "tools/bootstrap.py", "--release"], cwd=ROOT, check=True)
    code = "import pathlib, sys, release; print(release.sbom_of_image(pathlib.Path(sys.argv[1]), '0'), end='')"
    done = subprocess.run(
        [ROOT / "build/release-env/bin/python", "-c", code, tmp_path / "image.json"],
        cwd=ROOT / "tools", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == ""
    found = json.loads((tmp_path / "image.json").read_text())["components"]
    names = {part["purl"].partition("@")[0] for part in found}
    assert {"pkg:pypi/mlflow-projects-on-airflow", "pkg:pypi/apache-airflow-core", "pkg:deb/debian/git"} <= names
    lock = (ROOT / "custom_images/airflow/requirements.txt").read_text()
    [mlflow] = [line.split()[0].partition("==")[2] for line in lock.splitlines() if line.startswith("mlflow==")]
    assert f"pkg:pypi/mlflow@{mlflow}" in {part["purl"] for part in found}


def test_without_env_nothing_starts_and_one_sentence_says_why(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "tools/compose.py", "config"],
        cwd=ROOT, check=False, capture_output=True, text=True, timeout=120,
        env={**clean_environment(), "ENV_FILE": str(tmp_path / "none")},
    )  # fmt: skip
    assert done.returncode != 0
    assert "make env" in done.stdout + done.stderr


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in read(ENV_FILE)}


def test_data_of_other_passwords_is_named_at_once(client: StackClient, tmp_path: Path) -> None:
    project = f"{os.environ.get('COMPOSE_PROJECT_NAME', 'mlflow-projects')}-passwords"
    variables = {"COMPOSE_PROJECT_NAME": project, "COMPOSE_PROFILES": ""}
    first, second = ({**variables, "ENV_FILE": str(tmp_path / name)} for name in ("first.env", "second.env"))
    try:
        stack("up", "--no-build", "postgres", **first)
        stack("down", **first)
        with pytest.raises(AssertionError, match=f"{project}_postgres was made with other passwords .*second.env"):
            stack("up", "--no-build", "postgres", **second)
        stack("up", "--no-build", "postgres", **first)
    finally:
        stack("down", "--volumes", **first)


def test_down_and_up_keeps_what_was_recorded(client: StackClient, echo_zip: str) -> None:
    log = client.log("echo_zip", echo_zip, "pipeline.echo")
    before = recorded(client, "echo_zip", echo_zip)
    stack("down")
    assert containers() == []
    stack("up", "--no-build")
    wait_until(lambda: client.airflow("GET", "/version").status_code == 200, 300, "Airflow")
    assert recorded(client, "echo_zip", echo_zip) == before
    assert client.dag_run("echo_zip", echo_zip)["state"] == "success"
    assert client.log("echo_zip", echo_zip, "pipeline.echo") == log  # the worker that wrote it is gone
    again = client.trigger("echo_zip")
    assert client.wait_for_end("echo_zip", again) == "success", all_logs(client, "echo_zip", again)


def test_every_service_is_healthy(client: StackClient) -> None:
    for service in LASTING:
        found = containers(service, ended=False)
        assert found, compose("ps", "--all")
        assert all(is_healthy(name) for name in found), compose("logs", "--tail", "30", service)
