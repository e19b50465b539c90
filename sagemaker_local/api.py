"""SageMaker's operations on training jobs."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from sagemaker_local.jobs import TrainingJob
from sagemaker_local.lifecycle import Fleet
from sagemaker_local.machine import OPT_ML, below_opt_ml
from sagemaker_local.options import ACCOUNT
from sagemaker_local.rules import refusals
from sagemaker_local.storage import Storage, split_uri
from sagemaker_local.wire import Call, ServiceError

_ECR = re.compile(r"(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/([^:@]+)(?:[:@].*)?")
_DEFAULT_PAGE = 10
_SORT_KEYS: Mapping[str, Callable[[TrainingJob], Any]] = {
    "Name": lambda job: job.name,
    "CreationTime": lambda job: job.created,
    "Status": lambda job: job.status,
}
_TIME_FILTERS: Mapping[str, Callable[[TrainingJob, float], bool]] = {
    "CreationTimeAfter": lambda job, moment: job.created > moment,
    "CreationTimeBefore": lambda job, moment: job.created < moment,
    "LastModifiedTimeAfter": lambda job, moment: job.modified > moment,
    "LastModifiedTimeBefore": lambda job, moment: job.modified < moment,
}


class TrainingApi:
    """Answers the operations that moto does not execute; all others are moto's."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._operations: dict[str, Callable[[str, dict[str, Any]], object]] = {
            "CreateTrainingJob": self._create,
            "DescribeTrainingJob": lambda region, request: self._job(region, request).describe(),
            "ListTrainingJobs": self._list,
            "StopTrainingJob": self._stop,
        }
        self._tagging: dict[str, Callable[[TrainingJob, dict[str, Any]], object]] = {
            "ListTags": lambda job, _: {"Tags": _as_list(job.tags)},
            "AddTags": self._add_tags,
            "DeleteTags": self._delete_tags,
        }

    def answer(self, call: Call) -> bytes | None:
        """Return the answer's body, or None if the operation is moto's.

        :raises ServiceError: what the service would answer
        """
        if call.service != "sagemaker" or call.operation not in self._operations | self._tagging:
            return None
        try:
            request = json.loads(call.body() or b"{}")
        except ValueError:
            raise ServiceError("SerializationException", "the request is no JSON") from None
        if call.operation in self._tagging:
            job = self._job_of_arn(call.region, request.get("ResourceArn", ""))
            return None if job is None else json.dumps(self._tagging[call.operation](job, request)).encode()
        if found := refusals(call.operation, request):
            noun = "error" if len(found) == 1 else "errors"
            raise ServiceError("ValidationException", f"{len(found)} validation {noun} detected: {'; '.join(found)}")
        result = self._operations[call.operation](call.region, request)
        return json.dumps(result).encode() if result is not None else b""

    def _create(self, region: str, request: dict[str, Any]) -> object:
        name = request["TrainingJobName"]
        arn = f"arn:aws:sagemaker:{region}:{ACCOUNT}:training-job/{name}"
        in_use = ServiceError(
            "ResourceInUse",
            "Training job names must be unique within an AWS account and region, and a training job with this name "
            f"already exists ({arn})",
        )
        if self._fleet.get(region, name):
            raise in_use
        _refuse_what_is_not_shown(request)
        self._check_image(request)
        self._check_channels(region, request)
        job = TrainingJob(request, region)
        if not self._fleet.add(job):
            raise in_use
        return {"TrainingJobArn": job.arn}

    def _check_image(self, request: dict[str, Any]) -> None:
        found = _ECR.fullmatch(request["AlgorithmSpecification"].get("TrainingImage", ""))
        if not found or found[1] != ACCOUNT:
            return
        ecr = self._fleet.context.client("ecr", found[2])
        try:
            ecr.describe_repositories(repositoryNames=[found[3]])
        except ecr.exceptions.RepositoryNotFoundException:
            raise ServiceError(
                "ValidationException",
                f"Cannot find repository: {found[3]} in registry ID: {found[1]} Please check if your ECR repository "
                f"exists and role {request['RoleArn']} has proper pull permissions for SageMaker: "
                "ecr:BatchCheckLayerAvailability, ecr:BatchGetImage, ecr:GetDownloadUrlForLayer",
            ) from None

    def _check_channels(self, region: str, request: dict[str, Any]) -> None:
        storage = Storage(self._fleet.context, region)
        for channel in request.get("InputDataConfig", ()):
            uri = channel["DataSource"]["S3DataSource"]["S3Uri"]
            bucket = split_uri(uri)[0]
            reason = ""
            try:
                if storage.objects(uri):
                    continue
            except storage.errors as error:
                reason = f" Error message from S3: {error}"
            raise ServiceError(
                "ValidationException",
                f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that the bucket '
                f"exists in the selected region ({region}), that objects exist under that S3 prefix, and that the "
                f'role "{request["RoleArn"]}" has "s3:ListBucket" permissions on bucket "{bucket}".{reason}',
            )

    def _stop(self, region: str, request: dict[str, Any]) -> object:
        job = self._job(region, request)
        if not job.ask_stop():
            raise ServiceError(
                "ValidationException",
                f"The request was rejected because the training job is in status {job.status}.",
            )
        return None

    def _list(self, region: str, request: dict[str, Any]) -> object:
        jobs = self._fleet.jobs(region)
        if part := request.get("NameContains"):
            jobs = [job for job in jobs if part in job.name]
        if status := request.get("StatusEquals"):
            jobs = [job for job in jobs if job.status == status]
        for name, fits in _TIME_FILTERS.items():
            if name in request:
                jobs = [job for job in jobs if fits(job, float(request[name]))]
        jobs.sort(key=_SORT_KEYS[request.get("SortBy", "CreationTime")])
        if request.get("SortOrder") == "Descending":
            jobs.reverse()
        start, size = _read_token(request.get("NextToken")), request.get("MaxResults", _DEFAULT_PAGE)
        more = {"NextToken": _make_token(start + size)} if start + size < len(jobs) else {}
        return {"TrainingJobSummaries": [job.summary() for job in jobs[start : start + size]], **more}

    def _job(self, region: str, request: dict[str, Any]) -> TrainingJob:
        job = self._fleet.get(region, request["TrainingJobName"])
        if job is None:
            raise ServiceError("ValidationException", "Requested resource not found.")
        return job

    def _job_of_arn(self, region: str, arn: str) -> TrainingJob | None:
        kind, _, name = arn.rpartition(":")[2].partition("/")
        return self._fleet.get(region, name) if kind == "training-job" else None

    def _add_tags(self, job: TrainingJob, request: dict[str, Any]) -> object:
        with job.lock:
            job.tags |= {tag["Key"]: tag["Value"] for tag in request["Tags"]}
            return {"Tags": _as_list(job.tags)}

    def _delete_tags(self, job: TrainingJob, request: dict[str, Any]) -> object:
        with job.lock:
            for key in request["TagKeys"]:
                job.tags.pop(key, None)
        return {}


