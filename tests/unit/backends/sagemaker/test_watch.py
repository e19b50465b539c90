"""What becomes of a job: verdicts from answers as AWS gives them, lines of output as CloudWatch gives them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from mlflow_projects.backends.sagemaker.watch import JobLogs, Transitions, verdict

NAME = "mlflow-wine-train-0190c1de7b5f7c3e9d2a1234567890ab"
Event = dict[str, Any]


def described(status: str, secondary: str = "", **more: Any) -> dict[str, Any]:
    """Return DescribeTrainingJob's answer, as much of it as counts here."""
    return {
        "TrainingJobName": NAME,
        "TrainingJobArn": f"arn:aws:sagemaker:eu-west-1:123456789012:training-job/{NAME}",
        "TrainingJobStatus": status,
        "SecondaryStatus": secondary or status,
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 30},
        **more,
    }


@pytest.mark.parametrize(
    ("status", "secondary"),
    [("InProgress", "Starting"), ("InProgress", "Pending"), ("InProgress", "Interrupted"), ("Stopping", "Stopping")],
)
def test_a_job_that_has_not_ended(status: str, secondary: str) -> None:
    assert verdict(described(status, secondary)).state == "running"


def test_a_completed_job_and_its_cost() -> None:
    done = verdict(described("Completed", TrainingTimeInSeconds=1800, BillableTimeInSeconds=900))
    assert (done.state, done.exit_code, done.reason) == ("succeeded", 0, "")
    assert done.metrics == {
        "sagemaker/training_seconds": 1800.0,
        "sagemaker/billable_seconds": 900.0,
        "sagemaker/billable_instance_hours": 0.5,
    }
    assert verdict(described("Completed")).metrics == {}


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("AlgorithmError: Entry point command failed with exit status 3.\nbye, exit code: 3", 3),
        ('AlgorithmError: ExecuteUserScriptError:\nExitCode 1\nErrorMessage ""\nCommand "x", exit code: 1', 1),
        ("AlgorithmError: ... exit status 137.\nworker 1 ended with exit code 0, exit code: 137", 137),
        ("ClientError: Cannot pull algorithm container. Either the image does not exist or ...", None),
        ("CapacityError: Unable to provision requested ML compute capacity.", None),
        ("", None),
    ],
)
def test_a_failed_job_says_why(reason: str, code: int | None) -> None:
    failed = verdict(described("Failed", FailureReason=reason, BillableTimeInSeconds=60))
    assert (failed.state, failed.exit_code) == ("failed", code)
    assert failed.reason == f"training job {NAME} failed: {reason or 'SageMaker gives no reason'}"
    assert failed.metrics["sagemaker/billable_seconds"] == 60


@pytest.mark.parametrize(
    ("secondary", "words"),
    [
        ("Stopped", "somebody stopped it"),
        ("MaxRuntimeExceeded", "it ran longer than 'max_run'"),
        ("MaxWaitTimeExceeded", "it took longer than 'max_wait'"),
    ],
)
def test_a_stopped_job_is_no_success(secondary: str, words: str) -> None:
    stopped = verdict(described("Stopped", secondary, BillableTimeInSeconds=7))
    assert (stopped.state, stopped.exit_code) == ("stopped", None)
    assert stopped.reason == f"training job {NAME} was stopped: {words}"
    assert stopped.metrics["sagemaker/billable_seconds"] == 7


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("CapacityError: Unable to provision requested ML compute capacity. Please retry using a different "
         "ML instance type.", "capacity"),
        ("ClientError: Please use an instance type with more memory, or reduce the size of job data.",
         "killed_by_memory"),
        ("ClientError: Data download failed: Access denied.", "bad_input"),
        ("AlgorithmError: CapacityError is a word of the command, exit code: 1", None),
        ("InternalServerError: We encountered an internal error. Please try again.", None),
    ],
)  # fmt: skip
def test_why_a_job_failed_that_told_no_exit_status(reason: str, cause: str | None) -> None:
    assert verdict(described("Failed", FailureReason=reason)).cause == cause


