"""Other people's SageMaker tools on our stand-in: if they are content, it speaks SageMaker well enough.

Two of them are big and live in environments of their own, built once below build/ and kept.
"""

from __future__ import annotations

import functools
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlflow_projects.backends.contract import Job
from mlflow_projects.backends.sagemaker.images import choose_image
from mlflow_projects.exceptions import ProjectError
from mlflow_projects.file_lock import file_lock
from mlflow_projects.project.cache import Cache
from mlflow_projects.project.command import check_parameters
from mlflow_projects.project.spec import load_project
from tests.support.sagemaker import SageMaker, running_sagemaker
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.system

BUILD = Path(__file__).resolve().parents[2] / "build" / "fidelity"
TOOLKIT, SDK = "sagemaker-training==5.1.4", "sagemaker==3.27.0"

TRAIN = """
import argparse, os, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--rate", type=float)
rate = parser.parse_args().rate
print(f"rate {rate} on", os.environ["SM_CURRENT_HOST"], flush=True)
pathlib.Path(os.environ["SM_MODEL_DIR"], "model.txt").write_text(str(rate))
"""

# What a user of the SDK writes. It looks for its default bucket at AWS itself, so the bucket is named.
MODEL_TRAINER = """
import sys
from sagemaker.core.helper.session_helper import Session
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, SourceCode, StoppingCondition
role, bucket, source = sys.argv[1:]
ModelTrainer(
    sagemaker_session=Session(default_bucket=bucket),
    training_image="763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.6-cpu-py312",
    role=role,
    source_code=SourceCode(source_dir=source, entry_script="train.py"),
    compute=Compute(instance_type="ml.m5.large", instance_count=1, volume_size_in_gb=10),
    stopping_condition=StoppingCondition(max_runtime_in_seconds=3600),
    base_job_name="sdk",
    hyperparameters={"rate": 0.5},
).train(wait=True, logs=True)
"""


@pytest.fixture(scope="module")
def sagemaker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SageMaker]:
    with running_sagemaker(tmp_path_factory.mktemp("sagemaker")) as running:
        yield running


@functools.cache
def environment(requirement: str) -> Path:
    """Return the folder of programs of an environment with that package; build it if need be, or skip."""
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if uv is None:
        pytest.skip("uv is missing: pip install uv")
    BUILD.mkdir(parents=True, exist_ok=True)
    folder = BUILD / requirement.replace("==", "-")
    done = folder / "complete"
    with file_lock(BUILD / f"{folder.name}.lock"):
        if not done.exists():
            for command in (
                [uv, "venv", "--quiet", "--clear", "--python", ">=3.10,<3.12", folder],
                [uv, "pip", "install", "--quiet", "--python", folder / "bin" / "python", requirement],
            ):
                got = subprocess.run(command, capture_output=True, text=True, check=False)
                if got.returncode:
                    pytest.skip(f"{requirement} cannot be installed: {got.stderr.strip().splitlines()[-1:]}")
            done.touch()
    return folder / "bin"


def test_airflows_own_operator(sagemaker: SageMaker, airflow_db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.providers.amazon.aws.operators.sagemaker import SageMakerTrainingOperator

    for name, value in sagemaker.environment.items():
        monkeypatch.setenv(name, value)
    config = sagemaker.request("stock-operator", ["echo", "trained"], HyperParameters={"rate": "0.5"})
    # With print_log it would ask for the status every 30 seconds only.
    operator = SageMakerTrainingOperator(
        task_id="train", config=config, aws_conn_id=None, check_interval=1, print_log=False
    )
    result = operator.execute({})
    assert result["Training"]["TrainingJobStatus"] == "Completed"
    assert sagemaker.logs("stock-operator") == ["trained"]


def test_the_training_toolkit_of_aws_images(sagemaker: SageMaker) -> None:
    train = environment(TOOLKIT) / "train"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        member = tarfile.TarInfo("train.py")
        member.size = len(TRAIN)
        tar.addfile(member, io.BytesIO(TRAIN.encode()))
    parameters = {
        "sagemaker_program": "train.py",
        "sagemaker_submit_directory": sagemaker.put("source/sourcedir.tar.gz", archive.getvalue()),
        "sagemaker_region": "us-east-1",
        "rate": 0.25,
    }
    request = sagemaker.request(
        "toolkit", [str(train)], HyperParameters={key: json.dumps(value) for key, value in parameters.items()}
    )
    sagemaker.client().create_training_job(**request)
    found = sagemaker.wait("toolkit")
    assert found["TrainingJobStatus"] == "Completed", (found.get("FailureReason"), sagemaker.logs("toolkit")[-20:])
    assert "rate 0.25 on algo-1" in sagemaker.logs("toolkit")
    assert sagemaker.unpacked(found["ModelArtifacts"]["S3ModelArtifacts"]) == {"model.txt": b"0.25"}


@pytest.mark.nightly
def test_model_trainer_of_the_sdk(sagemaker: SageMaker, tmp_path: Path) -> None:
    python = environment(SDK) / "python"
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "train.py").write_text(TRAIN)
    got = subprocess.run(
        [python, "-c", MODEL_TRAINER, sagemaker.role, sagemaker.bucket, tmp_path / "source"],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "AWS_REGION": "us-east-1",
            **sagemaker.environment,
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert got.returncode == 0, got.stderr[-3000:]
    (job,) = (job["name"] for job in sagemaker.jobs() if job["name"].startswith("sdk-"))
    found = sagemaker.wait(job)
    assert found["TrainingJobStatus"] == "Completed"
    assert "rate 0.5 on algo-1" in sagemaker.logs(job)
    assert sagemaker.unpacked(found["ModelArtifacts"]["S3ModelArtifacts"]) == {"model.txt": b"0.5"}


def test_an_image_is_looked_up_on_every_python(tmp_path: Path) -> None:
    """The SDK itself cannot be installed beside Airflow on Python 3.12 and later."""
    (tmp_path / "MLproject").write_text("entry_points: {main: {command: 'true'}}")
    project = load_project(tmp_path)
    job = Job(
        project=project,
        entry_point=project.entry_point("main"),
        parameters=check_parameters(project, project.entry_point("main"), {}),
        variables={},
        workspace=tmp_path,
        cache=Cache(BUILD / "cache"),
    )
    image = choose_image(job, {"framework": "pytorch", "version": "2.6"}, "ml.m5.large", "eu-west-1", print)
    assert image.endswith("/pytorch-training:2.6-cpu-py312"), image
    with pytest.raises(ProjectError, match=r"^backend_config: 'image_uri' cannot be looked up: .*0\.0.*2\.6"):
        choose_image(job, {"framework": "pytorch", "version": "0.0"}, "ml.m5.large", "eu-west-1", print)
