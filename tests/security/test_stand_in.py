"""The stand-in for SageMaker answers to its own name, and keeps jobs to their folder (issue 22, row 10)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sagemaker_local.api import _refuse_what_is_not_shown
from sagemaker_local.jobs import TrainingJob
from sagemaker_local.machine import Instance, below_opt_ml
from sagemaker_local.options import Context, Knobs
from sagemaker_local.server import StandIn
from sagemaker_local.storage import _files
from sagemaker_local.wire import ServiceError


def context(folder: Path) -> Context:
    return Context(Knobs(home=folder), "http://127.0.0.1:1", "internal")


def request(**more: Any) -> dict[str, Any]:
    algorithm = {"TrainingImage": "i", "TrainingInputMode": "File"}
    return {
        "TrainingJobName": "job",
        "AlgorithmSpecification": algorithm,
        "ResourceConfig": {"InstanceCount": 1},
        **more,
    }


@pytest.mark.parametrize(
    "path", ["/opt/ml/../../etc", "/opt/ml/checkpoints/../../../root", "/opt/ml/..", "../x", "", "/etc", "/opt/mlx"]
)
@pytest.mark.parametrize("field", ["CheckpointConfig", "TensorBoardOutputConfig", "DebugRuleConfigurations"])
def test_a_path_out_of_opt_ml_is_refused(path: str, field: str) -> None:
    config: Any = {"LocalPath": path, "S3Uri": "s3://b/c"}
    with pytest.raises(ServiceError, match=rf"{field}\.LocalPath outside /opt/ml"):
        _refuse_what_is_not_shown(request(**{field: [config] if field.endswith("s") else config}))


@pytest.mark.parametrize("name", [".", ".."])
def test_a_channel_is_a_folder_of_its_own(name: str) -> None:
    channel = {"ChannelName": name, "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/c"}}}
    with pytest.raises(ServiceError, match="a channel of the name"):
        _refuse_what_is_not_shown(request(InputDataConfig=[channel]))


def test_a_path_below_opt_ml_is_taken_as_it_is_meant(tmp_path: Path) -> None:
    asked = request(CheckpointConfig={"LocalPath": "/opt/ml/x/../checkpoints//a", "S3Uri": "s3://b/c"})
    _refuse_what_is_not_shown(asked)
    instance = Instance(context(tmp_path), TrainingJob(asked, "us-east-1"), 0, tmp_path / "job")
    assert instance._checkpoints() == (tmp_path / "job/ml/checkpoints/a", "s3://b/c")
    assert below_opt_ml("python3") is None


def test_a_link_out_of_a_job_is_no_result(tmp_path: Path) -> None:
    outside, base = tmp_path / "shadow", tmp_path / "job" / "ml"
    outside.write_text("root:secret")
    (base / "model" / "below").mkdir(parents=True)
    (base / "output").mkdir()
    (base / "model" / "real").write_text("model")
    (base / "model" / "inner").symlink_to("real")
    (base / "model" / "below" / "stolen").symlink_to(outside)
    (base / "output" / "failure").symlink_to(outside)
    assert [file.name for file in _files(base / "model")] == ["inner", "real"]
    instance = Instance(context(tmp_path), TrainingJob(request(), "us-east-1"), 0, tmp_path / "job")
    assert instance.failure() == ""


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:4599", 200),
        ("localhost:4599", 200),
        ("LOCALHOST", 200),
        ("[::1]:4599", 200),
        ("10.0.0.7:4599", 200),  # an address, which no name server can make lead elsewhere
        ("bucket.localhost:4599", 200),
        ("sagemaker:4599", 200),
        ("attacker.example:4599", 403),
        ("attacker.example", 403),
        ("127.0.0.1.attacker.example:4599", 403),
        ("localhost.attacker.example", 403),
        ("notlocalhost", 403),
        ("localhost@attacker.example", 403),
    ],
)
def test_only_its_own_name_is_answered(host: str, status: int, tmp_path: Path) -> None:
    said: list[str] = []
    stand_in = StandIn(context(tmp_path), lambda environ, start: [], ("0.0.0.0", "sagemaker"))
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/_sagemaker_local/health", "HTTP_HOST": host}
    body = b"".join(stand_in(environ, lambda line, headers: said.append(line)))
    assert said == [f"{status} {'OK' if status == 200 else 'Forbidden'}"]
    assert json.loads(body) == {"ready": True} if status == 200 else b"--allow-host" in body
