"""One look at AWS for all training jobs of a connection and region.

Asking for each job by itself would be throttled from some hundred jobs on. So the jobs share two requests a look: the
jobs that changed since the last one, and their new output.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from mlflow_projects.backends.aws import Clients, aws_errors, error_code
from mlflow_projects.backends.contract import News
from mlflow_projects.backends.sagemaker.request import JOB_NAME_PREFIX
from mlflow_projects.backends.sagemaker.training_job import KNOWN_AFTER_SECONDS, SageMakerHandle
from mlflow_projects.backends.sagemaker.watch import DELETED, ENDED, JobLogs, Transitions

# AWS's lists may lag behind, and clocks differ.
_OVERLAP_SECONDS = 60.0
_SILENCE_SECONDS = 120.0


@dataclass
class _Watched:
    submitted: float
    transitions: Transitions
    heard: float
    is_new: bool = True
    ended: bool = False

    @property
    def is_known_everywhere(self) -> bool:
        return time.time() - self.submitted > KNOWN_AFTER_SECONDS


class JobList:
    """The training jobs that somebody waits for.

    :param clock: seconds since any moment
    """

    def __init__(self, clients: Clients, clock: Callable[[], float] = time.monotonic) -> None:
        self._clients = clients
        self._logs = JobLogs(clients, time.time())
        self._watched: dict[str, _Watched] = {}
        self._listed = 0.0
        self._clock = clock

    def look(self, handles: Sequence[SageMakerHandle]) -> list[News]:
        """Ask once; return what is new of each job."""
        names = [handle.job_name for handle in handles]
        self._watched = {
            name: self._watched.get(name)
            or _Watched(handle.submitted, Transitions(name, handle.submitted), self._clock())
            for name, handle in zip(names, handles, strict=True)
        }
        lines: dict[str, list[str]] = {name: [] for name in names}
        trouble = ""
        try:
            states = self._changed(self._watched)
            for name, line in self._logs.fetch(names):
                lines[name].append(line)
            if self._logs.trouble:
                trouble = f"The output of training jobs, which go on, cannot be read: {self._logs.trouble}"
        except aws_errors() as error:
            self._clients.forget_if_expired(error)
            states, trouble = {}, f"AWS cannot be asked about training jobs, which go on: {error}"
        except BaseException:  # no connection, for example: it may come back
            self._clients.forget()
            raise
        for name, state in states.items():
            watched = self._watched[name]
            watched.ended = state[0] in ENDED
            if transition := watched.transitions.line(*state):
                lines[name].append(transition)
        return [News(tuple(lines[name]), self._watched[name].ended, trouble) for name in names]

    def _changed(self, jobs: Mapping[str, _Watched]) -> dict[str, tuple[str, str]]:
        """Return the states of jobs that changed since the last look; those of new ones in any case."""
        begin = time.time()
        newcomers = [watched for watched in jobs.values() if watched.is_new]
        looks = (watched.submitted if watched.is_new else self._listed for watched in jobs.values())
        since = min(looks) - _OVERLAP_SECONDS
        if newcomers:
            self._logs.rewind(min(watched.submitted for watched in newcomers))
        query = {
            "NameContains": JOB_NAME_PREFIX,
            "LastModifiedTimeAfter": datetime.fromtimestamp(max(since, 0), tz=timezone.utc),
            "MaxResults": 100,
        }
        states = {}
        for page in self._clients["sagemaker"].get_paginator("list_training_jobs").paginate(**query):
            for job in page["TrainingJobSummaries"]:
                if watched := jobs.get(job["TrainingJobName"]):
                    watched.heard = self._clock()
                    states[job["TrainingJobName"]] = job["TrainingJobStatus"], job.get("SecondaryStatus", "")
        self._listed = begin
        for watched in newcomers:
            watched.is_new = False
        return {**states, **self._of_silent(jobs)}

    def _of_silent(self, jobs: Mapping[str, _Watched]) -> dict[str, tuple[str, str]]:
        """Ask for the one job that was not heard of for longest, in case that a list left it out."""
        name, watched = min(jobs.items(), key=lambda job: job[1].heard)
        if self._clock() - watched.heard < _SILENCE_SECONDS:
            return {}
        watched.heard = self._clock()
        try:
            found = self._clients["sagemaker"].describe_training_job(TrainingJobName=name)
        except aws_errors() as error:  # the news of the list must not be lost for it
            is_gone = error_code(error) == "ValidationException"  # AWS: "Requested resource not found."
            return {name: ("Stopped", DELETED)} if is_gone and watched.is_known_everywhere else {}
        return {name: (found["TrainingJobStatus"], found.get("SecondaryStatus", ""))}
