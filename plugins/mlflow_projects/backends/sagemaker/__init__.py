"""The SageMaker backend: the command runs as a training job.

The worker packs the project and puts it on S3, together with a spec and a small runner; SageMaker copies
them into the container and starts the runner. One attempt is one job: the job's name follows from the
attempt, so that whoever looks for it, finds it, and nobody starts it twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Hashable, Mapping, Sequence
from typing import ClassVar

from mlflow_projects.backends.aws import DEFAULT_CONNECTION, Clients, aws_errors
from mlflow_projects.backends.contract import DurableBackend, Host, Job, News
from mlflow_projects.backends.sagemaker.container import check_environment, command_of, packages_of, public_variables
from mlflow_projects.backends.sagemaker.images import choose_image
from mlflow_projects.backends.sagemaker.launch import TrainingLaunch
from mlflow_projects.backends.sagemaker.poll import JobList
from mlflow_projects.backends.sagemaker.request import (
    Plan,
    build_request,
    checkpoints_uri,
    console_url,
    job_name,
    logs_url,
)
from mlflow_projects.backends.sagemaker.settings import CONFIG_KEYS, settings_from
from mlflow_projects.backends.sagemaker.training_job import SageMakerHandle, TrainingJob, described
from mlflow_projects.backends.sagemaker.validation import problems
from mlflow_projects.exceptions import ProjectError, StepFailedError

_NO_SHA = "0" * 64


class SageMakerBackend(DurableBackend):
    """Runs commands as SageMaker training jobs; ``backend_config`` holds the fields of ``SageMakerSettings``."""

    config_keys: ClassVar = CONFIG_KEYS
    link_names: ClassVar = ("SageMaker job", "CloudWatch logs")
    handle_type: ClassVar = SageMakerHandle
    late_lines_seconds: ClassVar = 3.0

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._clients: dict[tuple[str | None, str | None], Clients] = {}
        self._lists: dict[Hashable, JobList] = {}

    def prepare(self, job: Job) -> TrainingLaunch:
        """Decide what the training job will be; AWS is asked for nothing but the region of the connection."""
        settings = settings_from(job.config)
        check_environment(job, settings)
        command, inputs = command_of(job)
        given = self.host.aws_conn_id
        connection = settings.aws_conn_id if settings.aws_conn_id and given == DEFAULT_CONNECTION else given
        clients = self._connected(connection, settings.region_name)
        region = _region(clients)
        self._clients[connection, region] = clients  # to stop the job, a new one would take too long
        plan = Plan(
            job_name=job_name(job.label, job.attempt_id),
            settings=settings,
            image_uri=choose_image(job, settings.image_uri, settings.instance_type, region, self.host.log),
            sha256=_NO_SHA,
            parameters=job.parameters.as_record(),
            variables=public_variables(job, settings),
            checkpoint_uri=f"{checkpoints_uri(settings)}/{job.task_key}" if job.task_key else "",
        )
        request = build_request(plan)
        if found := problems("CreateTrainingJob", request):
            raise ProjectError(f"SageMaker would refuse the training job: {found[0]}.")
        shown = json.dumps(
            [command, request, dict(settings.environment), plan.variables, job.parameters.as_record()], default=str
        )
        if job.redact(shown) != shown:
            raise ProjectError(
                "A parameter or a setting holds a secret that Airflow knows (from a connection, say); a training job "
                "would show it. Put it into AWS Secrets Manager and name its ARN in backend_config: "
                "secret_environment."
            )
        handle = SageMakerHandle(
            backend="sagemaker",
            job_name=plan.job_name,
            region=region,
            aws_conn_id=connection,
            submitted=round(time.time(), 3),
            s3_uri=settings.s3_uri,
            instance_type=settings.instance_type,
            deadline_seconds=settings.deadline_seconds,
            checkpoint="" if settings.checkpoint_s3_uri else job.task_key,
        )
        packages = packages_of(job, settings)
        return TrainingLaunch(job, plan, command, inputs, packages, handle, clients, self.attach, self.host.log)

    def attach(self, handle: SageMakerHandle) -> TrainingJob:
        """Return the training job of a handle without asking whether it is there."""
        return TrainingJob(handle, self._clients_of(handle), self.host.log, self.host.poll_interval)

    def exists(self, handle: SageMakerHandle) -> bool:
        """Tell whether the job was ever submitted."""
        try:
            return described(self._clients_of(handle), handle.job_name) is not None
        except aws_errors() as error:
            raise StepFailedError(f"AWS cannot be asked about {handle.job_name}: {error}") from error

    def stop(self, handle: SageMakerHandle) -> None:
        """Ask AWS to stop the job; harmless when it already ended."""
        self.attach(handle).stop()

    def deadline(self, handle: SageMakerHandle) -> float:
        """Return when the job is given up."""
        return handle.deadline

    def links(self, handle: SageMakerHandle) -> Mapping[str, str]:
        """Return the pages of the job and of its output in the AWS console."""
        job = handle.region, handle.job_name
        return dict(zip(self.link_names, (console_url(*job), logs_url(*job)), strict=True))

    def group(self, handle: SageMakerHandle) -> Hashable:
        """Return connection and region, whose jobs are asked about together."""
        return handle.aws_conn_id, handle.region

    def poll_many(self, handles: Sequence[SageMakerHandle]) -> Sequence[News]:
        """Return the jobs' states and output, with two requests however many jobs there are."""
        key = self.group(handles[0])
        if key not in self._lists:
            self._lists[key] = JobList(self._clients_of(handles[0]))
        return self._lists[key].look(handles)

    def _clients_of(self, handle: SageMakerHandle) -> Clients:
        return self._connected(handle.aws_conn_id, handle.region)

    def _connected(self, connection: str | None, region: str | None) -> Clients:
        return self._clients.setdefault((connection, region or None), Clients(connection, region or None))


def _region(clients: Clients) -> str:
    from botocore.exceptions import NoRegionError

    try:
        return clients.region
    except NoRegionError as error:
        raise ProjectError(
            "No AWS region is known; give backend_config 'region_name', or set it in the Airflow connection "
            f"{clients.aws_conn_id!r} or in AWS_DEFAULT_REGION."
        ) from error
