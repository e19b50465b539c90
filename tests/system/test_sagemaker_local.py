"""The stand-in for SageMaker, seen from outside: a real process, boto3, and jobs that really run."""

from __future__ import annotations

import datetime
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from botocore.exceptions import ClientError, HTTPClientError

from tests.support.sagemaker import SageMaker, running_sagemaker
from tests.support.waiting import PATIENCE, wait

pytestmark = pytest.mark.system

# What jobs run, by the hyperparameter "mode". It comes to them by a channel, for arguments are short.
SCRIPT = r"""
import json, os, pathlib, signal, subprocess, sys, time
ml = pathlib.Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
config = {path.stem: json.loads(path.read_text()) for path in (ml / "input/config").iterdir()}
mode, host = config["hyperparameters"]["mode"], config["resourceconfig"]["current_host"]
def say(text): print(text, flush=True)
def on_term(*_):
    say("SIGTERM seen")
    while not pathlib.Path(config["hyperparameters"].get("gate", "/")).exists():
        time.sleep(0.1)
    (ml / "model/saved").write_text("in time")
    sys.exit(0)
if mode != "stubborn":
    signal.signal(signal.SIGTERM, on_term)
say(f"hello from {host}")
if mode == "success":
    channel = ml / "input/data/data"
    files = {path.relative_to(channel).as_posix(): path.read_text() for path in channel.rglob("*") if path.is_file()}
    (ml / "model/model.json").write_text(json.dumps({"files": files, "config": config, "env": dict(os.environ)}))
    (ml / "output/data/report.txt").write_text("done")
elif mode == "failure":
    (ml / "output/failure").write_text("no such luck " + "x" * 2000)
    sys.exit(7)
elif mode == "pair":
    import socket
    (ml / f"model/{host}").write_text(socket.gethostbyname("algo-2") if ml == pathlib.Path("/opt/ml") else "")
    if host == "algo-2" and "fail" in config["hyperparameters"]:
        sys.exit(3)
elif mode == "checkpoint":
    file = ml / "checkpoints/step"
    say("starts at " + (file.read_text() if file.exists() else "0"))
    if not file.exists():
        file.write_text("41")
        signal.pause()
elif mode == "tree":
    subprocess.Popen(["sleep", "4711"], start_new_session=True)
    subprocess.Popen(["bash", "-c", "trap '' TERM; sleep 4711; true"])
    say("tree grown")
    signal.pause()
else:
    signal.pause()
"""


