"""An image by framework and version: the SDK is installed once, in an environment of its own, without our secrets."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from mlflow_projects.backends.contract import Job
from mlflow_projects.backends.sagemaker.images import choose_image
from mlflow_projects.exceptions import ProjectError, StepFailedError
from mlflow_projects.project.cache import Cache
from mlflow_projects.project.command import check_parameters
from mlflow_projects.project.spec import load_project

SDK = """
import os
def retrieve(**asked):
    if asked["version"] == "0":
        raise ValueError("Unsupported version:\\n0")
    assert not {name for name in os.environ if name.startswith(("AIRFLOW", "MLFLOW", "AWS"))}
    print("sagemaker.config INFO - Not applying SDK defaults")
    return ",".join(f"{key}={value}" for key, value in sorted(asked.items()))
"""


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "packages"
    folder.mkdir()
    for name in list(os.environ):
        if name.startswith(("UV_", "PIP_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    for name, value in (("OFFLINE", "1"), ("NO_CONFIG", "1"), ("CACHE_DIR", str(tmp_path / "uv"))):
        monkeypatch.setenv(f"UV_{name}", value)
    return folder


@pytest.fixture
def job(tmp_path: Path) -> Job:
    root = tmp_path / "project"
    root.mkdir()
    (root / "MLproject").write_text("entry_points: {main: {command: 'true'}}")
    project = load_project(root)
    main = project.entry_point("main")
    parameters = check_parameters(project, main, {})
    return Job(project, main, parameters, variables={}, workspace=tmp_path, cache=Cache(tmp_path / "cache"))


def test_the_sdk_is_installed_once_and_asked(job: Job, packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = "sagemaker_core-2.1.dist-info"
    with zipfile.ZipFile(packages / "sagemaker_core-2.1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("sagemaker/core/image_uris.py", SDK)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: sagemaker-core\nVersion: 2.1\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "secret")
    lines: list[str] = []

    def look_up(version: str) -> str:
        given = {"framework": "pytorch", "version": version, "py_version": "py312"}
        return choose_image(job, given, "ml.m5.large", "eu-west-1", lines.append)

    for _ in range(2):
        assert look_up("2.6") == (
            "framework=pytorch,image_scope=training,instance_type=ml.m5.large,py_version=py312,region=eu-west-1,"
            "version=2.6"
        )
    assert len(lines) == 1
    assert lines[0].startswith("Installing sagemaker-core")
    (made,) = job.cache.entries("environments")
    assert made.about == "uv for SageMaker's image look-up"
    with pytest.raises(ProjectError, match=r"'image_uri' cannot be looked up: Unsupported version: 0$"):
        look_up("0")


@pytest.mark.usefixtures("packages")
def test_an_sdk_that_cannot_be_installed_is_a_sentence_and_leaves_nothing(job: Job) -> None:
    with pytest.raises(StepFailedError, match=r"needs the SageMaker SDK, which uv cannot install: .*the whole URI"):
        choose_image(job, {"framework": "pytorch", "version": "2.6"}, "ml.m5.large", "eu-west-1", print)
    assert job.cache.entries() == []
