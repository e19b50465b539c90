"""What goes to AWS: names, the request, addresses; and what must not go there."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_projects.backends.sagemaker.request import (
    Plan,
    build_request,
    build_spec,
    console_url,
    job_key,
    job_name,
    logs_url,
    merge,
    project_key,
)
from mlflow_projects.backends.sagemaker.settings import settings_from
from mlflow_projects.backends.sagemaker.validation import problems
from mlflow_projects.exceptions import ProjectError

AWS_PATTERN = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")  # of TrainingJobName
SHA = "0123456789abcdef" * 4
ROLE = "arn:aws:iam::123456789012:role/mlflow"
IMAGE = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/mlflow-projects/sagemaker-cpu:mlflow-3.17.2"
SECRET = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:tracking-AbCdEf:password"
FULL: dict[str, Any] = {
    "instance_type": "ml.g5.xlarge",
    "instance_count": 2,
    "volume_size": 100,
    "max_run": 3600,
    "use_spot_instances": True,
    "max_wait": 7200,
    "checkpoint_s3_uri": "s3://bucket/checkpoints/wine",
    "max_retry_attempts": 3,
    "subnets": ["subnet-0123456789abcdef0"],
    "security_group_ids": ["sg-0123456789abcdef0"],
    "volume_kms_key": "alias/volume",
    "output_kms_key": "alias/output",
    "encrypt_inter_container_traffic": True,
    "enable_network_isolation": True,
    "channels": {
        "data": "s3://bucket/data",
        "lists": {
            "DataSource": {"S3DataSource": {"S3DataType": "ManifestFile", "S3Uri": "s3://bucket/list.manifest"}},
            "InputMode": "FastFile",
        },
    },
    "environment": {"EPOCHS": "3", "LONG": "x" * 5000},
    "secret_environment": {"MLFLOW_TRACKING_PASSWORD": SECRET},
    "tags": {"team": "wine"},
}
VARIABLES = {
    "MLFLOW_RUN_ID": "a" * 32,
    "MLFLOW_EXPERIMENT_ID": "7",
    "MLFLOW_TRACKING_URI": "https://mlflow.example.com",
    "MLFLOW_TRACKING_USERNAME": "me",
}


def plan(config: dict[str, Any] | None = None, **changes: Any) -> Plan:
    settings = settings_from({"role": ROLE, "s3_uri": "s3://bucket/team/mlflow/", **(config or {})})
    content: dict[str, Any] = {
        "job_name": job_name("dag-step", "0190c1de-7b5f-7c3e-9d2a-1234567890ab"),
        "settings": settings,
        "image_uri": IMAGE,
        "sha256": SHA,
        "parameters": {"alpha": "0.5"},
        "variables": VARIABLES,
        **changes,
    }
    return Plan(**content)


@settings(deadline=None)
@given(st.text(max_size=80), st.uuids(), st.uuids())
def test_job_names(label: str, attempt: uuid.UUID, other: uuid.UUID) -> None:
    name = job_name(label, str(attempt))
    assert len(name) <= 63
    assert name.startswith("mlflow-")
    assert AWS_PATTERN.fullmatch(name)
    assert name == job_name(label, str(attempt)), "whoever looks for it, finds it"
    assert name.endswith(attempt.hex), "also if somebody renames the task"
    assert (name == job_name(label, str(other))) is (attempt == other)


def test_people_recognize_a_job_by_its_name() -> None:
    attempt = "0190c1de-7b5f-7c3e-9d2a-1234567890ab"
    assert job_name("wine-train[2]", attempt) == f"mlflow-wine-train-2-{attempt.replace('-', '')}"
    assert job_name("a_very_long_dag_name_for_wine-train", attempt).startswith("mlflow-dag-name-for-wine-train-0190")


def test_the_request_of_a_full_configuration() -> None:
    request = build_request(plan(FULL))
    assert problems("CreateTrainingJob", request) == []
    channels = {channel["ChannelName"]: channel for channel in request["InputDataConfig"]}
    uris = {name: channel["DataSource"]["S3DataSource"]["S3Uri"] for name, channel in channels.items()}
    name = request["TrainingJobName"]
    assert uris == {
        "project": f"s3://bucket/team/mlflow/projects/{SHA}/",
        "job": f"s3://bucket/team/mlflow/jobs/{name}/",
        "data": "s3://bucket/data",
        "lists": "s3://bucket/list.manifest",
    }
    assert request["OutputDataConfig"] == {
        "S3OutputPath": "s3://bucket/team/mlflow/output",
        "KmsKeyId": "alias/output",
    }
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200}
    assert request["RetryStrategy"] == {"MaximumRetryAttempts": 3}
    assert request["VpcConfig"]["Subnets"] == ["subnet-0123456789abcdef0"]
    assert request["Tags"] == [{"Key": "team", "Value": "wine"}]
    assert set(request["Environment"]) == {"MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_TRACKING_URI"}
    assert "secretsmanager" not in str(request), "Describe shows a request to everyone"

    warm = {key: value for key, value in FULL.items() if key not in ("use_spot_instances", "max_wait")}
    request = build_request(plan({**warm, "keep_alive_period_in_seconds": 600}))
    assert problems("CreateTrainingJob", request) == []
    assert request["ResourceConfig"]["KeepAlivePeriodInSeconds"] == 600
    assert "MaxWaitTimeInSeconds" not in request["StoppingCondition"]
    assert problems("CreateTrainingJob", build_request(plan())) == []


def test_the_spec_holds_what_the_request_must_not() -> None:
    made = plan(FULL)
    inputs = [{"token": "@@x@@", "uri": "s3://a/b"}]
    spec = build_spec(made, "python train.py", inputs, ["-r requirements.txt"])
    assert spec["environment"] == {**VARIABLES, **FULL["environment"]}
    assert spec["secret_environment"] == {"MLFLOW_TRACKING_PASSWORD": SECRET}
    assert (spec["run_id"], spec["experiment_id"], spec["restarts"]) == ("a" * 32, "7", True)
    assert build_spec(plan(), "true", [], [])["restarts"] is False


@pytest.mark.parametrize(
    "uri", ["s3://bucket", "s3://bucket/", "s3://bucket/a", "s3://bucket/a/b//", "s3://bucket//a"]
)
def test_the_job_reads_where_the_worker_writes(uri: str) -> None:
    made = plan({"s3_uri": uri})
    keys = [project_key(made), job_key(uri, made.job_name, "spec.json")]
    for channel, key in zip(build_request(made)["InputDataConfig"], keys, strict=True):
        assert f"s3://bucket/{key}".rpartition("/")[0] + "/" == channel["DataSource"]["S3DataSource"]["S3Uri"]


def test_overrides_have_the_last_word() -> None:
    overrides = {
        "ResourceConfig": {"VolumeSizeInGB": None, "InstanceCount": 4},
        "StoppingCondition": {"MaxPendingTimeInSeconds": 7200},
        "Tags": [{"Key": "only", "Value": "this"}],
        "RetryStrategy": None,
        "Environment": {"MINE": "1", "MLFLOW_EXPERIMENT_ID": None},
        "ProfilerConfig": {"DisableProfiler": True, "S3OutputPath": None},
    }
    request = build_request(plan({**FULL, "overrides": overrides}))
    resources = request["ResourceConfig"]
    assert "VolumeSizeInGB" not in resources
    assert (resources["InstanceCount"], resources["InstanceType"]) == (4, "ml.g5.xlarge")
    assert request["StoppingCondition"]["MaxPendingTimeInSeconds"] == 7200
    assert request["StoppingCondition"]["MaxRuntimeInSeconds"] == 3600
    assert request["Tags"] == [{"Key": "only", "Value": "this"}]
    assert "RetryStrategy" not in request
    assert request["Environment"]["MINE"] == "1"
    assert "MLFLOW_EXPERIMENT_ID" not in request["Environment"]
    assert request["ProfilerConfig"] == {"DisableProfiler": True}, "None removes, also in what is new"
    assert problems("CreateTrainingJob", request) == []
    with pytest.raises(ProjectError, match="must not change TrainingJobName"):
        build_request(plan({"overrides": {"TrainingJobName": "mine"}}))
    for environment in (None, {"MLFLOW_RUN_ID": "mine"}):
        with pytest.raises(ProjectError, match="must keep MLFLOW_RUN_ID"):
            build_request(plan({"overrides": {"Environment": environment}}))


def test_merge_leaves_what_it_merges_alone() -> None:
    base, over = {"a": {"b": 1, "c": [1]}}, {"a": {"c": [2], "d": 0}, "e": False, "f": ""}
    assert merge(base, over) == {"a": {"b": 1, "c": [2], "d": 0}, "e": False, "f": ""}
    assert (base, over) == ({"a": {"b": 1, "c": [1]}}, {"a": {"c": [2], "d": 0}, "e": False, "f": ""})
    assert merge({"a": 1}, {"a": {"b": None}}) == {"a": {}}


def test_hyperparameters_are_the_short_ones_and_at_most_a_hundred() -> None:
    odd = {"long": "x" * 257, "lines": "a\nb", "carriage": "a\rb", "separator": "a\u2028b"}
    short = {"exact": "x" * 256, "empty": "", "unicode": "日本語"}
    request = build_request(plan(parameters={**odd, **short}))
    assert request["HyperParameters"] == short
    many = {f"k{number}": str(number) for number in range(150)}
    request = build_request(plan(parameters={**odd, **many}))
    assert len(request["HyperParameters"]) == 100
    assert problems("CreateTrainingJob", request) == []


def test_variables_that_are_too_long_are_only_in_the_spec() -> None:
    long = {**VARIABLES, "MLFLOW_TRACKING_URI": "https://mlflow.example.com/" + "x" * 500, "MLFLOW_EXPERIMENT_ID": ""}
    assert build_request(plan(variables=long))["Environment"] == {"MLFLOW_RUN_ID": "a" * 32}


@pytest.mark.parametrize(
    ("region", "domain"),
    [
        ("eu-west-1", "eu-west-1.console.aws.amazon.com"),
        ("cn-north-1", "cn-north-1.console.amazonaws.cn"),
        ("us-gov-west-1", "us-gov-west-1.console.amazonaws-us-gov.com"),
    ],
)
def test_pages_of_the_console(region: str, domain: str) -> None:
    assert console_url(region, "job") == f"https://{domain}/sagemaker/home?region={region}#/jobs/job"
    group = "$252Faws$252Fsagemaker$252FTrainingJobs"
    assert logs_url(region, "job") == (
        f"https://{domain}/cloudwatch/home?region={region}#logsV2:log-groups/log-group/{group}"
        "$3FlogStreamNameFilter$3Djob$252F"
    )
