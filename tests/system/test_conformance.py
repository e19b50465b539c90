"""Containers and training jobs pass the kit that every backend must pass."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mlflow_projects.testing import BackendConformance, DurableBackendConformance
from tests.conftest import IMAGE
from tests.support.engine import Engine
from tests.support.sagemaker import SageMaker

pytestmark = pytest.mark.nightly  # tests/system/test_containers.py and test_sagemaker.py are in test-all


@pytest.mark.parametrize("engine_server", ["podman", "docker"], indirect=True, scope="session")
class TestContainer(BackendConformance):
    backend = "local"
    config: ClassVar = {"grace_seconds": 1}
    other_configs: ClassVar = ({"docker_gpus": "1"},)
    same_configs: ClassVar = ({"docker_memory": "4g"},)
    bad_configs: ClassVar = ({"docker_memory": "much"}, {"docker_gpus": "two"})
    image: ClassVar = ""
    engine: ClassVar[Any] = None

    @pytest.fixture(autouse=True)
    def _engine(self, engine: Engine, base_image: str) -> None:
        TestContainer.image, TestContainer.engine = base_image, engine

    def job(self, folder: Path, script: str, **changes: Any) -> Any:
        changes["config"] = {**self.config, "docker_image": self.image, **changes.get("config", {})}
        # What a script writes to show that it ran must be seen here.
        changes.setdefault("task_key", "conformance-0123456789abcdef")
        return super().job(folder, script, **changes)

    def leftovers(self, folder: Path) -> list[str]:
        return [str(found) for found in self.engine.leftovers()]


class TestSageMaker(DurableBackendConformance):
    backend = "sagemaker"
    other_configs: ClassVar = (
        {"instance_type": "ml.c5.xlarge"},
        {"image_uri": "other:2"},
        {"environment": {"A": "1"}},
    )
    same_configs: ClassVar = ({"max_run": 7}, {"tags": {"team": "x"}})
    bad_configs: ClassVar = ({"s3_uri": "nowhere"}, {"max_run": "long"})
    variables: ClassVar = {"MLFLOW_TRACKING_URI": "http://tracking.test"}
    stand_in: ClassVar[Any] = None

    @pytest.fixture(autouse=True)
    def _stand_in(self, sagemaker: SageMaker, monkeypatch: pytest.MonkeyPatch) -> None:
        TestSageMaker.stand_in = sagemaker
        monkeypatch.setenv("TESTS_HOME", os.environ["AIRFLOW_HOME"])  # a process that imports this module works there

    def job(self, folder: Path, script: str, **changes: Any) -> Any:
        bucket = "mlflow-projects"
        config = {
            "role": "arn:aws:iam::123456789012:role/SageMakerRole", "s3_uri": f"s3://{bucket}/conformance",
            "image_uri": IMAGE, "max_queue_seconds": 60,
        }  # fmt: skip
        changes["config"] = {**config, **changes.get("config", {})}
        return super().job(folder, script, **changes)

    def leftovers(self, folder: Path) -> list[str]:
        names = [job["name"] for job in self.stand_in.jobs() if "conformance" in job["name"]]
        return [name for name in names if self.stand_in.describe(name)["TrainingJobStatus"] == "InProgress"]
