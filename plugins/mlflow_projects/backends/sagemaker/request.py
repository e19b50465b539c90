"""What is sent to SageMaker: the request, and beside it on S3 the spec that our runner reads.

A request shows in Describe to everyone with read access and its values are short, so it holds names and
addresses only. Commands, parameters and variables of any length are in the spec; secrets are in neither.
"""

from __future__ import annotations

import io
import re
import zipapp
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mlflow_projects.backends.sagemaker.package import FILE_NAME
from mlflow_projects.backends.sagemaker.settings import SageMakerSettings
from mlflow_projects.exceptions import ProjectError
from mlflow_projects.public_uri import public_text

JOB_NAME_PREFIX = "mlflow-"
LOG_GROUP = "/aws/sagemaker/TrainingJobs"
_INPUT = "/opt/ml/input/data"
_MAX_NAME = 63
_MAX_HYPERPARAMETERS, _MAX_HYPERPARAMETER = 100, 256
_MAX_VARIABLE = 512
_SHOWN_VARIABLES = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_TRACKING_URI")


@dataclass(frozen=True)
class Plan:
    """A job, all decided.

    :param sha256: of the packed project
    :param image_uri: the training image
    :param parameters: as text, for the console
    :param variables: the MLflow variables of the attempt
    :param checkpoint_uri: kept in step with ``/opt/ml/checkpoints`` if the settings name none; "" for none
    """

    job_name: str
    settings: SageMakerSettings
    image_uri: str
    sha256: str
    parameters: Mapping[str, str]
    variables: Mapping[str, str]
    checkpoint_uri: str = ""


def job_name(label: str, attempt_id: str) -> str:
    """Return the job's name, the same whenever it is asked for the same attempt.

    :param label: for people; what does not fit is cut
    :param attempt_id: unique per attempt
    """
    unique = re.sub(r"[^a-zA-Z0-9]", "", attempt_id)[-32:]
    room = _MAX_NAME - len(JOB_NAME_PREFIX) - len(unique) - 1
    shown = re.sub(r"[^a-zA-Z0-9]+", "-", label)[-room:].strip("-")
    return f"{JOB_NAME_PREFIX}{shown}-{unique}" if shown else f"{JOB_NAME_PREFIX}{unique}"


def build_request(plan: Plan) -> dict[str, Any]:
    """Return the arguments of CreateTrainingJob."""
    given = plan.settings
    base = _base(given)
    checkpoint_uri = given.checkpoint_s3_uri or plan.checkpoint_uri
    request: dict[str, Any] = {
        "TrainingJobName": plan.job_name,
        "AlgorithmSpecification": {
            "TrainingImage": plan.image_uri,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": [given.python, f"{_INPUT}/job/runner.pyz"],
        },
        "RoleArn": given.role,
        "HyperParameters": _hyperparameters(plan.parameters),
        "InputDataConfig": [
            _channel("project", f"{base}/projects/{plan.sha256}/"),
            _channel("job", f"{base}/jobs/{plan.job_name}/"),
            *(
                _channel(name, value) if isinstance(value, str) else {"ChannelName": name, **value}
                for name, value in given.channels.items()
            ),
        ],
        "OutputDataConfig": {"S3OutputPath": f"{base}/output", **_present(KmsKeyId=given.output_kms_key)},
        "ResourceConfig": {
            "InstanceType": given.instance_type,
            "InstanceCount": given.instance_count,
            "VolumeSizeInGB": given.volume_size,
            **_present(
                VolumeKmsKeyId=given.volume_kms_key,
                KeepAlivePeriodInSeconds=given.keep_alive_period_in_seconds,
            ),
        },
        "StoppingCondition": {
            "MaxRuntimeInSeconds": given.max_run,
            **({"MaxWaitTimeInSeconds": given.max_wait} if given.use_spot_instances else {}),
        },
        "EnableManagedSpotTraining": given.use_spot_instances,
        "EnableNetworkIsolation": given.enable_network_isolation,
        "EnableInterContainerTrafficEncryption": given.encrypt_inter_container_traffic,
        "Environment": {
            name: plan.variables[name]
            for name in _SHOWN_VARIABLES
            if len(plan.variables.get(name, "")) in range(1, _MAX_VARIABLE + 1)
        },
        "Tags": [{"Key": key, "Value": value} for key, value in given.tags.items()],
        **_present(
            CheckpointConfig={"S3Uri": checkpoint_uri} if checkpoint_uri else None,
            VpcConfig={"Subnets": given.subnets, "SecurityGroupIds": given.security_group_ids}
            if given.subnets
            else None,
            RetryStrategy={"MaximumRetryAttempts": given.max_retry_attempts} if given.max_retry_attempts else None,
        ),
    }
    if "TrainingJobName" in given.overrides:
        raise ProjectError("backend_config: 'overrides' must not change TrainingJobName; it identifies the attempt.")
    changed = given.overrides.get("Environment", {})
    if not isinstance(changed, Mapping) or "MLFLOW_RUN_ID" in changed:
        raise ProjectError(
            "backend_config: 'overrides' must keep MLFLOW_RUN_ID in Environment; it shows whose job it is."
        )
    merged: dict[str, Any] = merge(request, given.overrides)
    return merged