@pytest.mark.parametrize(
    ("secondary", "seen", "cause"),
    [
        ("MaxRuntimeExceeded", ["Starting", "Training"], "timeout"),
        ("MaxWaitTimeExceeded", ["Starting"], "capacity"),
        ("MaxWaitTimeExceeded", ["Starting", "Training", "Interrupted", "Starting"], "interrupted"),
        ("MaxWaitTimeExceeded", ["Starting", "Downloading", "Training"], "timeout"),
        ("Stopped", ["Starting", "Training"], None),
    ],
)
def test_why_a_limit_stopped_a_job(secondary: str, seen: list[str], cause: str | None) -> None:
    transitions = [{"Status": status} for status in seen]
    assert verdict(described("Stopped", secondary, SecondaryStatusTransitions=transitions)).cause == cause


def test_one_line_per_change() -> None:
    transitions = Transitions("job", time.time() - 90)
    states = [("InProgress", "Starting")] * 2 + [("InProgress", "Training"), ("Completed", "Completed")]
    assert [transitions.line(*state) for state in states] == [
        "Training job job: InProgress, Starting (90 s)",
        None,
        "Training job job: InProgress, Training (90 s)",
        "Training job job: Completed (90 s)",
    ]
    ahead = Transitions("job", time.time() + 60).line("InProgress")  # another machine's clock
    assert ahead == "Training job job: InProgress (0 s)"


class CloudWatch:
    """A logs client, and the ``Clients`` that hands it out.

    :param page: events in an answer; the next one comes by ``nextToken``
    """

    def __init__(self, page: int = 10_000) -> None:
        self.page = page
        self.events: list[Event] = []
        self.calls: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.forgotten = 0

    def __getitem__(self, service: str) -> CloudWatch:
        assert service == "logs"
        return self

    def forget_if_expired(self, error: Exception) -> None:
        self.forgotten += 1

    def say(self, job: str, *messages: str, at: float, host: str = "algo-1") -> None:
        for message in messages:
            stream = f"{job}/{host}-1700000000"
            number = str(len(self.events))
            self.events.append(
                {"eventId": number, "logStreamName": stream, "message": message, "timestamp": int(at * 1000)}
            )

    def filter_log_events(self, **query: Any) -> dict[str, Any]:
        self.calls.append(query)
        if self.error:
            raise self.error
        found = sorted(
            (
                event
                for event in self.events
                if event["timestamp"] >= query["startTime"]
                and event["logStreamName"].startswith(query["logStreamNamePrefix"])
            ),
            key=lambda event: event["timestamp"],
        )
        begin = int(query.get("nextToken", 0))
        more = {"nextToken": str(begin + self.page)} if len(found) > begin + self.page else {}
        return {"events": found[begin : begin + self.page], **more}


@pytest.fixture
def cloudwatch() -> CloudWatch:
    return CloudWatch(page=3)


@pytest.fixture
def logs(cloudwatch: CloudWatch) -> JobLogs:
    return JobLogs(cloudwatch, 1000.0)  # type: ignore[arg-type]


def test_lines_come_once_and_in_order(cloudwatch: CloudWatch, logs: JobLogs) -> None:
    cloudwatch.say("mlflow-a", "1\n", "2", at=1001)
    cloudwatch.say("mlflow-a", *"34567", at=1002)
    assert logs.fetch(["mlflow-a"]) == [("mlflow-a", text) for text in "1234567"], "over three pages"
    assert logs.fetch(["mlflow-a"]) == []
    cloudwatch.say("mlflow-a", "late", at=1000.5)
    cloudwatch.say("mlflow-a", "new", at=1010)
    assert logs.fetch(["mlflow-a"]) == [("mlflow-a", "late"), ("mlflow-a", "new")]
    cloudwatch.say("mlflow-a", "later", at=1100)
    logs.fetch(["mlflow-a"])
    cloudwatch.calls.clear()
    assert logs.fetch(["mlflow-a"]) == []
    assert cloudwatch.calls[-1]["startTime"] == 1_070_000, "an old job is not read from its beginning each time"


def test_other_instances_are_named(cloudwatch: CloudWatch, logs: JobLogs) -> None:
    cloudwatch.say("mlflow-a", "first", at=1001)
    cloudwatch.say("mlflow-a", "second", at=1002, host="algo-2")
    assert logs.fetch(["mlflow-a"]) == [("mlflow-a", "first"), ("mlflow-a", "[algo-2] second")]


