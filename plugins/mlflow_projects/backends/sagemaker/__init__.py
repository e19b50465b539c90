"""The SageMaker backend: the command runs as a training job.

The worker packs the project and puts it on S3, together with a spec and a small runner; SageMaker copies
them into the container and starts the runner. One attempt is one job: the job's name follows from the
attempt, so that whoever looks for it, finds it, and nobody starts it twice.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow_projects.backends.aws import DEFAULT_CONNECTION, Clients, aws_errors, error_code
from mlflow_projects.backends.base import Handle, Job, JobStatus, check_config_keys
from mlflow_projects.backends.checkpoints import remove_old
from mlflow_projects.backends.object_store import object_store
from mlflow_projects.backends.sagemaker.container import (
    check_environment,
    command_of,
    packages_of,
    public_variables,
)
from mlflow_projects.backends.sagemaker.images import choose_image
from mlflow_projects.backends.sagemaker.package import FILE_NAME, Package, pack
from mlflow_projects.backends.sagemaker.request import (
    LOG_GROUP,
    Plan,
    bucket_of,
    build_request,
    build_spec,
    checkpoints_uri,
    console_url,
    job_key,
    job_name,
    logs_url,
    project_key,
    runner_file,
)
from mlflow_projects.backends.sagemaker.settings import IDENTITY_KEYS, SageMakerSettings, settings_from
from mlflow_projects.backends.sagemaker.validation import problems
from mlflow_projects.backends.sagemaker.watch import DELETED, ENDED, JobLogs, Transitions, verdict
from mlflow_projects.exceptions import ProjectError, StepFailedError

_NO_SHA = "0" * 64
_CREATE_TRIES = 6  # with pauses of 31 s in all, besides those of botocore
_SHORTEST_PAUSE = 1.0
_KNOWN_AFTER_SECONDS = 120  # by then, AWS knows a job everywhere
_SHOWN = 2000  # characters of a command
_REFUSED = frozenset({"ValidationException", "AccessDeniedException", "AccessDenied", "NoSuchBucket"})
_LATE_LOGS_SECONDS = 6
_TROUBLE_EVERY_SECONDS = 60


class SageMakerBackend:
    """Runs commands as SageMaker training jobs; ``backend_config`` holds the fields of ``SageMakerSettings``.

    :param log: takes a line about the job's state
    :param aws_conn_id: Airflow connection to AWS
    :param poll_interval: seconds between two looks at the job
    """

    remote = True

    def __init__(self, log: Callable[[str], None], aws_conn_id: str | None, poll_interval: float) -> None:
        self._log = log
        self._aws_conn_id = aws_conn_id
        self._poll_interval = poll_interval
        self._clients: dict[str, Clients] = {}
        self._cancelled = False
        self._stopping: list[threading.Thread] = []
        self._trouble_shown = float("-inf")

    # --- before the job

    def check(self, job: Job) -> None:
        """Refuse what cannot run as a training job, before anything is started; asks nothing of AWS."""
        check_config_keys(job.config)
        settings = settings_from(job.config)
        check_environment(job, settings)
        command, _ = command_of(job)
        request = build_request(self._plan(job, settings, _NO_SHA))
        if found := problems("CreateTrainingJob", request):
            raise ProjectError(f"SageMaker would refuse the training job: {found[0]}.")
        shown = json.dumps([command, request, dict(settings.environment), job.parameters.as_record()], default=str)
        if job.redact(shown) != shown:
            raise ProjectError(
                "A parameter or a setting holds a secret that Airflow knows (from a connection, say); a training job "
                "would show it. Put it into AWS Secrets Manager and name its ARN in backend_config: "
                "secret_environment."
            )

    def environment(self, job: Job) -> Mapping[str, str]:
        """Return what is installed before the command, if anything."""
        return {"mlflow.project.env": job.env_manager or "local"}

    def identity(self, job: Job) -> Mapping[str, Any]:
        """Return the image's name, what is installed in it, and those settings that may change the result."""
        settings = settings_from(job.config)
        plan = self._plan(job, settings, _NO_SHA)
        chosen = {name: getattr(settings, name) for name in IDENTITY_KEYS}
        return {**chosen, "image": plan.image_uri, "packages": packages_of(job, settings)}

    def plan(self, job: Job) -> Handle:
        """Return what identifies the job."""
        settings = settings_from(job.config)
        if settings.aws_conn_id and self._aws_conn_id == DEFAULT_CONNECTION:
            self._aws_conn_id = settings.aws_conn_id
        return {
            "backend": "sagemaker",
            "job_name": job_name(job.label, job.attempt_id),
            "region": self._region(settings.region_name),
            "aws_conn_id": self._aws_conn_id,
            "s3_uri": settings.s3_uri,
            "instance_type": settings.instance_type,
            "submitted": round(time.time(), 3),
            "deadline_seconds": settings.deadline_seconds,
            "checkpoint": "" if settings.checkpoint_s3_uri else job.task_key,
        }

    def stage(self, job: Job) -> None:
        """Pack the project and put it on S3 with all that the job reads."""
        handle, settings = self.plan(job), settings_from(job.config)
        if job.project.environment == "python_env" and job.env_manager is None:
            self._log("The project's python_env is not installed: the image has what it needs, or set env_manager.")
        package = pack(job.project.root, job.workspace / FILE_NAME, settings.max_project_mb * 2**20)
        plan = self._plan(job, settings, package.sha256)
        with _explained(plan.job_name):
            self._upload(self._clients_of(handle), job, plan, package)
        if handle["checkpoint"]:
            remove_old(object_store(checkpoints_uri(settings), handle["aws_conn_id"]), job.checkpoint_days, self._log)
        self._staged = plan

    def submit(self, job: Job) -> Handle:
        """Create the job, exactly once; :meth:`stage` comes first."""
        handle, plan = self.plan(job), self._staged
        request = build_request(plan)
        if found := problems("CreateTrainingJob", request):
            raise ProjectError(f"SageMaker would refuse the training job: {found[0]}.")
        with _explained(plan.job_name):
            self._create(self._clients_of(handle), request, job.environment.get("MLFLOW_RUN_ID", ""))
        return handle

    def _plan(self, job: Job, settings: SageMakerSettings, sha256: str) -> Plan:
        return Plan(
            job_name=job_name(job.label, job.attempt_id),
            settings=settings,
            image_uri=choose_image(
                job.project,
                settings.image_uri,
                settings.instance_type,
                self._region(settings.region_name) if isinstance(settings.image_uri, Mapping) else "",
            ),
            sha256=sha256,
            parameters=job.parameters.as_record(),
            environment=public_variables(job, settings),
            checkpoint_uri=f"{checkpoints_uri(settings)}/{job.task_key}" if job.task_key else "",
        )

    def _upload(self, clients: Clients, job: Job, plan: Plan, package: Package) -> None:
        settings = plan.settings
        bucket, key = bucket_of(settings.s3_uri), project_key(plan)
        size = f"{package.size / 2**20:.1f} MB, {package.files} files"
        if self._is_there(clients, bucket, key):
            self._log(f"The project ({size}) is on S3 already: s3://{bucket}/{key}")
        else:
            self._log(f"Uploading the project ({size}) to s3://{bucket}/{key}")
            _upload_file(clients, package.path, bucket, key)
        command, inputs = command_of(job)
        spec = build_spec(plan, command, inputs, plan.environment, packages_of(job, settings))
        body = json.dumps(spec, ensure_ascii=False).encode()
        clients["s3"].put_object(Bucket=bucket, Key=job_key(settings.s3_uri, plan.job_name, "spec.json"), Body=body)
        clients["s3"].put_object(
            Bucket=bucket,
            Key=job_key(settings.s3_uri, plan.job_name, "runner.py"),
            Body=runner_file().read_bytes(),
        )
        self._log(f"Running: {command[:_SHOWN]}{' ...' if len(command) > _SHOWN else ''}")

    @staticmethod
    def _is_there(clients: Clients, bucket: str, key: str) -> bool:
        try:
            clients["s3"].head_object(Bucket=bucket, Key=key)
        except aws_errors() as error:
            if error_code(error) in ("404", "NoSuchKey", "403"):  # 403: without the right to list, S3 says this
                return False
            raise
        return True

    def _create(self, clients: Clients, request: Mapping[str, Any], run_id: str) -> None:
        """Create the job. An answer that says nothing is no harm: the name makes a second creation impossible."""
        name = request["TrainingJobName"]
        for attempt in range(1, _CREATE_TRIES + 1):
            try:
                clients["sagemaker"].create_training_job(**request)
                self._log(f"Training job {name}: created")
                return
            except aws_errors() as error:
                clients.forget_if_expired(error)
                code = error_code(error)
                if code == "ResourceInUse" and self._is_ours(clients, name, run_id):
                    self._log(f"Training job {name}: exists already, attached")
                    return
                if code in _REFUSED or attempt == _CREATE_TRIES or self._cancelled:
                    raise
                self._log(f"Training job {name}: not created yet ({code or type(error).__name__}), trying again")
                self._pause(2 ** (attempt - 1))

    @staticmethod
    def _is_ours(clients: Clients, name: str, run_id: str) -> bool:
        """Tell whether the job of that name works for this run; False if AWS cannot be asked now.

        :raises ProjectError: it belongs to somebody else
        """
        try:
            found = _described(clients, name)
        except aws_errors():
            return False
        if found is not None and found.get("Environment", {}).get("MLFLOW_RUN_ID") != run_id:
            raise ProjectError(
                f"There is a training job {name} already that belongs to somebody else; clear the task to try with "
                "another name."
            )
        return found is not None

    # --- the job

    def poll(self, handle: Handle) -> JobStatus:
        """Return where the job stands; while AWS cannot be asked, wait for it, up to the job's deadline."""
        found = None
        while found is None:
            found = self._describe(handle)
            if found is None:
                if self._cancelled or time.time() > _deadline(handle):
                    return JobStatus("running")
                self._pause(self._poll_interval)
        return verdict(found)

    def _describe(self, handle: Handle) -> dict[str, Any] | None:
        """Return the job's description, or None if AWS cannot be asked now; the job goes on meanwhile."""
        clients = self._clients_of(handle)
        try:
            return dict(clients["sagemaker"].describe_training_job(TrainingJobName=handle["job_name"]))
        except aws_errors() as error:
            clients.forget_if_expired(error)
            is_old = time.time() - handle["submitted"] > _KNOWN_AFTER_SECONDS
            if error_code(error) == "ValidationException" and is_old:
                name = handle["job_name"]
                return {"TrainingJobName": name, "TrainingJobStatus": "Stopped", "SecondaryStatus": DELETED}
            self._tell(f"AWS cannot be asked about the training job, which goes on: {error}")
            return None

    def _tell(self, trouble: str) -> None:
        """Log what is wrong, but not at every look."""
        if time.monotonic() - self._trouble_shown > _TROUBLE_EVERY_SECONDS:
            self._log(trouble)
            self._trouble_shown = time.monotonic()

    def exists(self, handle: Handle) -> bool:
        """Tell whether the job was ever submitted.

        :raises StepFailedError: AWS cannot be asked now
        """
        try:
            return _described(self._clients_of(handle), handle["job_name"]) is not None
        except aws_errors() as error:
            raise StepFailedError(f"AWS cannot be asked about {handle['job_name']}: {error}") from None

    def cancel(self, handle: Handle) -> None:
        """Ask AWS to stop the job and return at once.

        Called from a signal handler too, which may have interrupted a request: so the call is made in a thread, and
        :meth:`finish_cancel` waits for it.
        """
        self._cancelled = True
        thread = threading.Thread(target=self.stop, args=(handle,), name="stop-training-job")
        thread.start()
        self._stopping.append(thread)

    def finish_cancel(self, seconds: float) -> None:
        """Wait for the requests of :meth:`cancel`."""
        until = time.monotonic() + seconds
        for thread in self._stopping:
            thread.join(max(0.0, until - time.monotonic()))

    def stop(self, handle: Handle) -> None:
        """Ask AWS to stop the job; harmless when it already ended.

        With the client that looks after the job, which threads may share: on a busy worker a new one takes longer
        than Airflow gives a task that it stops.
        """
        clients = self._clients_of(handle)
        try:
            try:
                clients["sagemaker"].stop_training_job(TrainingJobName=handle["job_name"])
            except aws_errors() as error:
                if not clients.forget_if_expired(error):
                    raise
                clients["sagemaker"].stop_training_job(TrainingJobName=handle["job_name"])
            self._log(f"Training job {handle['job_name']}: asked to stop")
        except aws_errors() as error:
            if error_code(error) != "ValidationException":  # it ended before, or never began
                self._log(f"Training job {handle['job_name']} cannot be stopped: {error}")

    def logs(self, handle: Handle) -> Iterator[str]:
        """Yield the output's lines until the job ends; states go to the log, a line per change.

        While AWS cannot be asked, the job goes on, and so does the waiting; only the job's deadline ends it.
        """
        name = handle["job_name"]
        transitions = Transitions(name, handle["submitted"])
        output = JobLogs(self._clients_of(handle), handle["submitted"])
        ended = False
        while not (ended or self._cancelled):
            if found := self._describe(handle):
                if line := transitions.line(found["TrainingJobStatus"], found.get("SecondaryStatus", "")):
                    self._log(line)
                ended = found["TrainingJobStatus"] in ENDED
            yield from (line for _, line in output.fetch([name]))
            if output.trouble:
                self._tell(f"The job's output cannot be read from CloudWatch: {output.trouble}")
            if not ended and time.time() > _deadline(handle):
                self._log(f"Training job {name}: has not ended {handle['deadline_seconds']} s after its submission")
                self.cancel(handle)
            self._pause(0 if ended else self._next_look(handle))
        yield from self._late_lines(output, name)

    def _next_look(self, handle: Handle) -> float:
        """Return the seconds to wait: a young job is looked at more often, so that short steps stay short."""
        age = time.time() - float(handle["submitted"])
        return min(self._poll_interval, max(_SHORTEST_PAUSE, age / 10))

    def _late_lines(self, output: JobLogs, name: str) -> Iterator[str]:
        """Yield what CloudWatch takes in after the end."""
        until = time.monotonic() + (0 if self._cancelled else _LATE_LOGS_SECONDS)
        quiet = 0
        while quiet < 2:
            lines = [line for _, line in output.fetch([name])]
            yield from lines
            quiet = 0 if lines else quiet + 1
            if time.monotonic() > until:
                return
            self._pause(1)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._cancelled and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.25))

    def last_lines(self, handle: Handle, count: int) -> list[str]:
        """Return the last lines of the first instance's output; [] if CloudWatch cannot be asked."""
        logs = self._clients_of(handle)["logs"]
        try:
            streams = logs.describe_log_streams(
                logGroupName=LOG_GROUP, logStreamNamePrefix=f"{handle['job_name']}/algo-1-"
            )["logStreams"]
            events: list[str] = []
            for stream in streams[-1:]:
                answer = logs.get_log_events(
                    logGroupName=LOG_GROUP, logStreamName=stream["logStreamName"], limit=count, startFromHead=False
                )
                events = [event["message"].rstrip("\n") for event in answer["events"]]
        except aws_errors():
            return []
        return events[-count:]

    def parameters(self, handle: Handle) -> Mapping[str, str]:
        """Return the job's parameters, read from its spec on S3; {} if that is gone."""
        key = job_key(handle["s3_uri"], handle["job_name"], "spec.json")
        try:
            answer = self._clients_of(handle)["s3"].get_object(Bucket=bucket_of(handle["s3_uri"]), Key=key)
            spec = json.loads(answer["Body"].read())
        except aws_errors():
            return {}
        return {str(name): str(value) for name, value in spec.get("parameters", {}).items()}

    def clear_checkpoint(self, handle: Handle) -> None:
        """Remove the checkpoint of the task instance, but not one whose address the settings name."""
        if key := handle.get("checkpoint"):
            store = object_store(f"{handle['s3_uri'].rstrip('/')}/checkpoints", handle.get("aws_conn_id"))
            store.remove(list(store.changes(f"{key}/")))

    def tags(self, handle: Handle) -> Mapping[str, str]:
        """Return what the MLflow run says of the job from its first moment."""
        return {
            "sagemaker.job_name": handle["job_name"],
            "sagemaker.instance_type": handle["instance_type"],
            "sagemaker.job_url": console_url(handle["region"], handle["job_name"]),
            "sagemaker.logs_url": logs_url(handle["region"], handle["job_name"]),
        }

    def _clients_of(self, handle: Handle) -> Clients:
        region = handle["region"]
        if region not in self._clients:
            self._clients[region] = Clients(handle.get("aws_conn_id"), region)
        return self._clients[region]

    def _region(self, given: str) -> str:
        from botocore.exceptions import NoRegionError

        clients = Clients(self._aws_conn_id, given or None)
        try:
            return self._clients.setdefault(clients.region, clients).region
        except NoRegionError:
            raise ProjectError(
                "No AWS region is known; give backend_config 'region_name', or set it in the Airflow connection "
                f"{self._aws_conn_id!r} or in AWS_DEFAULT_REGION."
            ) from None


def _deadline(handle: Handle) -> float:
    return float(handle["submitted"]) + float(handle["deadline_seconds"])


def _described(clients: Clients, name: str) -> dict[str, Any] | None:
    """Return the job's description, or None if there is no such job."""
    try:
        return dict(clients["sagemaker"].describe_training_job(TrainingJobName=name))
    except aws_errors() as error:
        if error_code(error) == "ValidationException":  # AWS: "Requested resource not found."
            return None
        raise


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn AWS's errors into ours: what another try may mend, and what it cannot."""
    try:
        yield
    except aws_errors() as error:
        message = f"The training job {name} cannot be started: {error}"
        if error_code(error) in _REFUSED:
            raise ProjectError(message) from None
        raise StepFailedError(message) from None


def _upload_file(clients: Clients, path: Path, bucket: str, key: str) -> None:
    from boto3.exceptions import S3UploadFailedError

    try:
        clients["s3"].upload_file(str(path), bucket, key)
    except S3UploadFailedError as error:
        raise StepFailedError(f"The project cannot be uploaded to s3://{bucket}/{key}: {error}") from None
