"""From a job that is decided to a training job that was created, exactly once."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlflow_projects.backends.aws import Clients, aws_errors, error_code
from mlflow_projects.backends.contract import DurableLaunch, Job, OpenRun, Running
from mlflow_projects.backends.object_store import object_store, remove_old_checkpoints
from mlflow_projects.backends.sagemaker.container import public_variables
from mlflow_projects.backends.sagemaker.package import FILE_NAME, Package, pack
from mlflow_projects.backends.sagemaker.request import (
    Plan,
    bucket_of,
    build_request,
    build_spec,
    checkpoints_uri,
    console_url,
    job_key,
    logs_url,
    project_key,
    runner_archive,
)
from mlflow_projects.backends.sagemaker.settings import IDENTITY_KEYS
from mlflow_projects.backends.sagemaker.training_job import SageMakerHandle, TrainingJob, described
from mlflow_projects.backends.sagemaker.validation import problems
from mlflow_projects.exceptions import ProjectError, StepFailedError

_CREATE_TRIES = 6  # with pauses of 31 s in all, besides those of botocore
_SHOWN = 2000  # characters of a command
_REFUSED = frozenset({"ValidationException", "AccessDeniedException", "AccessDenied", "NoSuchBucket"})
_NO_ROOM = frozenset({"ResourceLimitExceeded", "ThrottlingException", "Throttling"})


@dataclass
class TrainingLaunch(DurableLaunch):
    """A training job, all decided but for what is known when its run is open.

    :param attach: returns the job of a handle
    :param command: with tokens in the places of ``inputs``, which the job downloads
    :param packages: to be installed before the command, as lines for pip
    """

    job: Job
    plan: Plan
    command: str
    inputs: list[dict[str, str]]
    packages: list[str]
    handle: SageMakerHandle
    clients: Clients
    attach: Callable[[SageMakerHandle], TrainingJob]
    log: Callable[[str], None]

    def __post_init__(self) -> None:
        handle = self.handle
        self.tags = {"mlflow.project.env": self.job.env_manager or "local"}
        self.job_tags = {
            "sagemaker.job_name": handle.job_name,
            "sagemaker.instance_type": handle.instance_type,
            "sagemaker.job_url": console_url(handle.region, handle.job_name),
            "sagemaker.logs_url": logs_url(handle.region, handle.job_name),
        }

    def identity(self) -> Mapping[str, Any]:
        """Return the image's name, what is installed in it, and those settings that may change the result."""
        chosen = {name: getattr(self.plan.settings, name) for name in IDENTITY_KEYS}
        return {**chosen, "image": self.plan.image_uri, "packages": self.packages}

    def postponed(self) -> TrainingLaunch:
        """Return the same launch with a deadline that counts from now."""
        return replace(self, handle=replace(self.handle, submitted=round(time.time(), 3)))

    def start(self, run: OpenRun, begun: Callable[[Running], None]) -> Running:
        """Pack the project, put it on S3 with all that the job reads, and create the job, exactly once."""
        settings = self.plan.settings
        job = replace(self.job, variables={**self.job.variables, **run.variables})
        if job.project.environment_kind == "python_env" and job.env_manager is None:
            self.log("The project's python_env is not installed: the image has what it needs, or set env_manager.")
        package = pack(job.project.root, job.workspace / FILE_NAME, settings.max_project_mb * 2**20)
        plan = replace(self.plan, sha256=package.sha256, variables=public_variables(job, settings))
        with _explained(plan.job_name):
            self._upload(plan, package)
        if self.handle.checkpoint:
            store = object_store(checkpoints_uri(settings), self.handle.aws_conn_id)
            remove_old_checkpoints(store, job.checkpoint_days, self.log)
        request = build_request(plan)
        if found := problems("CreateTrainingJob", request):
            raise ProjectError(f"SageMaker would refuse the training job: {found[0]}.")
        running = self.attach(self.handle)
        begun(running)  # a request may be on its way from here on
        with _explained(plan.job_name):
            self._create(request, run.variables.get("MLFLOW_RUN_ID", ""), running)
        return running

    def _upload(self, plan: Plan, package: Package) -> None:
        settings, clients = plan.settings, self.clients
        bucket, key = bucket_of(settings.s3_uri), project_key(plan)
        size = f"{package.size / 2**20:.1f} MB, {package.files} files"
        if _is_there(clients, bucket, key):
            self.log(f"The project ({size}) is on S3 already: s3://{bucket}/{key}")
        else:
            self.log(f"Uploading the project ({size}) to s3://{bucket}/{key}")
            _upload_file(clients, package.path, bucket, key)
        spec = build_spec(plan, self.command, self.inputs, self.packages)
        body = json.dumps(spec, ensure_ascii=False).encode()
        clients["s3"].put_object(Bucket=bucket, Key=job_key(settings.s3_uri, plan.job_name, "spec.json"), Body=body)
        clients["s3"].put_object(
            Bucket=bucket,
            Key=job_key(settings.s3_uri, plan.job_name, "runner.pyz"),
            Body=runner_archive(),
        )
        self.log(f"Running: {self.command[:_SHOWN]}{' ...' if len(self.command) > _SHOWN else ''}")

    def _create(self, request: Mapping[str, Any], run_id: str, running: TrainingJob) -> None:
        """Create the job. An answer that says nothing is no harm: the name makes a second creation impossible."""
        name = request["TrainingJobName"]
        for attempt in range(1, _CREATE_TRIES + 1):
            try:
                self.clients["sagemaker"].create_training_job(**request)
                self.log(f"Training job {name}: created")
                return
            except aws_errors() as error:
                self.clients.forget_if_expired(error)
                code = error_code(error)
                if code == "ResourceInUse" and _is_ours(self.clients, name, run_id):
                    self.log(f"Training job {name}: exists already, attached")
                    return
                if code in _REFUSED or attempt == _CREATE_TRIES or running.is_cancelled:
                    raise
                self.log(f"Training job {name}: not created yet ({code or type(error).__name__}), trying again")
                running.pause(2 ** (attempt - 1))


def _is_there(clients: Clients, bucket: str, key: str) -> bool:
    try:
        clients["s3"].head_object(Bucket=bucket, Key=key)
    except aws_errors() as error:
        if error_code(error) in ("404", "NoSuchKey", "403"):  # 403: without the right to list, S3 says this
            return False
        raise
    return True


def _is_ours(clients: Clients, name: str, run_id: str) -> bool:
    """Tell whether the job of that name works for this run; False if AWS cannot be asked now.

    :raises ProjectError: it belongs to somebody else
    """
    try:
        found = described(clients, name)
    except aws_errors():
        return False
    if found is not None and found.get("Environment", {}).get("MLFLOW_RUN_ID") != run_id:
        raise ProjectError(
            f"There is a training job {name} already that belongs to somebody else; clear the task to try with "
            "another name."
        )
    return found is not None


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn AWS's errors into ours: what another try may mend, and what it cannot."""
    try:
        yield
    except aws_errors() as error:
        message = f"The training job {name} cannot be started: {error}"
        if error_code(error) in _REFUSED:
            raise ProjectError(message) from error
        raise StepFailedError(message, cause="capacity" if error_code(error) in _NO_ROOM else "unknown") from error


def _upload_file(clients: Clients, path: Path, bucket: str, key: str) -> None:
    from boto3.exceptions import S3UploadFailedError

    try:
        clients["s3"].upload_file(str(path), bucket, key)
    except S3UploadFailedError as error:
        raise StepFailedError(f"The project cannot be uploaded to s3://{bucket}/{key}: {error}") from error
