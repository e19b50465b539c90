"""Requests against botocore's model of SageMaker: what botocore itself lets through."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import botocore.session
import pytest

from mlflow_projects.backends.sagemaker.validation import problems


def good() -> dict[str, Any]:
    return {
        "TrainingJobName": "mlflow-train-1",
        "AlgorithmSpecification": {
            "TrainingImage": "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.6-cpu-py312",
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python3", "/opt/ml/input/data/job/runner.pyz"],
        },
        "RoleArn": "arn:aws:iam::123456789012:role/service-role/SageMaker",
        "HyperParameters": {"alpha": "0.5"},
        "InputDataConfig": [
            {
                "ChannelName": "job",
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/job/"}},
            }
        ],
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/output"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30},
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        "Environment": {"MLFLOW_RUN_ID": "0" * 32},
        "Tags": [{"Key": "équipe", "Value": "données"}],  # its pattern is Java's; AWS checks it
    }


def test_a_good_request_has_no_problems() -> None:
    assert problems("CreateTrainingJob", good()) == []
    spot = {
        "EnableManagedSpotTraining": True,
        "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60},
    }
    assert problems("CreateTrainingJob", {**good(), **spot}) == []
    now = datetime.datetime.now(datetime.timezone.utc)
    assert problems("ListTrainingJobs", {"CreationTimeAfter": now, "MaxResults": 100, "SortBy": "Name"}) == []
    assert problems("ListTrainingJobs", {"CreationTimeAfter": now.timestamp()}) == []


def change(**changes: Any) -> Callable[[dict[str, Any]], None]:
    """Change fields; a double underscore goes one level down."""

    def apply(request: dict[str, Any]) -> None:
        for path, value in changes.items():
            target: Any = request
            *above, last = path.split("__")
            for name in above:
                target = target[int(name) if name.isdigit() else name]
            if value is None:
                del target[last]
            else:
                target[last] = value

    return apply


# An hour until botocore 1.41, then six.
KEEP_ALIVE = int(
    botocore.session.get_session()
    .get_service_model("sagemaker")
    .shape_for("KeepAlivePeriodInSeconds")
    .metadata["max"]
)
NAME_PATTERN = "[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"
BAD: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (change(TrainingJobName="a_b"), f"TrainingJobName: 'a_b' does not match {NAME_PATTERN}"),
    (change(TrainingJobName="ends-"), f"TrainingJobName: 'ends-' does not match {NAME_PATTERN}"),
    (change(TrainingJobName="a" * 64), f"TrainingJobName: 64 characters, at most 63 are taken ('{'a' * 59}…')"),
    (change(TrainingJobName=""), "TrainingJobName: 0 characters, at least 1 are needed ('')"),
    (change(TrainingJobName=7), "TrainingJobName: must be a string, not int (7)"),
    (change(RoleArn=None), "RoleArn: is missing"),
    (change(HyperParametres={}), "HyperParametres: no such field; HyperParameters was meant?"),
    (change(Environment__LONG="s" * 513), "Environment.LONG: 513 characters, at most 512 are taken"),
    (change(Environment={f"V{n}": "" for n in range(101)}), "Environment: 101 entries, at most 100 are taken"),
    (change(Environment={"1A": "s"}), "Environment.1A (the key): '1A' does not match [a-zA-Z_][a-zA-Z0-9_]*"),
    (change(Environment__N=5), "Environment.N: must be a string, not int"),
    (change(HyperParameters__long="s" * 257), "HyperParameters.long: 257 characters, at most 256 are taken"),
    (
        change(HyperParameters__lines="s\ns"),
        "HyperParameters.lines: the value (3 characters) holds a line break, which is not taken",
    ),
    (
        change(AlgorithmSpecification__ContainerArguments=["ok", "x" * 257]),
        f"AlgorithmSpecification.ContainerArguments[1]: 257 characters, at most 256 are taken ('{'x' * 59}…')",
    ),
    (
        change(AlgorithmSpecification__ContainerArguments=[]),
        "AlgorithmSpecification.ContainerArguments: 0 entries, at least 1 are needed",
    ),
    (
        change(AlgorithmSpecification__TrainingInputMode="Files"),
        "AlgorithmSpecification.TrainingInputMode: 'Files' is none of Pipe, File, FastFile",
    ),
    (change(AlgorithmSpecification=None), "AlgorithmSpecification: is missing"),
    (
        change(AlgorithmSpecification__AlgorithmName="other"),
        "AlgorithmSpecification: needs either TrainingImage or AlgorithmName",
    ),
    (change(ResourceConfig__InstanceCount=0), "ResourceConfig.InstanceCount: 0 is less than 1"),
    (change(ResourceConfig__InstanceCount=True), "ResourceConfig.InstanceCount: must be an integer, not bool (True)"),
    (change(ResourceConfig__InstanceType=None), "ResourceConfig.InstanceType: is missing"),
    (
        change(ResourceConfig__KeepAlivePeriodInSeconds=KEEP_ALIVE + 1),
        f"ResourceConfig.KeepAlivePeriodInSeconds: {KEEP_ALIVE + 1} is more than {KEEP_ALIVE}",
    ),
    (
        change(InputDataConfig__0__DataSource__S3DataSource__S3Uri="/tmp/data"),
        "InputDataConfig[0].DataSource.S3DataSource.S3Uri: '/tmp/data' does not match (https|s3)://([^/]+)/?(.*)",
    ),
    (
        change(EnableManagedSpotTraining=True),
        "StoppingCondition.MaxWaitTimeInSeconds: is missing; EnableManagedSpotTraining needs it",
    ),
    (
        change(EnableManagedSpotTraining=True, StoppingCondition__MaxWaitTimeInSeconds=60),
        "StoppingCondition.MaxWaitTimeInSeconds: 60 is less than MaxRuntimeInSeconds, 3600",
    ),
    (
        change(StoppingCondition__MaxWaitTimeInSeconds=3600),
        "StoppingCondition.MaxWaitTimeInSeconds: is for spot only; EnableManagedSpotTraining is not set",
    ),
    (
        change(Tags=[{"Key": "aws:x", "Value": ""}]),
        "Tags[0].Key: 'aws:x' begins with 'aws:', which AWS keeps for itself",
    ),
    (
        change(Tags=[{"Key": "x", "Value": "1"}, {"Key": "x", "Value": "2"}]),
        "Tags[1].Key: 'x' is there twice",
    ),
]


@pytest.mark.parametrize(("spoil", "line"), BAD, ids=[line.partition(":")[0] for _, line in BAD])
def test_each_problem_is_one_line_that_names_field_and_limit(
    spoil: Callable[[dict[str, Any]], None], line: str
) -> None:
    request = good()
    spoil(request)
    assert problems("CreateTrainingJob", request) == [line]


def test_an_instance_type_gets_a_hint() -> None:
    request = good()
    request["ResourceConfig"]["InstanceType"] = "ml.m5.larg"
    (line,) = problems("CreateTrainingJob", request)
    assert "'ml.m5.larg' is none of the" in line
    assert "ml.m5.large" in line


def test_private_values_are_never_shown() -> None:
    request = good()
    private = "hunter2"
    request["Environment"] = {"A": private * 100, "B": [private], "C-": private}
    request["HyperParameters"] = {"A": private * 100, "B": {"x": private}, "C": f"{private}\n"}
    found = problems("CreateTrainingJob", request)
    assert len(found) == 6
    assert private not in "\n".join(found)
