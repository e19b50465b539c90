"""A training job, seen from whoever looks after it: its output, its end, how it is stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlflow_projects.backends.aws import Clients, aws_errors, error_code
from mlflow_projects.backends.contract import Handle, JobStatus, Running
from mlflow_projects.backends.object_store import object_store
from mlflow_projects.backends.sagemaker.request import LOG_GROUP, bucket_of, job_key
from mlflow_projects.backends.sagemaker.watch import DELETED, ENDED, JobLogs, Transitions, verdict
from mlflow_projects.tracking.answers import json_object

_SHORTEST_PAUSE = 1.0
KNOWN_AFTER_SECONDS = 120  # by then, AWS knows a job everywhere
_LATE_LOGS_SECONDS = 6
_TROUBLE_EVERY_SECONDS = 60


@dataclass(frozen=True)
class SageMakerHandle(Handle):
    """What identifies a training job.

    :param aws_conn_id: Airflow connection by which it was made
    :param s3_uri: below which its files are
    :param submitted: seconds since 1970
    :param deadline_seconds: after how many seconds it is given up
    :param checkpoint: the task instance's key if its checkpoint is ours to clear, else ""
    """

    job_name: str
    region: str
    aws_conn_id: str | None
    submitted: float
    s3_uri: str = ""
    instance_type: str = ""
    deadline_seconds: int = 0
    checkpoint: str = ""

    @property
    def deadline(self) -> float:
        """When the job is given up: seconds since 1970."""
        return self.submitted + self.deadline_seconds


class TrainingJob(Running):
    """A training job.

    :param log: takes a line about the job's state
    :param poll_interval: seconds between two looks
    """

    def __init__(
        self, handle: SageMakerHandle, clients: Clients, log: Callable[[str], None], poll_interval: float
    ) -> None:
        self.handle = handle
        self.is_cancelled = False
        self._clients = clients
        self._log = log
        self._poll_interval = poll_interval
        self._stopping: list[threading.Thread] = []
        self._trouble_shown = float("-inf")

    def status(self) -> JobStatus:
        """Return where the job stands; while AWS cannot be asked, wait for it, up to the job's deadline."""
        found = None
        while found is None:
            found = self._describe()
            if found is None:
                if self.is_cancelled or time.time() > self.handle.deadline:
                    return JobStatus("running")
                self.pause(self._poll_interval)
        return verdict(found)

    def _describe(self) -> dict[str, Any] | None:
        """Return the job's description, or None if AWS cannot be asked now; the job goes on meanwhile."""
        handle = self.handle
        try:
            return dict(self._clients["sagemaker"].describe_training_job(TrainingJobName=handle.job_name))
        except aws_errors() as error:
            self._clients.forget_if_expired(error)
            is_old = time.time() - handle.submitted > KNOWN_AFTER_SECONDS
            if error_code(error) == "ValidationException" and is_old:
                name = handle.job_name
                return {"TrainingJobName": name, "TrainingJobStatus": "Stopped", "SecondaryStatus": DELETED}
            self._tell(f"AWS cannot be asked about the training job, which goes on: {error}")
            return None

    def _tell(self, trouble: str) -> None:
        """Log what is wrong, but not at every look."""
        if time.monotonic() - self._trouble_shown > _TROUBLE_EVERY_SECONDS:
            self._log(trouble)
            self._trouble_shown = time.monotonic()

    def cancel(self) -> None:
        """Ask AWS to stop the job and return at once.

        Called from a signal handler too, which may have interrupted a request: so the call is made in a thread, and
        :meth:`finish_cancel` waits for it.
        """
        self.is_cancelled = True
        thread = threading.Thread(target=self.stop, name="stop-training-job")
        thread.start()
        self._stopping.append(thread)

    def finish_cancel(self, seconds: float) -> None:
        """Wait for the requests of :meth:`cancel`."""
        until = time.monotonic() + seconds
        for thread in self._stopping:
            thread.join(max(0.0, until - time.monotonic()))

    def stop(self) -> None:
        """Ask AWS to stop the job; harmless when it already ended.

        With the client that looks after the job, which threads may share: on a busy worker a new one takes longer
        than Airflow gives a task that it stops.
        """
        name = self.handle.job_name
        try:
            try:
                self._clients["sagemaker"].stop_training_job(TrainingJobName=name)
            except aws_errors() as error:
                if not self._clients.forget_if_expired(error):
                    raise
                self._clients["sagemaker"].stop_training_job(TrainingJobName=name)
            self._log(f"Training job {name}: asked to stop")
        except aws_errors() as error:
            if error_code(error) != "ValidationException":  # it ended before, or never began
                self._log(f"Training job {name} cannot be stopped: {error}")

    def lines(self) -> Iterator[str]:
        """Yield the output's lines until the job ends; states go to the log, a line per change.

        While AWS cannot be asked, the job goes on, and so does the waiting; only the job's deadline ends it.
        """
        handle = self.handle
        name = handle.job_name
        transitions = Transitions(name, handle.submitted)
        output = JobLogs(self._clients, handle.submitted)
        ended = False
        while not (ended or self.is_cancelled):
            if found := self._describe():
                if line := transitions.line(found["TrainingJobStatus"], found.get("SecondaryStatus", "")):
                    self._log(line)
                ended = found["TrainingJobStatus"] in ENDED
            yield from (line for _, line in output.fetch([name]))
            if output.trouble:
                self._tell(f"The job's output cannot be read from CloudWatch: {output.trouble}")
            if not ended and time.time() > handle.deadline:
                self._log(f"Training job {name}: has not ended {handle.deadline_seconds} s after its submission")
                self.cancel()
            self.pause(0 if ended else self._next_look())
        yield from self._late_lines(output, name)

    def _next_look(self) -> float:
        """Return the seconds to wait: a young job is looked at more often, so that short steps stay short."""
        age = time.time() - self.handle.submitted
        return min(self._poll_interval, max(_SHORTEST_PAUSE, age / 10))

    def _late_lines(self, output: JobLogs, name: str) -> Iterator[str]:
        """Yield what CloudWatch takes in after the end."""
        until = time.monotonic() + (0 if self.is_cancelled else _LATE_LOGS_SECONDS)
        quiet = 0
        while quiet < 2:
            lines = [line for _, line in output.fetch([name])]
            yield from lines
            quiet = 0 if lines else quiet + 1
            if time.monotonic() > until:
                return
            self.pause(1)

    def pause(self, seconds: float) -> None:
        """Wait, but no longer than until the job is cancelled."""
        until = time.monotonic() + seconds
        while not self.is_cancelled and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.25))

    def last_lines(self, count: int) -> list[str]:
        """Return the last lines of the first instance's output; [] if CloudWatch cannot be asked."""
        logs = self._clients["logs"]
        try:
            streams = logs.describe_log_streams(
                logGroupName=LOG_GROUP, logStreamNamePrefix=f"{self.handle.job_name}/algo-1-"
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

    def parameters(self) -> Mapping[str, str]:
        """Return the job's parameters, read from its spec on S3; {} if that is gone."""
        uri = self.handle.s3_uri
        try:
            answer = self._clients["s3"].get_object(
                Bucket=bucket_of(uri), Key=job_key(uri, self.handle.job_name, "spec.json")
            )
            spec = json_object(answer["Body"].read()) or {}
        except aws_errors():
            return {}
        found = spec.get("parameters")
        return {name: str(value) for name, value in found.items()} if isinstance(found, dict) else {}

    def clear_checkpoint(self) -> None:
        """Remove the checkpoint of the task instance, but not one whose address the settings name."""
        if key := self.handle.checkpoint:
            store = object_store(f"{self.handle.s3_uri.rstrip('/')}/checkpoints", self.handle.aws_conn_id)
            store.remove(list(store.changes(f"{key}/")))


def described(clients: Clients, name: str) -> dict[str, Any] | None:
    """Return the job's description, or None if there is no such job."""
    try:
        return dict(clients["sagemaker"].describe_training_job(TrainingJobName=name))
    except aws_errors() as error:
        if error_code(error) == "ValidationException":  # AWS: "Requested resource not found."
            return None
        raise
