"""What a step is to Airflow: its XCom, its errors, and what one try of it leaves for the next."""

from __future__ import annotations

import itertools
import json
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, TaskGroup
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException, TaskDeferred

from mlflow_projects import MLflowProjectOperator, MLflowRetryPolicy
from mlflow_projects.backends.contract import JobStatus
from mlflow_projects.exceptions import ProjectError
from mlflow_projects.tracking.client import Run
from mlflow_projects.tracking.tags import own_tags_of
from tests.support.attempts import SHELL, MemoryHandle, MemoryJobs
from tests.support.memory_tracking import MemoryClient, opened_again
from tests.support.tracked import CONNECTION, Store, connected

REASON, CAUSE = "mlflow_projects.reason", "mlflow_projects.cause"
JOB_HANDLE = MemoryHandle("memory", "job-1").as_json()


class Task:
    """One task of Airflow, its tries, and the server that they write to."""

    def __init__(self, client: MemoryClient) -> None:
        self.client, self.store, self.links = client, Store(), dict[str, str]()
        self.states: list[str | None] = []  # what Airflow has for the task, each time that it is asked

    def context(self, try_number: int = 1, max_tries: int = 3, map_index: int | None = -1) -> Any:
        ti = SimpleNamespace(
            dag_id="dag", run_id="manual__1", task_id="step", try_number=try_number, max_tries=max_tries,
            map_index=map_index, id=f"try-{try_number}", log_url="http://airflow.test/step",
            start_date=datetime.fromtimestamp(1100, timezone.utc), xcom_push=self._push,
            get_task_states=lambda *_, **__: {"manual__1": {"step": self.states.pop(0)}} if self.states else {},
        )  # fmt: skip
        return {"ti": ti, "params": {}, "task_state_store": self.store}

    def run(self, command: str = "true", try_number: int = 1, max_tries: int = 3, **step: Any) -> dict[str, Any]:
        return operator(command, **step).execute(self.context(try_number, max_tries))

    @property
    def runs(self) -> list[Run]:
        return self.client.runs

    def _push(self, key: str, value: str) -> None:
        self.links[key] = value


def operator(command: str = "true", **step: Any) -> MLflowProjectOperator:
    given = {"uri": str(SHELL), "parameters": {"command": command}, "env_manager": "local", **step}
    return MLflowProjectOperator(task_id="step", mlflow_conn_id=CONNECTION, **given)


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Task:
    return Task(connected(monkeypatch))


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> MemoryJobs:
    return MemoryJobs().install(monkeypatch)


def test_a_success_is_an_xcom_a_link_and_a_word_for_the_next_try(task: Task) -> None:
    found = task.run("true", try_number=1, tags={"team": "red"})
    (run,) = task.runs
    assert found == {
        "run_id": run.run_id, "experiment_id": "0", "artifact_uri": run.artifact_uri, "status": "FINISHED",
        "run_name": "step", "metrics": {}, "params": {"command": "true"}, "mlflow_conn_id": CONNECTION, "models": {},
    }  # fmt: skip
    tags = own_tags_of(run.tags)
    assert task.store == {
        "mlflow_run": {"run_id": run.run_id, "tags": tags, "try_number": 1, "max_tries": 3, "handle": {}}
    }
    assert {"mlflow_projects.role", "airflow.run_id", "airflow.try_number"} <= tags.keys()
    assert list(task.links.values()) == [f"http://tracking.test/#/experiments/0/runs/{run.run_id}"]
    assert run.tags["team"] == "red"
    assert "mlflow.parentRunId" not in run.tags
    assert task.client.calls[-1] == "close"


def test_a_failure_may_be_tried_again_and_a_mistake_may_not(task: Task) -> None:
    with pytest.raises(AirflowException) as failed:
        task.run("exit 3")
    assert not isinstance(failed.value, AirflowFailException)
    assert str(failed.value) == f"Entry point 'main' of {SHELL} failed: exit status 3."
    with pytest.raises(AirflowFailException, match="There is no backend 'x'"):
        task.run(backend="x")
    with pytest.raises(AirflowFailException) as caught:
        task.run(parameters="{{ params.all }}")
    assert str(caught.value) == (
        "Task 'step': parameters rendered to str, not to a mapping; for a template of the whole mapping, give the "
        "DAG render_template_as_native_obj=True."
    )