@pytest.fixture(scope="module")
def sagemaker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SageMaker]:
    home = tmp_path_factory.mktemp("sagemaker")
    secrets = {"AIRFLOW_CONN_SECRET": "leaked", "AWS_SESSION_TOKEN": "leaked"}
    # Long: what a test holds back is not to be killed meanwhile.
    grace = {"grace": 600, "interruption_grace": 600}
    with running_sagemaker(home, "--missing-image=nowhere", variables=secrets, **grace) as running:
        yield running


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SageMaker]:
    """Run one that waits little, for jobs and with their lines."""
    with running_sagemaker(tmp_path_factory.mktemp("impatient"), grace=0.2, log_delay=0.2) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_faults(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "sagemaker" in request.fixturenames:
        request.getfixturevalue("sagemaker").no_faults()


def create(sagemaker: SageMaker, name: str, mode: str, **changes: Any) -> str:
    """Start a job that runs the script above; return its name."""
    parameters = {"mode": mode, **changes.pop("parameters", {})}
    channels = changes.pop("channels", {})
    sagemaker.put("code/job.py", SCRIPT)
    base = "/opt/ml" if sagemaker.private_opt_ml else "$SAGEMAKER_BASE_DIR"
    request = sagemaker.request(
        name,
        ["bash", "-c", f"exec python3 {base}/input/data/code/job.py"],
        HyperParameters=parameters,
        InputDataConfig=[
            {"ChannelName": key, "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}}}
            for key, uri in {"code": f"s3://{sagemaker.bucket}/code/job.py", **channels}.items()
        ],
        **changes,
    )
    answer = sagemaker.client().create_training_job(**request)
    assert answer["TrainingJobArn"].endswith(f":training-job/{name}")
    return name


def error_of(call: Any, **arguments: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def succeeds(call: Any) -> bool:
    try:
        call()
    except ClientError:
        return False
    return True


def test_a_job_runs_and_leaves_its_results(sagemaker: SageMaker) -> None:
    for key in ("data/set/a.txt", "data/set/deep/b.txt"):
        data = sagemaker.put(key, key[-5])
    spot = {
        "EnableManagedSpotTraining": True,
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 3600},
    }
    job = create(
        sagemaker,
        "success",
        "success",
        parameters={"rate": "0.1"},
        channels={"data": data.rpartition("/deep")[0]},
        Environment={"OWN": "value"},
        Tags=[{"Key": "team", "Value": "a"}],
        **spot,
    )
    found = sagemaker.wait(job)

    assert (found["TrainingJobStatus"], found["SecondaryStatus"]) == ("Completed", "Completed"), found
    states = [transition["Status"] for transition in found["SecondaryStatusTransitions"]]
    assert states == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert all(transition["EndTime"] for transition in found["SecondaryStatusTransitions"])
    assert found["CreationTime"] <= found["TrainingStartTime"] <= found["TrainingEndTime"]
    assert found["TrainingTimeInSeconds"] == found["BillableTimeInSeconds"] >= 1
    assert found["Environment"] == {"OWN": "value"}
    assert sagemaker.logs(job) == ["hello from algo-1"]
    artifacts = found["ModelArtifacts"]["S3ModelArtifacts"]
    assert artifacts == f"s3://{sagemaker.bucket}/output/success/output/model.tar.gz"
    assert sagemaker.unpacked(artifacts.replace("model.tar", "output.tar")) == {"report.txt": b"done"}

    seen = json.loads(sagemaker.unpacked(artifacts)["model.json"])
    assert seen["files"] == {"a.txt": "a", "deep/b.txt": "b"}
    assert seen["config"]["hyperparameters"] == {"mode": "success", "rate": "0.1"}
    assert seen["config"]["resourceconfig"]["hosts"] == ["algo-1"]
    assert seen["config"]["inputdataconfig"]["data"]["TrainingInputMode"] == "File"
    env = seen["env"]
    assert (env["OWN"], env["TRAINING_JOB_NAME"], env["AWS_ENDPOINT_URL"]) == ("value", job, sagemaker.url)
    assert "leaked" not in env.values(), "a job has its own environment"
    assert "PYTHONPATH" not in env
    tags = sagemaker.client().list_tags(ResourceArn=found["TrainingJobArn"])["Tags"]
    assert tags == [{"Key": "team", "Value": "a"}]
    if sagemaker.private_opt_ml:
        assert not list(Path("/opt/ml").iterdir()), "a job's files are its own"


def test_failures_say_why(sagemaker: SageMaker) -> None:
    failing = create(sagemaker, "failure", "failure")
    request = sagemaker.request("no-such-program", ["no-such-program"])
    sagemaker.client().create_training_job(**request)
    request = sagemaker.request("no-image", ["true"])
    request["AlgorithmSpecification"]["TrainingImage"] = "nowhere:latest"
    sagemaker.client().create_training_job(**request)

    found = sagemaker.wait(failing)
    reason = found["FailureReason"]
    assert found["TrainingJobStatus"] == found["SecondaryStatus"] == "Failed"
    assert reason.startswith("AlgorithmError: no such luck xxx")
    assert reason.endswith("x, exit code: 7")
    assert len(reason) == 1024
    assert "ModelArtifacts" not in found
    assert "CannotStartContainerError" in sagemaker.wait("no-such-program")["FailureReason"]
    assert sagemaker.logs("no-such-program") == ['exec: "no-such-program": No such file or directory']
    assert sagemaker.wait("no-image")["FailureReason"].startswith("ClientError: Cannot pull algorithm container.")


def test_stop_gives_a_job_time_to_save(sagemaker: SageMaker, tmp_path: Path) -> None:
    job = create(sagemaker, "polite", "sleep", parameters={"gate": str(tmp_path / "gate")})
    sagemaker.wait_for_line(job, "hello from algo-1")
    sagemaker.client().stop_training_job(TrainingJobName=job)
    sagemaker.client().stop_training_job(TrainingJobName=job)  # harmless while it is Stopping
    sagemaker.wait_for_line(job, "SIGTERM seen")
    assert sagemaker.describe(job)["TrainingJobStatus"] == "Stopping"

    (tmp_path / "gate").touch()
    found = sagemaker.wait(job)
    assert (found["TrainingJobStatus"], found["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert sagemaker.unpacked(found["ModelArtifacts"]["S3ModelArtifacts"]) == {"saved": b"in time"}
    code, message = error_of(sagemaker.client().stop_training_job, TrainingJobName=job)
    assert code == "ValidationException"
    assert "the training job is in status Stopped" in message


def test_a_job_that_ignores_the_stop_is_killed_after_the_grace_time(impatient: SageMaker) -> None:
    job = create(impatient, "stubborn", "stubborn")
    impatient.wait_for_line(job, "hello from algo-1")
    impatient.client().stop_training_job(TrainingJobName=job)
    assert impatient.wait(job)["TrainingJobStatus"] == "Stopped"
    (codes,) = (found["exit_codes"] for found in impatient.jobs() if found["name"] == job)
    # As PID 1 of a container, it ignores a SIGTERM that it does not handle.
    assert codes == [128 + (signal.SIGKILL if impatient.private_opt_ml else signal.SIGTERM)]


def test_a_job_that_runs_too_long_is_stopped(sagemaker: SageMaker) -> None:
    job = create(sagemaker, "too-long", "sleep", StoppingCondition={"MaxRuntimeInSeconds": 3600})
    sagemaker.wait_for_line(job, "hello from algo-1")
    assert sagemaker.describe(job)["TrainingJobStatus"] == "InProgress"
    sagemaker.age(job, 3600)
    found = sagemaker.wait(job)
    assert (found["TrainingJobStatus"], found["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert "SIGTERM seen" in sagemaker.logs(job)


def test_what_the_service_refuses(sagemaker: SageMaker) -> None:
    client = sagemaker.client()
    request = sagemaker.request("once", ["true"])
    client.create_training_job(**request)
    code, message = error_of(client.create_training_job, **request)
    assert code == "ResourceInUse"
    assert "Training job names must be unique" in message
    assert error_of(client.describe_training_job, TrainingJobName="nobody") == (
        "ValidationException",
        "Requested resource not found.",
    )

    def refusal(**changes: Any) -> str:
        code, message = error_of(client.create_training_job, **sagemaker.request("refused", ["true"], **changes))
        assert code == "ValidationException"
        return message

    assert "at 'TrainingJobName': fails pattern" in refusal(TrainingJobName="a_b")
    assert "MaxWaitTimeInSeconds: must be at least" in refusal(EnableManagedSpotTraining=True)
    assert "RoleArn" in refusal(RoleArn="arn:aws:iam::12:role/too-short")
    algorithm = dict(request["AlgorithmSpecification"])
    algorithm["TrainingImage"] = "123456789012.dkr.ecr.us-east-1.amazonaws.com/mine:1"
    assert "Cannot find repository: mine in registry ID: 123456789012" in refusal(AlgorithmSpecification=algorithm)
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{sagemaker.bucket}/nothing"}}
    assert "No S3 objects found" in refusal(InputDataConfig=[{"ChannelName": "a", "DataSource": source}])
    sagemaker.client("ecr").create_repository(repositoryName="mine")
    client.create_training_job(**sagemaker.request("own-image", ["true"], AlgorithmSpecification=algorithm))
    assert sagemaker.wait("own-image")["TrainingJobStatus"] == "Completed"
    page = httpx.post(sagemaker.url, headers={"Origin": "http://evil", "X-Amz-Target": "SageMaker.CreateTrainingJob"})
    assert page.status_code == 403, "a web page must not start commands"


def test_faults_on_order(sagemaker: SageMaker) -> None:
    client = sagemaker.client(retries={"total_max_attempts": 1})
    job = create(sagemaker, "faulty", "sleep")
    sagemaker.forget_requests()
    sagemaker.faults(
        {"service": "sagemaker", "operation": "DescribeTrainingJob", "error": "ThrottlingException", "times": 2},
        {"service": "s3", "error": "SlowDown"},
    )
    for _ in range(2):
        assert error_of(client.describe_training_job, TrainingJobName=job)[0] == "ThrottlingException"
    assert client.describe_training_job(TrainingJobName=job)["TrainingJobName"] == job
    assert sagemaker.count("DescribeTrainingJob") == 3
    s3 = sagemaker.client("s3", retries={"total_max_attempts": 1})
    assert error_of(s3.put_object, Bucket=sagemaker.bucket, Key="k", Body=b"x" * 10**6)[0] == "SlowDown"

    sagemaker.faults(service="sagemaker", error="ExpiredTokenException", seconds=0.5)
    wait(lambda: succeeds(client.list_training_jobs), "the end of the fault")
    client.stop_training_job(TrainingJobName=job)

    # The job is made, but nobody hears of it; botocore's own retry then finds the name in use.
    sagemaker.faults(operation="CreateTrainingJob", error="lost", after=True)
    request = sagemaker.request("lost-answer", ["true"], Environment={"TOKEN": "t"})
    with pytest.raises(HTTPClientError):
        client.create_training_job(**request)
    assert sagemaker.wait("lost-answer")["TrainingJobStatus"] == "Completed"
    sagemaker.faults(operation="CreateTrainingJob", error="InternalServerError", after=True)
    retrying = sagemaker.client(retries={"mode": "standard"}).create_training_job
    assert error_of(retrying, **sagemaker.request("made", ["true"]))[0] == "ResourceInUse"
    sagemaker.faults(operation="CreateTrainingJob", error="InternalServerError")
    code = error_of(client.create_training_job, **sagemaker.request("not-made", ["true"]))[0]
    assert code == "InternalServerError"
    assert error_of(client.describe_training_job, TrainingJobName="not-made")[0] == "ValidationException"
    names = [request["TrainingJobName"] for request in sagemaker.requests()["create_training_job"]]
    assert names == ["lost-answer", "made", "made", "not-made"]
    assert sagemaker.requests()["create_training_job"][0]["Environment"] == {"TOKEN": "t"}


def test_faults_for_one_caller_leave_others_alone(sagemaker: SageMaker) -> None:
    import boto3
    from botocore.config import Config

    def caller(access_key: str) -> Any:
        once = Config(retries={"total_max_attempts": 1})
        keys = {"aws_access_key_id": access_key, "aws_secret_access_key": "secret"}
        return boto3.client("sagemaker", "us-east-1", endpoint_url=sagemaker.url, config=once, **keys)

    one, other = caller("one"), caller("other")
    for key in ("one", "other"):
        sagemaker.faults(error="ThrottlingException", seconds=300, access_key=key)
    assert sagemaker.client().list_training_jobs()
    assert {error_of(client.list_training_jobs)[0] for client in (one, other)} == {"ThrottlingException"}
    sagemaker.no_faults("one")
    assert one.list_training_jobs()
    assert error_of(other.list_training_jobs)[0] == "ThrottlingException"
    sagemaker.no_faults()
    assert other.list_training_jobs()


def test_an_interrupted_spot_job_goes_on_from_its_checkpoint(sagemaker: SageMaker) -> None:
    job = create(
        sagemaker,
        "spot",
        "checkpoint",
        EnableManagedSpotTraining=True,
        StoppingCondition={"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200},
        CheckpointConfig={"S3Uri": f"s3://{sagemaker.bucket}/checkpoints"},
    )
    s3 = sagemaker.client("s3")
    wait(lambda: s3.list_objects_v2(Bucket=sagemaker.bucket, Prefix="checkpoints/")["KeyCount"], "a checkpoint")
    sagemaker.interrupt(job)
    found = sagemaker.wait(job)
    assert found["TrainingJobStatus"] == "Completed", found
    states = [transition["Status"] for transition in found["SecondaryStatusTransitions"]]
    start = ["Starting", "Downloading", "Training"]
    assert states == [*start, "Interrupted", *start, "Uploading", "Completed"]
    assert sagemaker.logs(job) == [
        "hello from algo-1", "starts at 0", "SIGTERM seen", "hello from algo-1", "starts at 41",
    ]  # fmt: skip


def test_two_instances_see_each_other(sagemaker: SageMaker) -> None:
    resources = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 10}
    good = create(sagemaker, "pair", "pair", ResourceConfig=resources)
    bad = create(sagemaker, "bad-pair", "pair", parameters={"fail": "1"}, ResourceConfig=resources)
    found = sagemaker.wait(good)
    assert found["TrainingJobStatus"] == "Completed", found
    assert sorted(sagemaker.logs(good)) == ["hello from algo-1", "hello from algo-2"]
    model = sagemaker.unpacked(found["ModelArtifacts"]["S3ModelArtifacts"])
    assert set(model) == {"algo-1", "algo-2"}
    if sagemaker.private_opt_ml:
        assert set(model.values()) == {b"127.0.0.2"}
    assert sagemaker.wait(bad)["FailureReason"] == "AlgorithmError: , exit code: 3"


def test_lists(sagemaker: SageMaker) -> None:
    client = sagemaker.client()
    before = datetime.datetime.now(datetime.timezone.utc)
    for number in range(3):
        client.create_training_job(**sagemaker.request(f"listed-{number}", ["true"]))
    for number in range(3):
        sagemaker.wait(f"listed-{number}")

    def names(**filters: Any) -> list[str]:
        pages = client.get_paginator("list_training_jobs").paginate(NameContains="listed", **filters)
        return [summary["TrainingJobName"] for page in pages for summary in page["TrainingJobSummaries"]]

    everything = ["listed-0", "listed-1", "listed-2"]
    assert names() == names(PaginationConfig={"PageSize": 2}) == everything
    assert names(SortBy="Name", SortOrder="Descending") == everything[::-1]
    assert names(StatusEquals="Completed", LastModifiedTimeAfter=before, CreationTimeAfter=before) == everything
    assert names(StatusEquals="InProgress") == names(CreationTimeBefore=before) == []
    summary = client.list_training_jobs(NameContains="listed-0")["TrainingJobSummaries"][0]
    assert (summary["TrainingJobStatus"], summary["SecondaryStatus"]) == ("Completed", "Completed")
    assert summary["LastModifiedTime"] > before


@pytest.mark.parametrize("options", [(), ("--base-dir",)], ids=["private /opt/ml", "SAGEMAKER_BASE_DIR"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_the_stand_in(tmp_path: Path, options: tuple[str, ...], end: signal.Signals) -> None:
    with running_sagemaker(tmp_path, *options) as sagemaker:
        job = create(sagemaker, "tree", "tree")
        sagemaker.wait_for_line(job, "tree grown")
        watchers = next(entry["pids"] for entry in sagemaker.jobs() if entry["name"] == job)

        def tree() -> list[psutil.Process] | None:
            found = [child for pid in watchers for child in psutil.Process(pid).children(recursive=True)]
            return found if sum("4711" in process.cmdline() for process in found) == 2 else None

        family = [*wait(tree, "both branches of the tree"), *(psutil.Process(pid) for pid in watchers)]
        os.kill(sagemaker.pid, end)
        _, alive = psutil.wait_procs(family, timeout=PATIENCE)
        assert not alive, [process.cmdline() for process in alive]


def test_a_command_finds_its_files_where_a_private_opt_ml_cannot_be_had(tmp_path: Path) -> None:
    with running_sagemaker(tmp_path, "--base-dir") as sagemaker:
        sagemaker.put("code/job.sh", "echo $0")
        source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{sagemaker.bucket}/code/job.sh"}}
        request = sagemaker.request(
            "paths",
            ["bash", "/opt/ml/input/data/code/job.sh"],
            InputDataConfig=[{"ChannelName": "code", "DataSource": source}],
        )
        sagemaker.client().create_training_job(**request)
        assert sagemaker.wait("paths")["TrainingJobStatus"] == "Completed"
        assert sagemaker.logs("paths")[0].endswith("/input/data/code/job.sh")


def test_late_lines_and_taken_ports(tmp_path: Path, impatient: SageMaker) -> None:
    with running_sagemaker(tmp_path, log_delay=3600) as sagemaker:
        for stand_in in (sagemaker, impatient):
            stand_in.client().create_training_job(**stand_in.request("late", ["echo", "late"]))
        sagemaker.wait("late")
        assert sagemaker.logs("late") == []
        impatient.wait_for_line("late", "late")
        with pytest.raises(AssertionError, match="cannot be served: Address already"):
            with running_sagemaker(tmp_path / "second", f"--port={sagemaker.url.rpartition(':')[2]}"):
                pass


# Does with its arguments what an engine would, as far as the stand-in can notice; writes them down too.
ENGINE = r"""#!/usr/bin/env python3
import os, pathlib, signal, subprocess, sys, time
here, (verb, *rest) = pathlib.Path(__file__).parent, sys.argv[1:]
with (here / "calls").open("a") as calls:
    print(verb, *rest, file=calls)
if verb == "run":
    name = rest[rest.index("--name") + 1]
    (here / name).write_text(str(os.getpid()))
    base = next(word for word in rest if word.endswith(":/opt/ml")).rpartition(":")[0]
    wanted = [rest[n + 1] for n, word in enumerate(rest) if word == "--env"]
    entry = rest.index("--entrypoint")
    env = {key: os.environ[key] for key in wanted} | {"PATH": os.environ["PATH"], "SAGEMAKER_BASE_DIR": base}
    os.execvpe(rest[entry + 1], [rest[entry + 1], *rest[entry + 3 :]], env)
elif verb == "kill":
    number = signal.SIGTERM if "--signal=TERM" in rest else signal.SIGKILL
    os.kill(int((here / rest[-1]).read_text()), number)
"""


def test_containers_through_a_fake_engine(tmp_path: Path) -> None:
    """Real podman was tried by hand; this keeps the arguments as they were then."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "podman").write_text(ENGINE)
    (programs / "podman").chmod(0o755)
    path = {"PATH": f"{programs}:{os.environ['PATH']}", "NOT_FOR_JOBS": "leaked"}
    options = ("--containers", "--engine=podman", "--base-dir")
    with running_sagemaker(tmp_path, *options, variables=path, grace=600) as sagemaker:
        job = create(sagemaker, "contained", "success", channels={"data": sagemaker.put("d/a.txt", "a")},
                     Environment={"OWN": "private"})  # fmt: skip
        found = sagemaker.wait(job)
        assert found["TrainingJobStatus"] == "Completed", (found.get("FailureReason"), sagemaker.logs(job))
        env = json.loads(sagemaker.unpacked(found["ModelArtifacts"]["S3ModelArtifacts"])["model.json"])["env"]
        assert env["OWN"] == "private"
        assert "NOT_FOR_JOBS" not in env
        create(sagemaker, "stopped", "sleep")
        sagemaker.wait_for_line("stopped", "hello from algo-1")
        sagemaker.client().stop_training_job(TrainingJobName="stopped")
        sagemaker.wait("stopped")
        assert "SIGTERM seen" in sagemaker.logs("stopped")
    calls = (programs / "calls").read_text()
    assert "private" not in calls, "ps shows arguments to everybody"
    assert calls.count("\nrm --force sagemaker-local-") == 2
    run = next(line for line in calls.splitlines() if line.startswith("run "))
    assert run.startswith("run --rm --sig-proxy=false --name sagemaker-local-contained-algo-1-")
    assert " --network=host --volume " in run