def merge(base: Any, over: Any) -> Any:
    """Return ``base`` with ``over`` merged in: mappings key by key (None removes a key), all else replaced."""
    if not isinstance(over, Mapping):
        return over
    base = base if isinstance(base, Mapping) else {}
    merged = {**base, **{key: merge(base.get(key), value) for key, value in over.items()}}
    return {key: value for key, value in merged.items() if value is not None}


def build_spec(plan: Plan, command: str, inputs: list[dict[str, str]], install: list[str]) -> dict[str, Any]:
    """Return what our runner reads in the container; see the ``runner`` for each key."""
    given = plan.settings
    return {
        "version": 1,
        "sha256": plan.sha256,
        "command": command,
        "inputs": inputs,
        "environment": {**plan.variables, **given.environment},
        "secret_environment": dict(given.secret_environment),
        "install": install,
        "run_id": plan.variables.get("MLFLOW_RUN_ID", ""),
        "experiment_id": plan.variables.get("MLFLOW_EXPERIMENT_ID", ""),
        "restarts": given.use_spot_instances or given.max_retry_attempts > 0,
        "parameters": dict(plan.parameters),
    }


def project_key(plan: Plan) -> str:
    """Return where the packed project goes, without the bucket."""
    return f"{_prefix(plan.settings.s3_uri)}projects/{plan.sha256}/{FILE_NAME}"


def job_key(s3_uri: str, name: str, file: str) -> str:
    """Return where a file of a job goes, without the bucket."""
    return f"{_prefix(s3_uri)}jobs/{name}/{file}"


def checkpoints_uri(given: SageMakerSettings) -> str:
    """Return below which address each task instance has its checkpoint, if the settings name none."""
    return f"{_base(given)}/checkpoints"


def _base(given: SageMakerSettings) -> str:
    return f"s3://{bucket_of(given.s3_uri)}/{_prefix(given.s3_uri)}".rstrip("/")


def bucket_of(s3_uri: str) -> str:
    """Return the bucket of an S3 URI."""
    return s3_uri.removeprefix("s3://").partition("/")[0]


def runner_archive() -> bytes:
    """Return our runner as one file that Python runs; it is sent along."""
    archive = io.BytesIO()
    zipapp.create_archive(
        Path(__file__).parent,
        archive,
        filter=lambda path: path.parts[0] == "runner" and path.suffix == ".py",
        main="runner.job:main",
    )
    with zipfile.ZipFile(archive, "a") as added:  # what the runner shares with the worker
        added.writestr("mlflow_projects/__init__.py", "")
        for name in ("public_uri.py", "spellings.py"):
            added.write(Path(__file__).parents[2] / name, f"mlflow_projects/{name}")
    return archive.getvalue()


def console_url(region: str, name: str) -> str:
    """Return the job's page in the AWS console."""
    return f"https://{region}.console.{_domain(region)}/sagemaker/home?region={region}#/jobs/{name}"


def logs_url(region: str, name: str) -> str:
    """Return the job's log streams in the AWS console, which wants its fragment encoded twice."""

    def twice(text: str) -> str:
        return quote(quote(text, safe=""), safe="").replace("%", "$")

    return (
        f"https://{region}.console.{_domain(region)}/cloudwatch/home?region={region}"
        f"#logsV2:log-groups/log-group/{twice(LOG_GROUP)}$3FlogStreamNameFilter$3D{twice(f'{name}/')}"
    )


def _domain(region: str) -> str:
    if region.startswith("cn-"):
        return "amazonaws.cn"
    return "amazonaws-us-gov.com" if region.startswith("us-gov-") else "aws.amazon.com"


def _prefix(s3_uri: str) -> str:
    rest = s3_uri.removeprefix("s3://").partition("/")[2].strip("/")
    return f"{rest}/" if rest else ""


def _channel(name: str, uri: str) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


def _hyperparameters(parameters: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters that the console can show; the command gets all of them from the spec."""
    short = {
        key: value
        for key, value in ((key, public_text(value)) for key, value in parameters.items())
        if len(key) <= _MAX_HYPERPARAMETER and len(value) <= _MAX_HYPERPARAMETER and not _has_lines(key + value)
    }
    return dict(list(short.items())[:_MAX_HYPERPARAMETERS])


def _has_lines(text: str) -> bool:
    """Tell whether a text holds a line break of any kind, which AWS's pattern ``.*`` does not take."""
    return text.splitlines() not in ([], [text])


def _present(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value}