def test_a_kill_of_airflows_reaches_the_attempt_and_is_said(task: Task, jobs: MemoryJobs) -> None:
    step = operator(backend="memory")
    step.on_kill()  # nothing to stop yet
    jobs.before = lambda call: step.on_kill() if call == "lines" else None
    with pytest.raises(AirflowException, match=r"^The attempt was stopped by Airflow\.$"):
        step.execute(task.context())
    assert task.runs[0].status == "KILLED"
    assert "cancel job-1" in jobs.calls
    step.on_kill()
    assert jobs.calls.count("cancel job-1") == 1


@pytest.mark.parametrize("nothing", [None, "", "None"])
def test_what_a_template_leaves_empty_counts_as_not_given(nothing: Any, task: Task) -> None:
    task.run(version=nothing, env_manager=nothing, tags=nothing, backend_config=nothing, parent_run_id=nothing)
    assert task.runs[0].status == "FINISHED"
    assert "mlflow.parentRunId" not in task.runs[0].tags


@pytest.mark.parametrize("tag", ["airflow.dag_id", "mlflow_projects.reason", "mlflow.parentRunId"])
def test_tags_of_the_library_are_not_the_authors(tag: str, task: Task) -> None:
    with pytest.raises(AirflowFailException, match=f"'tags' sets '{tag}', which this library writes itself"):
        task.run(tags={"team": "red", tag: "x"})
    assert task.runs == []


@pytest.mark.parametrize("tag", ["", "k" * 251, "nul \0"])
def test_a_tags_name_that_no_database_takes_is_one_sentence(tag: str, task: Task) -> None:
    with pytest.raises(AirflowFailException, match=r"^'tags' sets '.{,60}'; a tag's name has 1 to 250 characters"):
        task.run(tags={tag: "x"})
    assert task.runs == []


def test_a_tags_name_may_be_a_number(task: Task) -> None:
    task.run(tags={1: 2})
    assert task.runs[0].tags["1"] == "2"


def test_a_run_name_that_no_database_takes_is_one_sentence(task: Task) -> None:
    with pytest.raises(AirflowFailException, match="'run_name' has 300 characters; MLflow takes 250"):
        task.run(run_name="n" * 300)
    (run,) = task.runs
    assert (run.status, run.name) == ("FAILED", "n" * 250)


def test_names_groups_and_parents(task: Task) -> None:
    with DAG("dag", schedule=None, start_date=datetime(2026, 1, 1)), TaskGroup("group"):
        grouped = MLflowProjectOperator(
            task_id="train", uri=str(SHELL), parameters={"command": "true"}, mlflow_conn_id=CONNECTION,
            parent_run_id={"run_id": "parent"}, experiment_name="named",
        )  # fmt: skip
    for index in (-1, None, 0, 3):
        grouped.execute(task.context(map_index=index))
    task.run(run_name="given")
    assert [run.name for run in task.runs] == ["train", "train", "train[0]", "train[3]", "given"]
    assert task.runs[0].tags["mlflow.parentRunId"] == "parent"
    assert task.runs[0].experiment_id == task.client.experiment_id("named")


# --- what an exit status means ---


@pytest.mark.parametrize("codes", [99, [99], (98, 99), {99}])
def test_an_exit_status_may_say_that_there_is_nothing_to_do(codes: Any, task: Task) -> None:
    with pytest.raises(AirflowSkipException, match=r"was skipped: its exit status is 99\.$"):
        task.run("exit 99", skip_on_exit_code=codes)
    (run,) = task.runs
    assert (run.status, run.tags[REASON]) == (
        "FINISHED", f"Entry point 'main' of {SHELL} was skipped: its exit status is 99.",
    )  # fmt: skip
    assert CAUSE not in run.tags
    with pytest.raises(AirflowException):
        task.run("exit 3", skip_on_exit_code=codes)
    assert task.run("true", skip_on_exit_code=codes)["status"] == "FINISHED"


@pytest.mark.parametrize(("code", "is_final"), [(3, True), (4, False)])
def test_an_exit_status_may_say_that_no_other_try_can_help(code: int, is_final: bool, task: Task) -> None:
    with pytest.raises(AirflowException) as failed:
        task.run(f"exit {code}", fail_on_exit_code=3)
    assert isinstance(failed.value, AirflowFailException) == is_final
    error: Any = failed.value
    assert (error.exit_code, error.status, error.cause) == (code, "FAILED", "user_error")
    assert error.reason == str(error) == task.runs[0].tags[REASON]
    assert task.runs[0].tags[CAUSE] == "user_error"


