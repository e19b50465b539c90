"""The executing stand-in for SageMaker, as a process of its own."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.logs import shown_on_failure
from tests.support.waiting import wait, wait_for_server

ROOT = Path(__file__).resolve().parents[2]
QUICK = {
    "start_seconds": 0.1,
    "restart_seconds": 0.1,
    "checkpoint_seconds": 0.2,
    "poll_seconds": 0.05,
    "grace": 10,
    "interruption_grace": 2,
}
ENDED = ("Completed", "Failed", "Stopped")


@dataclass
class SageMaker:
    """A running stand-in.

    :param environment: the AWS_* variables with which any AWS client reaches it
    :param private_opt_ml: jobs see their own /opt/ml; else SAGEMAKER_BASE_DIR
    """

    url: str
    environment: dict[str, str]
    bucket: str
    role: str
    private_opt_ml: bool
    pid: int

    def client(self, service: str = "sagemaker", **config: Any) -> Any:
        """Return a boto3 client; ``config`` goes to botocore's Config."""
        return _client(service, self.url, json.dumps(config, sort_keys=True))

    def faults(self, *faults: Mapping[str, Any], **fault: Any) -> None:
        """Order faults, in keywords or as mappings; see sagemaker_local.control.Fault."""
        self._control("POST", "faults", [*faults, *([fault] if fault else [])])

    def no_faults(self, access_key: str = "") -> None:
        """Forget the faults still to come.

        :param access_key: only those for requests that are signed with it
        """
        self._control("DELETE", "faults", {"access_key": access_key})

    def holding(self, access_key: str) -> bool:
        """Tell whether a fault holds a request that is signed with this key."""
        return any(fault["access_key"] == access_key for fault in self._control("GET", "faults")["holding"])

    def struck(self, access_key: str) -> int:
        """Return how often the faults for requests with this key happened, those that are still to come again."""
        return sum(f["struck"] for f in self._control("GET", "faults")["faults"] if f["access_key"] == access_key)

    def requests(self) -> dict[str, Any]:
        """Return ``{"counts": {"sagemaker.DescribeTrainingJob": 3, …}, "create_training_job": [request, …]}``."""
        return dict(self._control("GET", "requests"))

    def forget_requests(self) -> None:
        """Begin to count anew."""
        self._control("DELETE", "requests")

    def count(self, operation: str, service: str = "sagemaker") -> int:
        """Return how often an operation was asked for."""
        return int(self.requests()["counts"].get(f"{service}.{operation}", 0))

    def jobs(self) -> list[dict[str, Any]]:
        """Return the jobs with the process ids and exit statuses of their instances."""
        return list(self._control("GET", "jobs"))

    def interrupt(self, job: str) -> None:
        """Take a spot job's instances away."""
        self._control("POST", "interrupt", {"job": job})

    def forget(self, job: str) -> None:
        """End a job and let the stand-in know it no more."""
        self._control("POST", "forget", {"job": job})

    def describe(self, job: str) -> dict[str, Any]:
        """Return DescribeTrainingJob's answer."""
        return dict(self.client().describe_training_job(TrainingJobName=job))

    def age(self, job: str, seconds: float) -> None:
        """Let the stand-in believe that a job has trained so much longer."""
        self._control("POST", "age", {"job": job, "seconds": seconds})

    def wait(self, job: str, *states: str) -> dict[str, Any]:
        """Wait for a primary or secondary status (default: the end); return the description."""
        states = states or ENDED

        def look() -> dict[str, Any] | None:
            found = self.describe(job)
            if {found["TrainingJobStatus"], found["SecondaryStatus"]} & set(states):
                return found
            assert found["TrainingJobStatus"] not in ENDED, (states, found, self.logs(job)[-30:])
            return None

        return wait(look, f"{' or '.join(states)} of the job {job}")

    def wait_for_line(self, job: str, line: str) -> None:
        """Wait until a job's output is seen to hold a line."""
        wait(lambda: line in self.logs(job), f"the line {line!r} of the job {job}")

    def logs(self, job: str, host: str = "") -> list[str]:
        """Return what a job wrote, stream after stream."""
        logs, group = self.client("logs"), "/aws/sagemaker/TrainingJobs"
        try:
            streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{job}/{host}")["logStreams"]
        except logs.exceptions.ResourceNotFoundException:
            return []
        lines: list[str] = []
        for stream in streams:
            query = {"logGroupName": group, "logStreamName": stream["logStreamName"], "startFromHead": True}
            while (found := logs.get_log_events(**query))["events"]:
                lines += [event["message"] for event in found["events"]]
                query["nextToken"] = found["nextForwardToken"]
        return lines

    def put(self, key: str, content: str | bytes) -> str:
        """Make an object in the default bucket; return its S3 URI."""
        body = content.encode() if isinstance(content, str) else content
        self.client("s3").put_object(Bucket=self.bucket, Key=key, Body=body)
        return f"s3://{self.bucket}/{key}"

    def get(self, uri: str) -> bytes:
        """Return an object."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return bytes(self.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())

    def unpacked(self, uri: str) -> dict[str, bytes]:
        """Return the files of a .tar.gz object."""
        with tarfile.open(fileobj=io.BytesIO(self.get(uri))) as tar:
            return {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]

    def request(self, name: str, command: list[str], **changes: Any) -> dict[str, Any]:
        """Return a small valid CreateTrainingJob request."""
        return {
            "TrainingJobName": name,
            "AlgorithmSpecification": {
                "TrainingImage": "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.6-cpu-py312",
                "TrainingInputMode": "File",
                "ContainerEntrypoint": command,
            },
            "RoleArn": self.role,
            "OutputDataConfig": {"S3OutputPath": f"s3://{self.bucket}/output"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
            **changes,
        }

    def _control(self, method: str, path: str, content: object = None) -> Any:
        answer = httpx.request(method, f"{self.url}/_sagemaker_local/{path}", json=content, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()


@contextlib.contextmanager
def running_sagemaker(
    home: Path, *options: str, variables: Mapping[str, str] | None = None, **knobs: float
) -> Iterator[SageMaker]:
    """Run a stand-in that is quick; leaving the block ends it with all its jobs.

    :param options: further options of ``python -m sagemaker_local``
    :param variables: for the stand-in's own environment
    :param knobs: its knobs, such as ``grace=2``
    """
    if importlib.util.find_spec("moto") is None:
        pytest.skip("moto is missing: pip install 'moto[s3]' flask flask-cors")
    home.mkdir(parents=True, exist_ok=True)
    ready = home / "ready.json"
    ready.unlink(missing_ok=True)
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in {**QUICK, **knobs}.items()]
    command = [sys.executable, "-m", "sagemaker_local", "--port=0", f"--home={home}"]
    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with (home / "sagemaker.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, f"--ready-file={ready}", *arguments, *options],
            env={**own, "PYTHONPATH": str(ROOT), **(variables or {})},
            stdout=log,
            stderr=log,
        )
    try:
        wait_for_server(ready.exists, process, "the stand-in for SageMaker", home / "sagemaker.log")
        with shown_on_failure(home, "sagemaker.log"):
            yield SageMaker(**json.loads(ready.read_text()))
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@functools.lru_cache(maxsize=32)
def _client(service: str, url: str, config: str) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        service,
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="sagemaker-local",
        aws_secret_access_key="sagemaker-local",
        config=Config(**json.loads(config)),
    )
