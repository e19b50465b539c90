"""One poller for all jobs of a triggerer: few calls, no news lost, no error that ends the watching."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from botocore.exceptions import ClientError

from mlflow_projects.triggers import poller as module
from mlflow_projects.triggers.poller import JobPoller, News

QUICK = 0.01
LONG = 120.0  # seconds, on the busiest machine
Queues = dict[str, "asyncio.Queue[News]"]


class AWS:
    """Jobs, and the clients that tell of them; counts calls.

    :param errors: raised by the calls of that name
    """

    def __init__(self) -> None:
        self.jobs: dict[str, tuple[str, float]] = {}  # status and time of its last change
        self.events: list[dict[str, Any]] = []
        self.hidden: set[str] = set()
        self.errors: dict[str, Exception] = {}
        self.calls: Counter[str] = Counter()
        self.since: list[float] = []
        self.forgotten = 0

    def __getitem__(self, service: str) -> AWS:
        return self

    def forget(self) -> None:
        self.forgotten += 1

    def forget_if_expired(self, error: Exception) -> None:
        self.forgotten += 1

    def set(self, name: str, status: str, at: float | None = None) -> None:
        self.jobs[name] = status, time.time() if at is None else at

    def say(self, name: str, message: str) -> None:
        number, moment = str(len(self.events)), int(time.time() * 1000)
        stream = f"{name}/algo-1-1"
        self.events.append({"eventId": number, "logStreamName": stream, "message": message, "timestamp": moment})

    def get_paginator(self, operation: str) -> AWS:
        assert operation == "list_training_jobs"
        return self

    def paginate(self, **query: Any) -> Iterator[dict[str, Any]]:
        since, size = query["LastModifiedTimeAfter"].timestamp(), query["MaxResults"]
        self.since.append(since)
        found = [
            {"TrainingJobName": name, "TrainingJobStatus": status, "SecondaryStatus": status}
            for name, (status, changed) in self.jobs.items()
            if changed > since and name not in self.hidden and query["NameContains"] in name
        ]
        for begin in range(0, max(len(found), 1), size):
            self._called("list")
            yield {"TrainingJobSummaries": found[begin : begin + size]}

    def describe_training_job(self, TrainingJobName: str) -> dict[str, Any]:
        self._called("describe")
        return {"TrainingJobName": TrainingJobName, "TrainingJobStatus": self.jobs[TrainingJobName][0]}

    def filter_log_events(self, **query: Any) -> dict[str, Any]:
        self._called("logs")
        return {"events": [event for event in self.events if event["timestamp"] >= query["startTime"]]}

    def _called(self, name: str) -> None:
        self.calls[name] += 1
        if name in self.errors:
            raise self.errors[name]


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> AWS:
    made = AWS()
    monkeypatch.setattr(module, "Clients", lambda *_: made)
    return made


@asynccontextmanager
async def watching(*names: str, submitted: float | None = None) -> AsyncIterator[Queues]:
    """Watch jobs, as as many triggers of one triggerer would."""
    async with AsyncExitStack() as stack:
        queues: Queues = {}
        for name in names:
            poller = JobPoller.of("aws_default", "eu-west-1")
            handle = {"job_name": name, "submitted": time.time() if submitted is None else submitted}
            queues[name] = await stack.enter_async_context(poller.watch(handle, QUICK))
        yield queues


async def status_of(queue: asyncio.Queue[News]) -> str:
    """Return the next status that is told; lines before it are left out."""
    while not (news := await asyncio.wait_for(queue.get(), LONG)).status:
        pass
    return news.status


async def line_of(queue: asyncio.Queue[News]) -> str:
    while not (news := await asyncio.wait_for(queue.get(), LONG)).lines:
        pass
    return news.lines[0]


async def rounds(aws: AWS, count: int) -> None:
    """Wait for that many more rounds."""
    goal = aws.calls["list"] + count
    while aws.calls["list"] < goal:
        await asyncio.sleep(QUICK)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def with_a_limit() -> None:
        await asyncio.wait_for(scenario(), LONG)

    asyncio.run(with_a_limit())


@pytest.mark.parametrize("count", [1, 200])
def test_calls_do_not_grow_with_jobs(aws: AWS, count: int) -> None:
    names = [f"mlflow-{number}" for number in range(count)]

    async def scenario() -> None:
        for name in names:
            aws.set(name, "InProgress")
        async with watching(*names) as queues:
            assert {await status_of(queue) for queue in queues.values()} == {"InProgress"}
            for name in names:  # they have run for an hour
                aws.set(name, "InProgress", time.time() - 3600)
            aws.calls.clear()
            await rounds(aws, 10)
            assert aws.calls["list"] <= aws.calls["logs"] + 1
            assert aws.calls["logs"] <= aws.calls["list"] + 1
            assert aws.calls["describe"] == 0
            aws.set(names[-1], "Completed")
            aws.say(names[-1], "the end")
            told: list[News] = []
            while not {"Completed", ("the end",)} <= {part for news in told for part in (news.status, news.lines)}:
                told.append(await asyncio.wait_for(queues[names[-1]].get(), LONG))
        loop = JobPoller.of("aws_default", "eu-west-1")._loop
        assert loop is not None
        await loop  # with nobody to watch, AWS is not asked: it ends

    run(scenario)


def test_only_what_matters_is_listed(aws: AWS) -> None:
    async def scenario() -> None:
        begin = time.time()
        for number in range(1000):
            aws.set(f"mlflow-of-last-year-{number}", "Completed", time.time() - 365 * 86400)
        aws.set("mlflow-a", "InProgress")
        async with watching("mlflow-a") as queues:
            assert await status_of(queues["mlflow-a"]) == "InProgress"
        assert aws.calls["list"] <= 2
        assert min(aws.since) > begin - 120

    run(scenario)


def test_a_newcomer_is_told_at_once(aws: AWS) -> None:
    async def scenario() -> None:
        begin = time.time()
        aws.set("mlflow-old", "InProgress")
        async with watching("mlflow-old") as queues:
            assert await status_of(queues["mlflow-old"]) == "InProgress"
            await rounds(aws, 2)
            # Its trigger comes from another triggerer: submitted, and changed last, long ago.
            aws.set("mlflow-new", "Completed", time.time() - 1800)
            async with watching("mlflow-new", submitted=time.time() - 3600) as more:
                assert await status_of(more["mlflow-new"]) == "Completed"
                await rounds(aws, 2)
                assert aws.since[-1] > begin - 120, "the long look back was for once"

    run(scenario)


@pytest.mark.parametrize(
    "error",
    [
        ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow down"}}, "ListTrainingJobs"),
        ValueError("the connection is gone"),
    ],
    ids=["of AWS", "another"],
)
@pytest.mark.parametrize("call", ["list", "logs"])
def test_trouble_is_told_once_and_the_watching_goes_on(aws: AWS, error: Exception, call: str) -> None:
    async def scenario() -> None:
        names = ["mlflow-a", "mlflow-b"]
        JobPoller.of("aws_default", "eu-west-1", clock=lambda: 0.0)  # within one minute, however busy the machine
        for name in names:
            aws.set(name, "InProgress")
        async with watching(*names) as queues:
            for queue in queues.values():
                await status_of(queue)
            aws.errors[call] = error
            await rounds(aws, 5)
            aws.errors.clear()
            aws.set("mlflow-a", "Completed")
            aws.say("mlflow-b", "still here")
            told: list[News] = []
            while not told or told[-1].status != "Completed":
                told.append(await asyncio.wait_for(queues["mlflow-a"].get(), LONG))
            troubles = [news.trouble for news in told if news.trouble]
            assert len(troubles) == 1, troubles
            assert str(error) in troubles[0]
            assert await line_of(queues["mlflow-b"]) == "still here"

    run(scenario)


def test_a_job_that_a_list_leaves_out_is_asked_for(aws: AWS) -> None:
    seconds = 0.0

    async def scenario() -> None:
        nonlocal seconds
        JobPoller.of("aws_default", "eu-west-1", clock=lambda: seconds)
        aws.set("mlflow-lost", "Completed")
        aws.set("mlflow-seen", "InProgress", time.time() + 3600)  # so that each list tells of it
        aws.hidden.add("mlflow-lost")
        async with watching("mlflow-lost", "mlflow-seen") as queues:
            await rounds(aws, 3)
            assert aws.calls["describe"] == 0
            seconds = 1000.0
            assert await status_of(queues["mlflow-lost"]) == "Completed"
            await rounds(aws, 3)
            assert aws.calls["describe"] == 1
            aws.errors["describe"] = ClientError(
                {"Error": {"Code": "ValidationException", "Message": "Requested resource not found."}}, "Describe"
            )
            seconds = 2000.0
            aws.set("mlflow-seen", "Completed", time.time() + 3600)
            while await status_of(queues["mlflow-seen"]) != "Completed":
                pass
            await rounds(aws, 3)
            assert aws.calls["describe"] == 2

    run(scenario)


def test_a_round_with_a_failed_second_look_loses_no_news(aws: AWS, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SILENCE_SECONDS", 0.0)
    gone = ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "DescribeTrainingJob")
    aws.errors["describe"] = gone
    aws.set("mlflow-a", "Completed")

    async def scenario() -> None:
        async with watching("mlflow-a") as queues:
            news = await asyncio.wait_for(queues["mlflow-a"].get(), LONG)
            assert (news.status, news.trouble) == ("Completed", "")

    run(scenario)
