"""Which backend a name means, how any process stops or finds a job, and which settings are known."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint, entry_points

import pytest

from mlflow_projects.backends import registry
from mlflow_projects.backends.local import LocalBackend
from mlflow_projects.backends.registry import (
    backend_class,
    check_config_keys,
    durable_class,
    handle_from,
    is_durable,
    link_names,
    stop_job_of,
)
from mlflow_projects.backends.sagemaker import SageMakerBackend
from mlflow_projects.exceptions import ProjectError
from mlflow_projects.tracking.client import Run
from tests.support.attempts import MemoryHandle, MemoryJobs

HANDLE = MemoryHandle("memory", "job-1")


def test_each_name_has_its_backend() -> None:
    assert (backend_class("local"), backend_class("sagemaker")) == (LocalBackend, SageMakerBackend)
    assert (is_durable("local"), is_durable("sagemaker")) == (False, True)
    assert durable_class("sagemaker") is SageMakerBackend
    with pytest.raises(ProjectError, match="The backend 'local' has no jobs that outlive their task"):
        durable_class("local")


def test_our_own_are_declared_as_those_of_others() -> None:
    assert {point.name: point.value for point in entry_points(group=registry.GROUP)} == registry.OWN
    durable = [durable_class(name) for name in registry.OWN if is_durable(name)]
    assert link_names("local") == tuple(name for found in durable for name in found.link_names)


@pytest.mark.parametrize("name", ["Local", "kubernetes", ""])
def test_another_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ProjectError) as caught:
        backend_class(name)
    assert str(caught.value) == f"There is no backend {name!r}; use one of: local, sagemaker."


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> MemoryJobs:
    return MemoryJobs().install(monkeypatch)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return what other packages install: a backend's place by its name."""
    found: dict[str, str] = {}
    monkeypatch.setattr(registry, "_installed", lambda: found)
    return found


def test_a_backend_of_another_package_is_found_and_named(installed: dict[str, str]) -> None:
    installed["another"] = "tests.support.attempts:MemoryBackend"
    installed["broken"] = "no.such.module:Backend"
    installed["wrong"] = "json:loads"
    assert backend_class("another").__name__ == "MemoryBackend"
    assert link_names("another") == ["SageMaker job", "CloudWatch logs", "Memory job"]
    for name, said in (
        ("Another", "There is no backend 'Another'; use one of: local, sagemaker, another, broken, wrong."),
        ("broken", "The backend 'broken' cannot be loaded from no.such.module:Backend: No module named 'no'."),
        ("wrong", "The backend 'wrong' cannot be used: json:loads is no Backend."),
    ):
        with pytest.raises(ProjectError) as caught:
            backend_class(name)
        assert str(caught.value) == said


def test_what_others_install_is_looked_for_in_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {registry.GROUP: [EntryPoint("another", "a.b:C", registry.GROUP)]}
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points[group])
    registry._installed.cache_clear()
    assert registry._installed() == {"another": "a.b:C"}
    registry._installed.cache_clear()


def run_of(job: str | None) -> Run:
    return Run("run-1", "0", "step", "RUNNING", "", tags={} if job is None else {"mlflow_projects.job": job})


def test_a_runs_job_is_stopped_by_its_own_backend(jobs: MemoryJobs) -> None:
    said: list[str] = []
    stop_job_of(run_of(json.dumps(HANDLE.as_json())), said.append)
    assert jobs.calls == ["stop job-1"]
    assert said == ["asked"]


@pytest.mark.parametrize("job", [None, ""])
def test_a_run_without_a_job_asks_nobody(job: str | None, jobs: MemoryJobs) -> None:
    stop_job_of(run_of(job), print)
    assert jobs.calls == []


@pytest.mark.parametrize(
    ("job", "why"),
    [
        ("{", "Expecting"),
        ("[" * 100_000, "recursion"),
        ('{"name": "x"}', "it names no backend"),
        ("[]", "it names no backend"),
        ('{"backend": 7}', "it names no backend"),
        (json.dumps({**HANDLE.as_json(), "name": ["x"]}), "is damaged"),
        ('{"backend": "local"}', "has no jobs that outlive their task"),
        (json.dumps(HANDLE.as_json()), "AWS is away"),
    ],
)
def test_a_job_that_cannot_be_stopped_does_not_keep_the_run_open(job: str, why: str, jobs: MemoryJobs) -> None:
    def refuse(call: str) -> None:
        raise RuntimeError("AWS is away")

    jobs.before = refuse
    said: list[str] = []
    stop_job_of(run_of(job), said.append)
    assert said[-1].startswith("The job of run run-1 cannot be stopped: ")
    assert why in said[-1]


def test_a_handle_is_the_same_after_a_way_through_json(jobs: MemoryJobs) -> None:
    text = json.dumps({**HANDLE.as_json(), "of a later version": 1})
    assert handle_from(json.loads(text)) == HANDLE


def test_the_settings_of_every_backend_are_known_and_no_other(installed: dict[str, str]) -> None:
    check_config_keys({})
    check_config_keys({"grace_seconds": 1, "docker_image": "x", "docker_gpus": "all", "role": "arn", "max_run": 3})
    with pytest.raises(ProjectError) as caught:
        check_config_keys({"role": "arn", "zone": 1, "docker_imge": "x", 7: 1})
    start, _, known = str(caught.value).partition("; known are: ")
    assert start == "backend_config has the unknown key '7'"
    names = known.rstrip(".").split(", ")
    assert names == sorted(names)
    assert {"grace_seconds", "docker_image", "role"} <= set(names)
    with pytest.raises(ProjectError, match=r"the unknown key 'docker_imge'; do you mean 'docker_image'\?$"):
        check_config_keys({"role": "arn", "docker_imge": "x"})
