"""One poller for all jobs of a kind: each trigger hears of its own, and no error ends the watching."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from mlflow_projects.backends.contract import JobStatus, News
from mlflow_projects.triggers.job import JobTrigger
from mlflow_projects.triggers.poller import JobPoller
from tests.support.attempts import MemoryHandle, MemoryJobs

QUICK = 0.01
LONG = 120.0  # seconds, on the busiest machine
Queues = dict[str, "asyncio.Queue[News]"]


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> MemoryJobs:
    return MemoryJobs().install(monkeypatch)


def handle(name: str) -> dict[str, Any]:
    return MemoryHandle("memory", name).as_json()


@asynccontextmanager
async def watching(*names: str) -> AsyncIterator[Queues]:
    """Watch jobs, as as many triggers of one triggerer would."""
    async with AsyncExitStack() as stack:
        queues: Queues = {}
        for name in names:
            watch = JobPoller.of(handle(name)).watch(handle(name), QUICK)
            queues[name] = await stack.enter_async_context(watch)
        yield queues


async def rounds(jobs: MemoryJobs, count: int) -> None:
    """Wait for that many more rounds."""
    goal = jobs.calls.count("poll_many") + count
    while jobs.calls.count("poll_many") < goal:
        await asyncio.sleep(QUICK)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def with_a_limit() -> None:
        await asyncio.wait_for(scenario(), LONG)

    asyncio.run(with_a_limit())


def test_each_hears_of_its_own_job_and_nobody_is_asked_when_nobody_waits(jobs: MemoryJobs) -> None:
    async def scenario() -> None:
        for name in ("job-1", "job-2"):
            jobs.jobs[name] = JobStatus("running")
        async with watching("job-1", "job-2") as queues:
            assert JobPoller.of(handle("job-1")) is JobPoller.of(handle("job-2"))
            await rounds(jobs, 3)
            assert [queue.empty() for queue in queues.values()] == [True, True]
            jobs.jobs["job-2"] = JobStatus("succeeded", 0)
            assert await queues["job-2"].get() == News(ended=True)
            assert queues["job-1"].empty()
        loop = JobPoller.of(handle("job-1"))._loop
        assert loop is not None
        await loop  # it ends

    run(scenario)


def test_trouble_is_told_once_a_minute_and_the_watching_goes_on(jobs: MemoryJobs) -> None:
    async def scenario() -> None:
        clock = [0.0]
        JobPoller.of(handle("job-1"), clock=lambda: clock[0])
        jobs.jobs["job-1"] = JobStatus("running")

        def refuse(call: str) -> None:
            raise ValueError("the connection is gone")

        async with watching("job-1") as queues:
            jobs.before = refuse
            await rounds(jobs, 5)
            clock[0] = 61.0
            await rounds(jobs, 5)
            jobs.before = lambda call: None
            jobs.jobs["job-1"] = JobStatus("failed", 1)
            told = [await queues["job-1"].get()]
            while not told[-1].ended:
                told.append(await queues["job-1"].get())
        said = "Jobs cannot be asked about, but go on: ValueError the connection is gone"
        assert [news.trouble for news in told if news.trouble] == [said, said]

    run(scenario)


@pytest.mark.parametrize(("ends", "status"), [(True, "ended"), (False, "unknown")])
def test_a_trigger_fires_once_when_the_job_ended_or_its_time_is_over(
    ends: bool, status: str, jobs: MemoryJobs
) -> None:
    async def scenario() -> None:
        jobs.jobs["job-1"] = JobStatus("succeeded" if ends else "running")
        deadline = 4e9 if ends else 0.0
        trigger = JobTrigger(handle("job-1"), "run", deadline, QUICK, "mlflow_default")
        path, values = trigger.serialize()
        assert path == f"{JobTrigger.__module__}.{JobTrigger.__qualname__}"
        events = [event.payload async for event in JobTrigger(**values).run()]
        assert events == [{"status": status}]

    run(scenario)
