"""What becomes of a training job: its states as lines, its output, its verdict."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from mlflow_projects.backends.aws import Clients, aws_errors, error_code
from mlflow_projects.backends.contract import JobStatus
from mlflow_projects.backends.sagemaker.request import JOB_NAME_PREFIX, LOG_GROUP
from mlflow_projects.exceptions import Cause

DELETED = "Deleted"  # our own word: Describe does not know the job any more
ENDED = ("Completed", "Failed", "Stopped")
_EXIT_CODE = re.compile(r"exit code:? (\d+)")
_STOPPED_BY_LIMIT = {
    "MaxRuntimeExceeded": "it ran longer than 'max_run'",
    "MaxWaitTimeExceeded": "it took longer than 'max_wait'",
    DELETED: "AWS knows it no more (it was deleted, or the connection leads to another account or region)",
}
# CloudWatch takes in lines late and out of order; so each look goes back a little and drops what was seen.
_OVERLAP_MS = 30_000
_REMEMBERED = 20_000
_PAGES_AT_ONCE = 20


def verdict(description: Mapping[str, Any]) -> JobStatus:
    """Read DescribeTrainingJob's answer; a job that was stopped is never a success."""
    state, name = description["TrainingJobStatus"], description["TrainingJobName"]
    metrics = _cost(description)
    if state == "Completed":
        return JobStatus("succeeded", 0, metrics=metrics)
    if state == "Failed":
        reason = description.get("FailureReason") or "SageMaker gives no reason"
        found = _EXIT_CODE.findall(reason)  # AWS's own stands last, after what the command wrote
        code = int(found[-1]) if found else None
        said = f"training job {name} failed: {reason}"
        return JobStatus("failed", code, said, metrics=metrics, cause=None if found else _cause_of(reason))
    if state == "Stopped":
        last = description.get("SecondaryStatus", "")
        why = _STOPPED_BY_LIMIT.get(last, "somebody stopped it")
        said, cause = f"training job {name} was stopped: {why}", _cause_of_limit(last, description)
        return JobStatus("stopped", None, said, metrics=metrics, cause=cause)
    return JobStatus("running")


def _cause_of(reason: str) -> Cause | None:
    """Return what SageMaker says of a job whose command told no exit status."""
    if reason.startswith("CapacityError"):
        return "capacity"
    if reason.startswith("ClientError"):  # so AWS calls what its customer has to mend
        return "killed_by_memory" if "more memory" in reason else "bad_input"
    return None


def _cause_of_limit(last: str, description: Mapping[str, Any]) -> Cause | None:
    """Return why a limit stopped a job: it ran too long, or it had no instance for too long."""
    if last == "MaxRuntimeExceeded":
        return "timeout"
    if last != "MaxWaitTimeExceeded":
        return None
    seen = {transition.get("Status") for transition in description.get("SecondaryStatusTransitions", ())}
    return "capacity" if "Training" not in seen else "interrupted" if "Interrupted" in seen else "timeout"


def _cost(description: Mapping[str, Any]) -> dict[str, float]:
    seconds = description.get("BillableTimeInSeconds")
    if seconds is None:
        return {}
    instances = description.get("ResourceConfig", {}).get("InstanceCount", 1)
    return {
        "sagemaker/training_seconds": float(description.get("TrainingTimeInSeconds", 0)),
        "sagemaker/billable_seconds": float(seconds),
        "sagemaker/billable_instance_hours": seconds * instances / 3600,
    }


class Transitions:
    """Turns states into one line per change."""

    def __init__(self, name: str, submitted: float) -> None:
        self._name, self._submitted = name, submitted
        self._last = ""

    def line(self, status: str, secondary: str = "") -> str | None:
        """Return a line if the state is another than the last one, with the time since the submission."""
        state = f"{status}, {secondary}" if secondary and secondary != status else status
        if state == self._last:
            return None
        self._last = state
        return f"Training job {self._name}: {state} ({max(0, time.time() - self._submitted):.0f} s)"


class JobLogs:
    """Reads the output of jobs from CloudWatch, with one request for however many jobs.

    :param since: epoch seconds of the first line that matters
    """

    def __init__(self, clients: Clients, since: float) -> None:
        self._clients = clients
        self._from = int(since * 1000) - _OVERLAP_MS
        self._seen: OrderedDict[str, tuple[str, int]] = OrderedDict()  # by id: stream and time
        self._told: dict[str, int] = {}  # by stream: the time before which nothing is new any more
        self._unread: dict[str, Any] | None = None  # where to go on in a long answer
        self.trouble = ""

    def rewind(self, since: float) -> None:
        """Read again from an earlier time on, for a job that began then."""
        self._from = min(self._from, int(since * 1000) - _OVERLAP_MS)
        self._unread = None

    def fetch(self, names: Iterable[str]) -> list[tuple[str, str]]:
        """Return new lines as (job, line), in order.

        Trouble with CloudWatch never is trouble of the job: it is left in ``trouble``.
        """
        wanted = sorted(names)
        if not wanted:
            return []
        # Several jobs share the start of their names; the others' lines are dropped.
        prefix = f"{wanted[0]}/" if len(wanted) == 1 else JOB_NAME_PREFIX
        query: dict[str, Any] = {"logGroupName": LOG_GROUP, "logStreamNamePrefix": prefix, "startTime": self._from}
        if self._unread and self._unread["logStreamNamePrefix"] == prefix:
            query = self._unread
        self._unread = None
        lines, known = [], set(wanted)
        try:
            for _ in range(_PAGES_AT_ONCE):
                answer = self._clients["logs"].filter_log_events(**query)
                for event in answer["events"]:
                    self._from = max(self._from, event["timestamp"] - _OVERLAP_MS)
                    job, _, host = event["logStreamName"].partition("/")
                    if job in known and self._is_new(event):
                        lines.append((job, _with_host(event["message"], host)))
                if not (token := answer.get("nextToken")):
                    break
                query["nextToken"] = token
            else:
                self._unread = query
            self.trouble = ""
        except aws_errors() as error:
            self._clients.forget_if_expired(error)
            # No job has written yet: the group or its streams are not there.
            self.trouble = "" if error_code(error) == "ResourceNotFoundException" else str(error)
        self._forget()
        return lines

    def _is_new(self, event: Mapping[str, Any]) -> bool:
        number, stream, moment = event["eventId"], event["logStreamName"], event["timestamp"]
        told = self._told.get(stream, 0)
        if number in self._seen or moment < told:
            return False
        self._seen[number] = stream, moment
        self._told[stream] = max(told, moment - _OVERLAP_MS)
        return True

    def _forget(self) -> None:
        """Keep memory small; what is forgotten must not be told again."""
        while len(self._seen) > _REMEMBERED:
            _, (stream, moment) = self._seen.popitem(last=False)
            self._told[stream] = max(self._told[stream], moment + 1)


def _with_host(message: str, stream: str) -> str:
    """Name the instance of lines that are not the first one's."""
    host = stream.rpartition("-")[0]
    text = message.rstrip("\n")
    return text if host in ("", "algo-1") else f"[{host}] {text}"