def _refuse_what_is_not_shown(request: dict[str, Any]) -> None:
    """Refuse, in clear words, what SageMaker takes and this stand-in cannot do."""

    def refuse(what: str) -> None:
        raise ServiceError("ValidationException", f"sagemaker-local: this stand-in does not know {what}.")

    if "ServerlessJobConfig" in request:
        refuse("serverless jobs")
    if "TrainingImage" not in request["AlgorithmSpecification"]:
        refuse("marketplace algorithms; give a TrainingImage")
    if "InstanceCount" not in request["ResourceConfig"]:
        refuse("instance groups and preferences")
    mode = request["AlgorithmSpecification"]["TrainingInputMode"]
    for channel in request.get("InputDataConfig", ()):
        source = channel["DataSource"].get("S3DataSource")
        if source is None or source["S3DataType"] != "S3Prefix":
            refuse(f"the data source of channel {channel['ChannelName']!r}; it knows S3Prefix")
        if channel.get("InputMode", mode) == "Pipe":
            refuse(f"input mode Pipe of channel {channel['ChannelName']!r}; it knows File and FastFile")
        if channel["ChannelName"] in (".", ".."):
            refuse(f"a channel of the name {channel['ChannelName']!r}")
    for field, value in request.items():
        for config in value if isinstance(value, list) else [value]:
            if isinstance(config, dict) and below_opt_ml(config.get("LocalPath", OPT_ML)) is None:
                refuse(f"a {field}.LocalPath outside {OPT_ML}")


def _as_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _make_token(start: int) -> str:
    return base64.urlsafe_b64encode(f"start {start}".encode()).decode()


def _read_token(token: str | None) -> int:
    if not token:
        return 0
    try:
        return int(base64.urlsafe_b64decode(token).decode().removeprefix("start "))
    except ValueError:
        raise ServiceError("ValidationException", "Invalid NextToken.") from None
