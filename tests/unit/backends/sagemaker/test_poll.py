"""One look at AWS for all training jobs: few calls, and no news lost."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from mlflow_projects.backends.contract import News
from mlflow_projects.backends.sagemaker import poll
from mlflow_projects.backends.sagemaker.poll import JobList
from mlflow_projects.backends.sagemaker.training_job import SageMakerHandle


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
def aws() -> AWS:
    return AWS()


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


@pytest.fixture
def jobs(aws: AWS, clock: list[float]) -> JobList:
    return JobList(aws, lambda: clock[0])  # type: ignore[arg-type]


def handle(name: str, submitted: float | None = None) -> SageMakerHandle:
    return SageMakerHandle("sagemaker", name, "eu-west-1", None, time.time() if submitted is None else submitted)


def states(news: News) -> list[str]:
    """Return the states that were told, without the times."""
    return [line.partition(": ")[2].partition(" (")[0] for line in news.lines if line.startswith("Training job")]


@pytest.mark.parametrize("count", [1, 100, 250])
def test_calls_do_not_grow_with_jobs(count: int, aws: AWS, jobs: JobList) -> None:
    handles = [handle(f"mlflow-{number}") for number in range(count)]
    for one in handles:
        aws.set(one.job_name, "InProgress")
    assert [states(news) for news in jobs.look(handles)] == [["InProgress"]] * count
    for one in handles:  # they have run for an hour
        aws.set(one.job_name, "InProgress", time.time() - 3600)
    aws.calls.clear()
    assert jobs.look(handles) == [News()] * count
    assert aws.calls == {"list": 1, "logs": 1}
    aws.set(handles[-1].job_name, "Completed")
    aws.say(handles[-1].job_name, "the end")
    *others, last = jobs.look(handles)
    assert (last.lines[0], states(last), last.ended) == ("the end", ["Completed"], True)
    assert others == [News()] * (count - 1)
    assert jobs.look(handles)[-1] == News(ended=True)


def test_only_what_matters_is_listed(aws: AWS, jobs: JobList) -> None:
    begin = time.time()
    for number in range(1000):
        aws.set(f"mlflow-of-last-year-{number}", "Completed", time.time() - 365 * 86400)
    aws.set("mlflow-a", "InProgress")
    assert states(jobs.look([handle("mlflow-a")])[0]) == ["InProgress"]
    assert aws.calls["list"] == 1
    assert min(aws.since) > begin - 120


def test_a_newcomer_is_told_at_once(aws: AWS, jobs: JobList) -> None:
    begin = time.time()
    old = handle("mlflow-old")
    aws.set("mlflow-old", "InProgress")
    jobs.look([old])
    # Its trigger comes from another triggerer: submitted, and changed last, long ago.
    aws.set("mlflow-new", "Completed", time.time() - 1800)
    new = handle("mlflow-new", time.time() - 3600)
    told = jobs.look([old, new])
    assert (states(told[0]), states(told[1]), told[1].ended) == ([], ["Completed"], True)
    jobs.look([old, new])
    assert aws.since[-1] > begin - 120, "the long look back was for once"


@pytest.mark.parametrize("call", ["list", "logs"])
def test_trouble_of_aws_is_news_and_hides_none(call: str, aws: AWS, jobs: JobList) -> None:
    handles = [handle("mlflow-a"), handle("mlflow-b")]
    for one in handles:
        aws.set(one.job_name, "InProgress")
    jobs.look(handles)
    aws.errors[call] = ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow down"}}, "Operation")
    aws.set("mlflow-a", "Completed")
    aws.say("mlflow-b", "still here")
    told = jobs.look(handles)
    assert all("slow down" in news.trouble and "go on" in news.trouble for news in told)
    aws.errors.clear()
    later = jobs.look(handles)
    assert told[0].ended or later[0].ended
    assert "still here" in (*told[1].lines, *later[1].lines)
    assert [news.trouble for news in later] == ["", ""]


def test_another_error_forgets_the_clients_and_is_the_callers(aws: AWS, jobs: JobList) -> None:
    aws.errors["list"] = ValueError("the connection is gone")
    with pytest.raises(ValueError, match="the connection is gone"):
        jobs.look([handle("mlflow-a")])
    assert aws.forgotten == 1


def test_a_job_that_a_list_leaves_out_is_asked_for(aws: AWS, jobs: JobList, clock: list[float]) -> None:
    handles = [handle("mlflow-lost"), handle("mlflow-seen")]
    aws.set("mlflow-lost", "Completed")
    aws.set("mlflow-seen", "InProgress", time.time() + 3600)  # so that each list tells of it
    aws.hidden.add("mlflow-lost")
    for _ in range(3):
        assert not jobs.look(handles)[0].ended
    assert aws.calls["describe"] == 0
    clock[0] = 1000.0
    assert jobs.look(handles)[0].ended
    jobs.look(handles)
    assert aws.calls["describe"] == 1
    aws.errors["describe"] = ClientError(
        {"Error": {"Code": "ValidationException", "Message": "Requested resource not found."}}, "Describe"
    )
    clock[0] = 2000.0
    aws.set("mlflow-seen", "Completed", time.time() + 3600)
    assert jobs.look(handles)[1].ended
    assert aws.calls["describe"] == 2


@pytest.mark.parametrize(("age", "code", "ended"), [
    (3600, "ValidationException", True), (5, "ValidationException", False), (3600, "AccessDeniedException", False),
])  # fmt: skip
def test_a_job_that_aws_knows_no_more_has_ended(
    aws: AWS, jobs: JobList, monkeypatch: pytest.MonkeyPatch, age: float, code: str, ended: bool
) -> None:
    monkeypatch.setattr(poll, "_SILENCE_SECONDS", 0.0)
    aws.errors["describe"] = ClientError({"Error": {"Code": code, "Message": "not found"}}, "DescribeTrainingJob")
    (news,) = jobs.look([handle("mlflow-gone", time.time() - age)])
    assert news.ended == ended
    assert states(news) == ["Stopped, Deleted"] * ended


def test_a_look_with_a_failed_second_call_loses_no_news(
    aws: AWS, jobs: JobList, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poll, "_SILENCE_SECONDS", 0.0)
    aws.errors["describe"] = ClientError(
        {"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "DescribeTrainingJob"
    )
    aws.set("mlflow-a", "Completed")
    (news,) = jobs.look([handle("mlflow-a")])
    assert (news.ended, news.trouble) == (True, "")