@pytest.mark.parametrize(
    ("step", "kind", "cause"),
    [
        ({"command": "kill -9 $$"}, AirflowException, "killed_by_memory"),
        ({"command": "kill -15 $$"}, AirflowException, "interrupted"),
        ({"entry_point": "nothing"}, AirflowFailException, "bad_input"),
    ],
)
def test_an_error_says_its_cause(step: dict[str, Any], kind: type[Exception], cause: str, task: Task) -> None:
    with pytest.raises(kind) as failed:
        task.run(**step)
    assert failed.value.cause == task.runs[0].tags[CAUSE] == cause  # type: ignore[attr-defined]


def test_each_kill_for_want_of_memory_gives_the_next_try_more(task: Task, jobs: MemoryJobs) -> None:
    policy = MLflowRetryPolicy(escalate={"grace_seconds": [4, 5]})
    given = []
    jobs.before = lambda call: None

    def tried(number: int, max_tries: int = 3) -> str:
        step = operator("kill -9 $$", retry_policy=policy)
        context = task.context(number, max_tries)
        context["task"] = step
        with pytest.raises(AirflowException) as failed:
            step.execute(context)
        given.append(dict(step._backend_config(context)))
        return str(policy.evaluate(failed.value, number, max_tries, context).action)

    actions = [tried(1), tried(2), tried(3)]
    # What is given after a try is what the next one gets.
    assert [one.get("grace_seconds") for one in given] == [4, 5, 5]
    assert [action.rpartition(".")[2] for action in actions] == ["RETRY", "RETRY", "FAIL"]
    tried(4, max_tries=7)  # a person cleared the task: it begins anew
    assert given[-1]["grace_seconds"] == 4


# --- what an earlier try left ---


def left(task: Task, status: str = "RUNNING", handle: dict[str, Any] | None = None) -> Run:
    """Leave a run of a first try, as a worker that was lost does."""
    tags = {"airflow.try_number": "1"}
    run = task.client.create_run("0", "first", 1, tags)
    if status != "RUNNING":
        task.client.update_run(run.run_id, status, 77)  # type: ignore[arg-type]
    task.store.set(
        "mlflow_run", {"run_id": run.run_id, "try_number": 1, "max_tries": 3, "handle": dict(handle or {})}
    )
    return run


@pytest.mark.parametrize(
    ("status", "max_tries", "expected"),
    [
        ("RUNNING", 3, "KILLED"),  # a retry
        ("RUNNING", 4, "KILLED"),  # a Clear
        ("FINISHED", 3, "KILLED"),  # its success never arrived
        ("FINISHED", 4, "FINISHED"),
        ("FAILED", 3, "FAILED"),
    ],
)
def test_a_try_closes_the_run_of_the_one_before_it_and_names_it(
    status: str, max_tries: int, expected: str, task: Task
) -> None:
    run = left(task, status)
    task.run(try_number=2, max_tries=max_tries)
    before, mine = task.runs
    assert (before.status, mine.status) == (expected, "FINISHED")
    assert before.tags.get(REASON) == ("its worker was lost; superseded by try 2" if expected == "KILLED" else None)
    if status != "RUNNING":
        assert before.end_time == 77
    assert mine.tags["mlflow_projects.supersedes"] == run.run_id


@pytest.mark.parametrize("status", ["RUNNING", "FINISHED", "FAILED"])
def test_a_try_puts_the_tags_of_the_one_before_it_right(status: str, task: Task) -> None:
    """Its project may have taken them off before its worker was lost."""
    run = left(task, status)
    tags = {"airflow.run_id": "manual__1", "mlflow_projects.role": "step"}
    task.store["mlflow_run"]["tags"] = tags
    task.client.log_batch(run.run_id, tags={"airflow.run_id": "mine"})
    task.run(try_number=2)
    read = task.runs[0]
    assert {key: read.tags[key] for key in tags} == tags
    assert read.status == ("FAILED" if status == "FAILED" else "KILLED")


def test_a_try_stops_the_job_of_the_one_before_it_that_its_project_hid(task: Task, jobs: MemoryJobs) -> None:
    left(task)
    task.store["mlflow_run"]["tags"] = {"mlflow_projects.job": json.dumps(JOB_HANDLE)}
    jobs.jobs["job-1"] = JobStatus("running")
    task.run(try_number=2)
    assert "stop job-1" in jobs.calls


