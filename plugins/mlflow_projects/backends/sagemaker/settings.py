"""``backend_config`` of the SageMaker backend, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mlflow_projects.exceptions import ProjectError

_S3_URI = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?", re.DOTALL)
_SECRET_ARN = re.compile(r"arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:\d{12}:secret:[^:]+(:[^:]*){0,3}")


@dataclass(frozen=True)
class SageMakerSettings:
    """Where and how a training job runs; names and units are those of the SageMaker Python SDK where it has one.

    :param role: ARN of the job's IAM role
    :param s3_uri: ``s3://bucket/prefix`` for the packed project and the job's output
    :param image_uri: the training image; or ``{"framework": "pytorch", "version": "2.6"}``, which the optional
        extra ``sagemaker`` looks up; default: ``docker_env.image`` of the project
    :param aws_conn_id: Airflow connection, for tasks whose own ``aws_conn_id`` is the default ``aws_default``
    :param instance_type: for example ``ml.m5.large``
    :param instance_count: how many instances; only the first one writes to the MLflow run
    :param volume_size: GB per instance
    :param max_run: seconds that the command may take
    :param use_spot_instances: managed spot training
    :param max_wait: seconds in all with spot instances, waiting included
    :param checkpoint_s3_uri: synced with ``/opt/ml/checkpoints`` and never cleared; default: an address of the
        task instance below ``s3_uri``, cleared after its success
    :param keep_alive_period_in_seconds: warm pool
    :param max_retry_attempts: how often SageMaker starts again after its own errors
    :param max_queue_seconds: how long the job may wait for its start, on top of ``max_run``
    :param channels: more data channels: S3 URI by name, or a whole ``InputDataConfig`` entry by name
    :param environment: variables for the command; no secrets
    :param secret_environment: variables for the command whose values are in AWS Secrets Manager: ARN by name,
        with an optional ``:json-key``, as Amazon ECS writes it
    :param tracking_uri: what the job calls the tracking server, if that differs from the worker's
    :param python: the image's Python
    :param install_requirements: install the project's ``requirements.txt`` before the command
    :param max_project_mb: how big the project's files may be together
    :param overrides: merged into the request at last, key by key, lists replaced
    """

    role: str = ""
    s3_uri: str = ""
    image_uri: str | Mapping[str, str] = ""
    aws_conn_id: str = ""
    region_name: str = ""
    instance_type: str = "ml.m5.large"
    instance_count: int = 1
    volume_size: int = 30
    max_run: int = 24 * 3600
    use_spot_instances: bool = False
    max_wait: int = 0
    checkpoint_s3_uri: str = ""
    keep_alive_period_in_seconds: int = 0
    max_retry_attempts: int = 0
    max_queue_seconds: int = 3600
    subnets: list[str] = field(default_factory=list)
    security_group_ids: list[str] = field(default_factory=list)
    volume_kms_key: str = ""
    output_kms_key: str = ""
    encrypt_inter_container_traffic: bool = False
    enable_network_isolation: bool = False
    channels: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    secret_environment: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    tracking_uri: str = ""
    python: str = "python3"
    install_requirements: bool = False
    max_project_mb: int = 2048
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def deadline_seconds(self) -> int:
        """After how many seconds a job that has not ended is stopped."""
        return max(self.max_run, self.max_wait) + self.max_queue_seconds


CONFIG_KEYS = tuple(item.name for item in fields(SageMakerSettings))
# What may change a job's result; the others say who pays, where files lie and how long to wait.
IDENTITY_KEYS = (
    "instance_type",
    "instance_count",
    "channels",
    "environment",
    "secret_environment",
    "python",
    "overrides",
)


def settings_from(config: Mapping[str, Any]) -> SageMakerSettings:
    """Read ``backend_config``; keys of other backends are left alone.

    Numbers and booleans may come as text, because they are templated.

    :raises ProjectError: a value is missing or cannot be what it should be
    """
    values: dict[str, Any] = {}
    for item in fields(SageMakerSettings):
        if (value := config.get(item.name)) not in (None, ""):
            values[item.name] = _read(item.name, str(item.type), value)
    settings = SageMakerSettings(**values)
    for name, example in (("role", "arn:aws:iam::123456789012:role/mlflow"), ("s3_uri", "s3://bucket/prefix")):
        if not getattr(settings, name):
            raise ProjectError(
                f"backend_config: the SageMaker backend needs {name!r}, for example {example!r}; give it there "
                "or, for all tasks, in Airflow's option [mlflow_projects] sagemaker."
            )
    for name in ("s3_uri", "checkpoint_s3_uri"):
        value = getattr(settings, name)
        if value and not _S3_URI.fullmatch(value):
            raise ProjectError(f"backend_config: {name!r} must be like s3://bucket/prefix, not {value!r}.")
    for name, arn in settings.secret_environment.items():
        if not _SECRET_ARN.fullmatch(arn):
            raise ProjectError(
                f"backend_config: 'secret_environment.{name}' must be the ARN of a secret in AWS Secrets Manager; "
                "the value itself does not belong there."
            )
    if settings.use_spot_instances and settings.max_wait < settings.max_run:
        raise ProjectError(
            f"backend_config: with 'use_spot_instances', 'max_wait' ({settings.max_wait} s) must be at least "
            f"'max_run' ({settings.max_run} s)."
        )
    if bool(settings.subnets) != bool(settings.security_group_ids):
        raise ProjectError("backend_config: 'subnets' and 'security_group_ids' belong together; give both.")
    return settings


def _read(name: str, kind: str, value: Any) -> Any:
    def refuse(wanted: str) -> ProjectError:
        return ProjectError(f"backend_config: {name!r} must be {wanted}, not {value!r}.")

    if kind == "int":
        try:
            number = int(str(value))
        except ValueError as error:
            raise refuse("a whole number") from error
        if number < 0:
            raise refuse("a whole number, 0 or more")
        return number
    if kind == "bool":
        text = str(value).lower()
        if text not in ("true", "false", "1", "0"):
            raise refuse("true or false")
        return text in ("true", "1")
    if kind == "list[str]":
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            raise refuse("a list")
        return [str(part) for part in value]
    if kind.startswith("Mapping"):
        if not isinstance(value, Mapping):
            raise refuse("a mapping")
        return {str(key): str(part) for key, part in value.items()} if "str, str" in kind else dict(value)
    return dict(value) if isinstance(value, Mapping) and "Mapping" in kind else str(value)
