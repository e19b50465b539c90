"""One look at AWS for all training jobs that a triggerer waits for.

Asking for each job by itself would be throttled from some hundred jobs on. So the jobs of one connection and
region share two requests a round: the jobs that changed since the last look, and their new output.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async

from mlflow_projects.backends.aws import Clients, aws_errors
from mlflow_projects.backends.sagemaker.request import JOB_NAME_PREFIX
from mlflow_projects.backends.sagemaker.watch import JobLogs

# AWS's lists may lag behind, and clocks differ.
_OVERLAP_SECONDS = 60.0
_SILENCE_SECONDS = 900.0
_TROUBLE_EVERY_SECONDS = 60.0


@dataclass(frozen=True)
class News:
    """What is new of a job: its state, if that may have changed, and lines of output."""

    status: str = ""
    secondary: str = ""
    lines: tuple[str, ...] = ()
    trouble: str = ""


@dataclass
class _Watched:
    submitted: float
    interval: float
    heard: float
    news: asyncio.Queue[News] = field(default_factory=asyncio.Queue)
    is_new: bool = True


class JobPoller:
    """Asks AWS in a loop while at least one job is watched.

    :param aws_conn_id: Airflow connection
    :param clock: seconds since any moment
    """

    # By event loop: a triggerer has one for ever, ``dag.test()`` one for each deferred task.
    _all: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str | None, str], JobPoller]]] = (
        WeakKeyDictionary()
    )

    def __init__(self, aws_conn_id: str | None, region: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._clients = Clients(aws_conn_id, region)
        self._logs = JobLogs(self._clients, time.time())
        self._watched: dict[str, _Watched] = {}
        self._listed = 0.0
        self._trouble_shown = float("-inf")
        self._loop: asyncio.Task[None] | None = None
        self._clock = clock

    @classmethod
    def of(cls, aws_conn_id: str | None, region: str, clock: Callable[[], float] = time.monotonic) -> JobPoller:
        """Return the poller of a connection and region for the running event loop."""
        pollers = cls._all.setdefault(asyncio.get_running_loop(), {})
        key = aws_conn_id, region
        if key not in pollers:
            pollers[key] = cls(aws_conn_id, region, clock)
        return pollers[key]

    @asynccontextmanager
    async def watch(self, handle: Mapping[str, Any], interval: float) -> AsyncIterator[asyncio.Queue[News]]:
        """Yield a queue of news of a job; the first item tells its state.

        :param interval: seconds between two looks
        """
        name = handle["job_name"]
        watched = self._watched[name] = _Watched(handle["submitted"], interval, self._clock())
        if self._loop is None or self._loop.done():
            self._loop = asyncio.create_task(self._run())
        try:
            yield watched.news
        finally:
            if self._watched.get(name) is watched:
                del self._watched[name]

    async def last_lines(self, name: str) -> list[str]:
        """Return the lines of a job that came late."""
        found = await sync_to_async(self._logs.fetch, thread_sensitive=False)([name])
        return [line for _, line in found]

    async def _run(self) -> None:
        while self._watched:
            jobs = dict(self._watched)
            for name, news in (await sync_to_async(self._round, thread_sensitive=False)(jobs)).items():
                jobs[name].news.put_nowait(news)
            await asyncio.sleep(min((watched.interval for watched in self._watched.values()), default=0))

    def _round(self, jobs: Mapping[str, _Watched]) -> dict[str, News]:
        """Ask once; runs in a thread."""
        states: dict[str, tuple[str, str]] = {}
        lines: dict[str, list[str]] = {}
        trouble = ""
        try:
            states = self._changed(jobs)
            for name, line in self._logs.fetch(jobs):
                lines.setdefault(name, []).append(line)
            if self._logs.trouble:
                trouble = f"The output of training jobs, which go on, cannot be read: {self._logs.trouble}"
        except aws_errors() as error:
            self._clients.forget_if_expired(error)
            trouble = f"AWS cannot be asked about training jobs, which go on: {error}"
        except Exception as error:  # a trigger that fails would leave its job alone: no connection, for example
            self._clients.forget()
            trouble = f"AWS cannot be asked about training jobs, which go on: {type(error).__name__} {error}"
        if trouble and self._clock() - self._trouble_shown < _TROUBLE_EVERY_SECONDS:
            trouble = ""
        elif trouble:
            self._trouble_shown = self._clock()
        return {
            name: News(*states.get(name, ("", "")), tuple(lines.get(name, ())), trouble)
            for name in jobs
            if name in states or name in lines or trouble
        }

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
        except aws_errors():  # the news of the list must not be lost for it
            return {}
        return {name: (found["TrainingJobStatus"], found.get("SecondaryStatus", ""))}