def test_who_takes_over_a_job_puts_the_tags_right(task: Task, jobs: MemoryJobs) -> None:
    left(task, handle=JOB_HANDLE)
    task.store["mlflow_run"]["tags"] = {"mlflow.parentRunId": "ab", "airflow.try_number": "1"}
    jobs.jobs["job-1"] = JobStatus("running")
    task.run(try_number=2, backend="memory")
    tags = task.runs[0].tags
    assert (tags["mlflow.parentRunId"], tags["airflow.try_number"]) == ("ab", "2")
    assert task.store["mlflow_run"]["tags"]["mlflow.parentRunId"] == "ab"


@pytest.mark.parametrize(("max_tries", "expected"), [(3, "KILLED"), (4, "FINISHED")], ids=["a retry", "a Clear"])
def test_a_success_that_a_function_of_another_task_opened_again_counts_after_a_clear_only(
    task: Task, max_tries: int, expected: str
) -> None:
    opened_again(task.client, left(task), "FINISHED 77")
    task.run(try_number=2, max_tries=max_tries)
    assert task.runs[0].status == expected


def test_a_first_try_looks_for_nothing_and_a_second_may_find_nothing(task: Task) -> None:
    left(task)
    task.run(try_number=1)
    assert task.runs[0].status == "RUNNING"
    task.store.clear()
    task.run(try_number=2)
    assert ["mlflow_projects.supersedes" in run.tags for run in task.runs[1:]] == [False, False]


def test_a_retry_takes_over_the_job_of_a_lost_worker(task: Task, jobs: MemoryJobs) -> None:
    run = left(task, handle=JOB_HANDLE)
    jobs.jobs["job-1"] = JobStatus("running")
    found = task.run(try_number=2, backend="memory")
    assert found["run_id"] == run.run_id
    (kept,) = task.runs
    assert (kept.status, kept.tags["airflow.try_number"], kept.tags["mlflow_projects.tries"]) == (
        "FINISHED", "2", "1,2",
    )  # fmt: skip
    assert jobs.calls == ["lines", "status", "clear_checkpoint job-1"]
    left_now = task.store["mlflow_run"]
    assert left_now.pop("tags")["airflow.try_number"] == "2"
    assert left_now == {"run_id": run.run_id, "try_number": 2, "max_tries": 3, "handle": JOB_HANDLE}
    assert task.links["_link_Memory_job"] == "http://memory.test/job-1"


def test_tries_that_watched_a_job_in_turn_are_counted_up(task: Task, jobs: MemoryJobs) -> None:
    run = left(task, handle=JOB_HANDLE)
    task.client.log_batch(run.run_id, tags={"mlflow_projects.tries": "1,2"})
    jobs.jobs["job-1"] = JobStatus("running")
    task.run(try_number=3, backend="memory")
    assert task.runs[0].tags["mlflow_projects.tries"] == "1,2,3"


@pytest.mark.parametrize("case", ["a Clear", "another backend", "never submitted", "the run is closed"])
def test_a_job_is_not_taken_over_where_a_new_one_is_wanted(case: str, task: Task, jobs: MemoryJobs) -> None:
    jobs.planned = 1
    left(task, status="FAILED" if case == "the run is closed" else "RUNNING", handle=JOB_HANDLE)
    if case != "never submitted":
        jobs.jobs["job-1"] = JobStatus("running")
    task.run(
        try_number=2,
        max_tries=4 if case == "a Clear" else 3,
        backend="local" if case == "another backend" else "memory",
    )
    before, mine = task.runs
    assert (before.status, mine.status) == ("FAILED" if case == "the run is closed" else "KILLED", "FINISHED")
    assert ("submit" in jobs.calls) is (case != "another backend")


# --- waiting without a slot ---


def deferred(task: Task, **step: Any) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as caught:
        operator(backend="memory", deferrable=True, **step).execute(task.context(step.pop("try_number", 1)))
    return caught.value


def test_a_job_is_waited_for_without_a_slot_until_its_deadline(task: Task, jobs: MemoryJobs) -> None:
    found = deferred(task, poll_interval=7.0)
    assert found.method_name == "resume"
    _, values = found.trigger.serialize()
    (run,) = task.runs
    assert values == {
        "handle": task.store["mlflow_run"]["handle"], "run_id": run.run_id, "deadline": 1600.0, "poll_interval": 7.0,
        "mlflow_conn_id": CONNECTION,
    }  # fmt: skip
    assert run.status == "RUNNING"
    early = deferred(task, execution_timeout=timedelta(seconds=60))
    assert early.trigger.serialize()[1]["deadline"] == 1160.0


