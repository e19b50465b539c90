"""Which backend a name means, how any process stops or finds a job, and which settings are known."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlflow_projects.backends import base
from mlflow_projects.backends.base import JobStatus, backend_named, check_config_keys, job_exists, stop_job_of
from mlflow_projects.backends.local import LocalBackend
from mlflow_projects.backends.sagemaker import SageMakerBackend
from mlflow_projects.exceptions import ProjectError
from mlflow_projects.tracking.client import Run
from tests.support.attempts import MemoryJobs

HANDLE = {"backend": "memory", "name": "job-1", "aws_conn_id": "aws_team"}


def test_each_name_has_its_backend_with_its_settings() -> None:
    said: list[str] = []
    local = backend_named("local", said.append)
    assert isinstance(local, LocalBackend)
    assert local.remote is False
    remote = backend_named("sagemaker", said.append, aws_conn_id="aws_team", poll_interval=3.0)
    assert isinstance(remote, SageMakerBackend)
    assert remote.remote is True
    assert vars(remote)["_aws_conn_id"] == "aws_team"
    assert vars(remote)["_poll_interval"] == 3.0
    for backend in (local, remote):
        vars(backend)["_log"]("a line")
    assert said == ["a line", "a line"]
    assert [name in base.REMOTE_BACKENDS for name in base.BACKENDS] == [False, True]


@pytest.mark.parametrize("name", ["Local", "kubernetes", ""])
def test_another_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ProjectError) as caught:
        backend_named(name, print)
    assert str(caught.value) == f"There is no backend {name!r}; use one of: local, sagemaker."


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> tuple[MemoryJobs, list[Any]]:
    jobs, names = MemoryJobs(), []

    def named(name: str, log: Any, **more: Any) -> MemoryJobs:
        names.append((name, more))
        log("asked")
        return jobs

    monkeypatch.setattr(base, "backend_named", named)
    return jobs, names


def run_of(job: str | None) -> Run:
    return Run("run-1", "0", "step", "RUNNING", "", tags={} if job is None else {"mlflow_projects.job": job})


def test_a_runs_job_is_stopped_by_its_own_backend(asked: tuple[MemoryJobs, list[Any]]) -> None:
    jobs, names = asked
    said: list[str] = []
    stop_job_of(run_of(json.dumps(HANDLE)), said.append)
    assert jobs.calls == ["stop job-1"]
    assert names == [("memory", {"aws_conn_id": "aws_team"})]
    assert said == ["asked"]


@pytest.mark.parametrize("job", [None, ""])
def test_a_run_without_a_job_asks_nobody(job: str | None, asked: tuple[MemoryJobs, list[Any]]) -> None:
    stop_job_of(run_of(job), print)
    assert asked[1] == []


@pytest.mark.parametrize(
    ("job", "why"),
    [("{", "Expecting"), ('{"name": "x"}', "'backend'"), ("[]", "list indices"), (json.dumps(HANDLE), "AWS is away")],
)
def test_a_job_that_cannot_be_stopped_does_not_keep_the_run_open(
    job: str, why: str, asked: tuple[MemoryJobs, list[Any]]
) -> None:
    def refuse(call: str) -> None:
        raise RuntimeError("AWS is away")

    asked[0].before = refuse
    said: list[str] = []
    stop_job_of(run_of(job), said.append)
    assert said[-1].startswith("The job of run run-1 cannot be stopped: ")
    assert why in said[-1]


def test_a_job_is_there_once_it_was_submitted(asked: tuple[MemoryJobs, list[Any]]) -> None:
    jobs, names = asked
    said: list[str] = []
    assert job_exists(HANDLE, said.append) is False
    jobs.jobs["job-1"] = JobStatus("running")
    assert job_exists(HANDLE, said.append) is True
    assert names[0] == ("memory", {"aws_conn_id": "aws_team"})
    assert said == ["asked", "asked"]


def test_the_settings_of_every_backend_are_known_and_no_other() -> None:
    check_config_keys({})
    check_config_keys({"grace_seconds": 1, "docker_image": "x", "docker_gpus": "all", "role": "arn", "max_run": 3})
    with pytest.raises(ProjectError) as caught:
        check_config_keys({"role": "arn", "zone": 1, "docker_imge": "x", 7: 1})
    start, _, known = str(caught.value).partition("; known are: ")
    assert start == "backend_config has the unknown key '7'"
    names = known.rstrip(".").split(", ")
    assert names == sorted(names)
    assert {"grace_seconds", "docker_image", "role"} <= set(names)
