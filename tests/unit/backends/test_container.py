"""What a container gets: variables, mounts, settings; no engine is needed to decide it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlflow_projects.backends.contract import Job, OpenRun
from mlflow_projects.backends.local import container
from mlflow_projects.backends.local.container import Mounts
from mlflow_projects.backends.local.docker_env import Volumes, volumes_of
from mlflow_projects.backends.local.engine import engine_host
from mlflow_projects.backends.local.settings import LocalSettings
from mlflow_projects.project.cache import Cache
from mlflow_projects.project.command import check_parameters
from mlflow_projects.project.spec import Project


def job(project: Project, workspace: Path, **changes: Any) -> Job:
    entry_point = project.entry_point("main")
    parameters = check_parameters(project, entry_point, {})
    values: dict[str, Any] = {"variables": {}, "workspace": workspace, "cache": Cache(workspace), **changes}
    return Job(project=project, entry_point=entry_point, parameters=parameters, **values)


def test_the_image_of_the_operator_wins_over_the_projects(project: Any) -> None:
    assert LocalSettings.of({"docker_image": "mine:2"}, project()).docker_image == "mine:2"
    assert LocalSettings.of({"docker_image": ""}, project()).docker_image == "declared:1"
    assert LocalSettings.of({}, Project(Path("/"), None, None, {})).docker_image == ""


def test_what_may_be_written_stays_so_and_outer_folders_come_first() -> None:
    mounts = Mounts()
    mounts.add("/data/in", read_only=True)
    mounts.add("/data", read_only=False)
    mounts.add("/data", read_only=True)
    assert [(mount["Target"], mount["ReadOnly"]) for mount in mounts.as_list(Volumes())] == [
        ("/data", False),
        ("/data/in", True),
    ]


def test_a_folder_that_the_project_mounts_itself_is_not_mounted_twice(project: Any) -> None:
    """A path parameter or a store may lie where docker_env.volumes mounts something; engines refuse two mounts."""
    mounts = Mounts()
    for folder in ("/data", "/data/in", "/runs", "/scratch"):
        mounts.add(folder, read_only=True)
    volumes = volumes_of(project(volumes=["/data/:/data/", "/elsewhere:/runs:ro", "/scratch"]), {})
    assert [mount["Target"] for mount in mounts.as_list(volumes)] == ["/data/in"]


def test_the_container_gets_what_reaches_artifacts_and_nothing_else_of_the_worker(
    project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / ".aws").mkdir(parents=True)
    (tmp_path / "home" / ".aws" / "credentials").touch()
    (tmp_path / "key.json").touch()
    worker = {
        "PATH": "/worker/bin",
        "PYTHONPATH": "/worker",
        "HOME": "/home/worker",
        "A_SECRET": "of the worker",
        "AWS_PROFILE": "team",
        "HTTPS_PROXY": "http://proxy:1",
        "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "key.json"),
        "AIRFLOW_CTX_DAG_ID": "dag",
    }
    run = OpenRun({"MLFLOW_RUN_ID": "run"}, checkpoint=tmp_path / "kept")
    mounts = Mounts()
    variables = container._variables(job(project(), tmp_path), run, worker, mounts)
    assert variables == {
        "PYTHONUNBUFFERED": "1",
        "AWS_PROFILE": "team",
        "AWS_SHARED_CREDENTIALS_FILE": f"{tmp_path}/home/.aws/credentials",
        "HTTPS_PROXY": "http://proxy:1",
        "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "key.json"),
        "AIRFLOW_CTX_DAG_ID": "dag",
        "MLFLOW_RUN_ID": "run",
    }
    assert mounts.folders == {
        f"{tmp_path}/home/.aws/credentials": (f"{tmp_path}/home/.aws/credentials", True),
        f"{tmp_path}/key.json": (f"{tmp_path}/key.json", True),
        f"{tmp_path}/kept": (f"{tmp_path}/kept", False),
    }


@pytest.mark.parametrize(
    ("uri", "artifacts", "expected"),
    [
        ("sqlite:////db/mlflow.db", "{tmp}/1/run/artifacts", ["/db", "{tmp}/1"]),
        ("file:///runs", "file://{tmp}/1/run/artifacts", ["/runs", "{tmp}/1"]),
        ("http://127.0.0.1:5000", "mlflow-artifacts:/1/run/artifacts", []),
        ("http://server", "s3://bucket/1/run/artifacts", []),
    ],
)
def test_stores_of_this_machine_are_mounted(uri: str, artifacts: str, expected: list[str], tmp_path: Path) -> None:
    mounts = Mounts()
    artifact_uri = artifacts.format(tmp=tmp_path)
    container._mount_stores(OpenRun(artifact_uri=artifact_uri), {"MLFLOW_TRACKING_URI": uri}, mounts)
    assert sorted(mounts.folders) == sorted(path.format(tmp=tmp_path) for path in expected)


def host_config(**config: Any) -> dict[str, Any]:
    settings = LocalSettings.of({"docker_image": "i", **config}, Project(Path("/"), None, None, {}))
    return container._host_config(settings)


def test_host_settings() -> None:
    assert host_config(docker_network=None, docker_shm_size="") == {
        "network_mode": "host",
        "shm_size": "1g",
        "security_opt": ["label=disable"],
    }
    given = host_config(docker_network="mine", docker_memory="4g", docker_gpus="all")
    assert (given["network_mode"], given["mem_limit"]) == ("mine", "4g")
    assert given["device_requests"] == [{"Count": -1, "Capabilities": [["gpu"]]}]
    assert host_config(docker_gpus=2)["device_requests"][0]["Count"] == 2


def test_the_engine_is_the_one_that_is_named(tmp_path: Path) -> None:
    assert engine_host({"DOCKER_HOST": "tcp://engine:2376"}) == "tcp://engine:2376"