def test_many_jobs_cost_one_request(cloudwatch: CloudWatch, logs: JobLogs) -> None:
    cloudwatch.page = 10_000
    names = [f"mlflow-{number}" for number in range(300)]
    for name in [*names, "mlflow-of-somebody-else", "mlflow-1-and-more", "another"]:
        cloudwatch.say(name, f"hello from {name}", at=1001)
    assert logs.fetch(names) == [(name, f"hello from {name}") for name in names]
    assert [call["logStreamNamePrefix"] for call in cloudwatch.calls] == ["mlflow-"]
    logs.fetch(["mlflow-1"])
    assert cloudwatch.calls[-1]["logStreamNamePrefix"] == "mlflow-1/"
    logs.fetch([])
    assert len(cloudwatch.calls) == 2


def test_a_newcomer_is_read_from_its_beginning_and_nobody_else_again(cloudwatch: CloudWatch, logs: JobLogs) -> None:
    for second in range(1000, 1200):
        cloudwatch.say("mlflow-old", f"old {second}", at=second)
        cloudwatch.say("mlflow-new", f"new {second}", at=second)
    cloudwatch.page = 100
    assert len(logs.fetch(["mlflow-old", "mlflow-other"])) == 200, "the new job's lines are read, but nobody watches"
    logs._seen.clear()  # not all is remembered: 200 lines may be 200,000
    logs.rewind(1000.0)
    got = logs.fetch(["mlflow-old", "mlflow-new"])
    assert [line for name, line in got if name == "mlflow-new"] == [f"new {second}" for second in range(1000, 1200)]
    again = [line for name, line in got if name == "mlflow-old"]
    assert all(int(line.split()[1]) >= 1169 for line in again), again[:3]


def test_a_flood_is_not_told_twice(cloudwatch: CloudWatch, logs: JobLogs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlflow_projects.backends.sagemaker.watch._REMEMBERED", 100)
    cloudwatch.page = 10_000
    for number in range(500):
        cloudwatch.say("mlflow-a", f"line {number}", at=1001 + number / 1000)
    told = [line for _ in range(4) for _, line in logs.fetch(["mlflow-a"])]
    assert told == [f"line {number}" for number in range(500)]
    cloudwatch.say("mlflow-a", "after", at=1002)
    assert logs.fetch(["mlflow-a"]) == [("mlflow-a", "after")]
    assert len(logs._seen) <= 101


def test_much_to_read_is_read_in_portions(cloudwatch: CloudWatch, logs: JobLogs) -> None:
    for number in range(100):
        cloudwatch.say("mlflow-a", str(number), at=1001 + number)
    portions = [logs.fetch(["mlflow-a"]) for _ in range(4)]
    assert len(cloudwatch.calls) < 20 * 4
    assert [line for portion in portions for _, line in portion] == [str(number) for number in range(100)]
    assert len(portions[0]) == 60, "one look does not last for ever"


def no_such_group(_: Any) -> Exception:
    return ClientError({"Error": {"Code": "ResourceNotFoundException", "Message": "no group"}}, "FilterLogEvents")


def denied(_: Any) -> Exception:
    return ClientError({"Error": {"Code": "AccessDeniedException", "Message": "not you"}}, "FilterLogEvents")


def away(_: Any) -> Exception:
    return EndpointConnectionError(endpoint_url="https://logs")


@pytest.mark.parametrize(("make", "words"), [(no_such_group, ""), (denied, "not you"), (away, "https://logs")])
def test_trouble_is_kept_aside(
    cloudwatch: CloudWatch, logs: JobLogs, make: Callable[[Any], Exception], words: str
) -> None:
    cloudwatch.say("mlflow-a", "line", at=1001)
    cloudwatch.error = make(None)
    assert logs.fetch(["mlflow-a"]) == []
    assert words in logs.trouble
    assert bool(logs.trouble) is bool(words)
    cloudwatch.error = None
    assert logs.fetch(["mlflow-a"]) == [("mlflow-a", "line")]
    assert logs.trouble == ""