def test_after_the_wait_the_run_is_closed_as_the_job_ended(task: Task, jobs: MemoryJobs) -> None:
    deferred(task)
    jobs.jobs["job-1"] = JobStatus("succeeded", 0)
    found = operator(backend="memory", deferrable=True).resume(task.context(), {})
    assert (found["run_id"], found["status"], task.runs[0].status) == (task.runs[0].run_id, "FINISHED", "FINISHED")


def test_a_job_that_is_taken_over_is_waited_for_without_a_slot_too(task: Task, jobs: MemoryJobs) -> None:
    run = left(task, handle=JOB_HANDLE)
    jobs.jobs["job-1"] = JobStatus("running")
    with pytest.raises(TaskDeferred) as caught:
        operator(backend="memory", deferrable=True).execute(task.context(try_number=2))
    assert caught.value.trigger.serialize()[1]["run_id"] == run.run_id
    assert len(task.runs) == 1


def test_a_local_command_always_holds_its_slot(task: Task) -> None:
    assert task.run(deferrable=True)["status"] == "FINISHED"


# --- reuse, and a success that Airflow did not take ---


def test_a_reused_result_is_the_originals_xcom_with_the_link(task: Task) -> None:
    command = f"echo {id(task)}"  # a content of its own
    made = task.run(command, reuse=True)
    again = task.run(command, reuse=True)
    assert again == {**made, "linked_run_id": task.runs[1].run_id}


@pytest.mark.parametrize(
    ("states", "reason"),
    [
        (["running", "running"], None),
        (["running", "success"], None),
        (["running", "failed"], "Airflow had set the task to failed before its success was reported"),
        (["failed", None], "Airflow had set the task to run again before its success was reported"),
        (["running", None], None),  # cleared after a success
    ],
)
def test_a_success_that_airflow_did_not_take_is_withdrawn(
    states: list[str | None], reason: str | None, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = itertools.count(1000)  # a second end would be a later one
    monkeypatch.setattr("mlflow_projects.tracking.closing.now", lambda: next(moments))
    step = operator()
    step.confirm_success(task.context()["ti"])  # nothing finished yet
    task.states = [states[0]]
    step.execute(task.context())
    task.states = [states[1]]
    (ended,) = task.runs
    step.confirm_success(task.context()["ti"])
    (run,) = task.runs
    assert (run.status, run.tags.get(REASON)) == ("KILLED" if reason else "FINISHED", reason)
    assert run.end_time == ended.end_time


# --- settings and what the UI shows ---


def test_airflows_defaults_for_sagemaker_give_way_to_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "AIRFLOW__MLFLOW_PROJECTS__SAGEMAKER"
    monkeypatch.setenv(name, '{"role": "default", "max_run": 60}')
    given = {"role": "mine"}
    assert operator(backend="sagemaker", backend_config=given)._backend_config({}) == {"role": "mine", "max_run": 60}
    assert operator(backend_config=given)._backend_config({}) == given
    for wrong, said in (("{", "is no JSON: "), ("[1]", "must be a JSON object.")):
        monkeypatch.setenv(name, wrong)
        with pytest.raises(ProjectError) as caught:
            operator(backend="sagemaker")._backend_config({})
        assert str(caught.value).startswith(f"Airflow's option [mlflow_projects] sagemaker {said}")
    monkeypatch.setenv(name, "")
    assert operator(backend="sagemaker", backend_config=given)._backend_config({}) == given


def test_a_step_describes_itself_in_one_table() -> None:
    step = operator(parameters={"command": "a | b\n`c`", "n": 1}, uri="/p")
    assert step.doc_md == (
        "Runs an MLflow Project; each try is one MLflow run.\n\n| | |\n|---|---|\n"
        "| project | `/p` |\n| entry point | `main` |\n| backend | `local` |\n"
        "| parameter `command` | `a \\| b 'c'` |\n| parameter `n` | `1` |\n"
    )
    assert operator(doc_md="mine").doc_md == "mine"
    assert "parameter" not in str(operator(parameters="{{ params.all }}").doc_md)
