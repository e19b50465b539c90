"""What an attempt leaves behind, however it ends: the run, its reason, the job outside, and who is told what."""

from __future__ import annotations

import errno
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlflow_projects.attempt.stopping import AttemptKilledError
from mlflow_projects.backends.contract import Handle, Host, JobStatus, OpenRun
from mlflow_projects.exceptions import ProjectError, StepFailedError, TrackingError, TrackingUnavailableError
from mlflow_projects.tracking.client import Run
from mlflow_projects.tracking.tags import dag_run_tag
from tests.support.attempts import SECRET, TASK, Life, MemoryHandle, MemoryJobs, wait_until_gone
from tests.support.memory_tracking import MemoryClient
from tests.support.waiting import wait

REASON, TAIL, EXIT_CODE = "mlflow_projects.reason", "mlflow_projects.output_tail", "mlflow_projects.exit_code"
HANDLE = MemoryHandle("memory", "job-1")


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(tmp_path)


def ending(run: Run) -> tuple[str, str | None, str | None, str | None]:
    return run.status, run.tags.get(REASON), run.tags.get(TAIL), run.tags.get(EXIT_CODE)


# --- a command on this machine ---


def test_a_success_leaves_a_whole_record_and_no_reason(life: Life) -> None:
    command = "echo one; echo two"
    run = life.attempt(command, parent_run_id="parent", supersedes="before", tags={"team": "red"}).run().run
    kept = life.only_run
    assert (run.run_id, run.status) == (kept.run_id, "FINISHED")
    assert (kept.name, kept.status, kept.params) == ("step", "FINISHED", {"command": command})
    assert kept.end_time is not None
    tags = dict(kept.tags)
    assert tags.pop("mlflow.user")
    assert tags == {
        "mlflow.runName": "step",
        "mlflow.parentRunId": "parent",
        "mlflow.source.name": str(life.project),
        "mlflow.source.type": "PROJECT",
        "mlflow.project.entryPoint": "main",
        "mlflow.project.backend": "local",
        "mlflow.project.env": "local",
        "mlflow.note.content": "[Airflow task group.step, DAG run manual__1, try 2](http://airflow.test/step)",
        "mlflow_projects.role": "step",
        "mlflow_projects.attempt_id": "attempt-1",
        "mlflow_projects.supersedes": "before",
        "mlflow_projects.ended_as": f"FINISHED {kept.end_time}",
        "mlflow_projects.parameters": json.dumps({"command": command}),
        "airflow.dag_id": "dag",
        "airflow.run_id": "manual__1",
        "airflow.task_id": "group.step",
        "airflow.map_index": "-1",
        "airflow.try_number": "2",
        "airflow.task_url": "http://airflow.test/step",
        dag_run_tag("dag", "manual__1"): "1",
        "team": "red",
    }
    assert life.opened == [(kept.run_id, None)]
    assert life.client.calls == ["create_run", "get_run", "log_batch", "update_run"]
    assert life.log[-2:] == ["one", "two"]
    assert not list((life.folder / "cache" / "workspaces").iterdir())


def test_the_code_that_ran_is_named_with_its_commit_and_whether_it_was_changed(life: Life, tmp_path: Path) -> None:
    from tests.support.repository import Repository

    origin = Repository(tmp_path / "origin")
    commit = origin.commit("committed")
    (origin.tree / "more.txt").touch()
    life.attempt(uri=str(origin.tree), parameters={}).run()
    life.attempt(uri=origin.url, version="trunk", parameters={}).run()
    here, fetched = (
        {name.removeprefix("mlflow.source.git."): value for name, value in run.tags.items() if ".git." in name}
        for run in life.runs
    )
    assert here == {"commit": commit, "dirty": "true", "repoURL": str(origin.bare)}
    assert fetched == {"commit": commit, "branch": "trunk", "repoURL": origin.url}


def test_the_content_of_a_zip_file_is_recorded(life: Life, tmp_path: Path) -> None:
    import hashlib
    import shutil

    zipped = Path(shutil.make_archive(str(tmp_path / "shell"), "zip", life.project))
    life.attempt("true", uri=str(zipped)).run()
    assert life.only_run.tags["mlflow_projects.source.sha256"] == hashlib.sha256(zipped.read_bytes()).hexdigest()


def test_the_command_learns_its_run_and_where_to_track(life: Life) -> None:
    life.attempt("env").run()
    seen = dict(line.split("=", 1) for line in life.log if line.startswith("MLFLOW_"))
    del seen["MLFLOW_DISABLE_TELEMETRY"]  # of all tests
    assert seen.pop("MLFLOW_PROJECTS_TREE")
    assert json.loads(seen.pop("MLFLOW_RUN_CONTEXT")) == TASK.inner_tags()
    seen.pop("MLFLOW_HTTP_REQUEST_MAX_RETRIES")  # of the tests' own environment, as a worker may have it
    assert seen == {
        "MLFLOW_RUN_ID": life.only_run.run_id,
        "MLFLOW_EXPERIMENT_ID": "0",
        **life.client.settings.environment(),
    }
    assert seen["MLFLOW_TRACKING_URI"] == "http://tracking.test"


@pytest.mark.parametrize(("wanted", "seen"), [(True, ["true"]), (False, [])])
def test_mlflow_in_the_command_measures_the_machine_if_that_is_wanted(
    life: Life, wanted: bool, seen: list[str]
) -> None:
    life.attempt("env", system_metrics=wanted).run()
    name = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING="
    assert [line.removeprefix(name) for line in life.log if line.startswith(name)] == seen


def test_the_run_is_open_and_announced_before_the_first_line(life: Life) -> None:
    seen = []
    life.on_line = lambda line: seen.append((line, life.only_run.status, len(life.opened)))
    life.attempt("echo begun").run()
    assert seen[-1] == ("begun", "RUNNING", 1)


def test_a_command_that_needs_nothing_begins_while_the_run_is_announced(life: Life) -> None:
    attempt = life.attempt("touch begun")
    attempt.on_open = lambda run, handle: wait((life.project / "begun").exists, "the command", 60)
    attempt.run()


def test_what_may_take_time_before_the_command_comes_after_the_announcement(life: Life) -> None:
    """A person who waits for an environment or a download finds the run, and so does the next try."""
    (life.project / "MLproject").write_text(
        "name: p\nentry_points:\n  main:\n    parameters: {file: path}\n    command: test -e {file}\n"
    )
    seen = []
    life.on_line = lambda line: seen.append(len(life.opened))
    life.attempt(parameters={"file": "MLproject"}).run()
    assert seen[0] == 1  # "Running: …"


def test_a_command_whose_run_cannot_be_announced_is_stopped(life: Life) -> None:
    attempt = life.attempt("echo $$ > number; sleep 600", backend_config={"grace_seconds": 0.2})

    def refuse(*_: object) -> None:
        wait(lambda: (life.project / "number").exists() and (life.project / "number").read_text(), "the command")
        raise RuntimeError("Airflow is away")

    attempt.on_open = refuse
    with pytest.raises(RuntimeError, match="Airflow is away"):
        attempt.run()
    assert life.only_run.status == "KILLED"
    assert life.only_run.tags["mlflow_projects.reason"] == "stopped: RuntimeError Airflow is away"
    wait_until_gone(int((life.project / "number").read_text()))


def test_a_failure_says_why_with_the_exit_status_and_the_last_lines(life: Life) -> None:
    with pytest.raises(StepFailedError) as caught:
        life.attempt("for n in $(seq 30); do echo line $n; done; exit 3").run()
    reason = f"{life.name} failed: exit status 3: line 30."
    assert str(caught.value) == reason
    tail = "\n".join(f"line {n}" for n in range(11, 31))
    assert ending(life.only_run) == ("FAILED", reason, tail, "3")
    assert life.client.calls.count("update_run") == 1


def test_the_exit_status_decides_not_what_the_project_wrote(life: Life) -> None:
    def swallow(line: str) -> None:
        if line == "swallowed":
            life.client.update_run(life.only_run.run_id, "FINISHED", 1)

    life.on_line = swallow
    with pytest.raises(StepFailedError):
        life.attempt("echo swallowed; exit 1").run()
    assert life.only_run.status == "FAILED"
    assert life.only_run.end_time != 1


def test_long_output_is_cut_from_its_beginning_and_keeps_no_secret(life: Life) -> None:
    with pytest.raises(StepFailedError):
        life.attempt(f"printf 'a%.0s' $(seq 5000); echo {SECRET} end; exit 1").run()
    tail = life.only_run.tags[TAIL]
    assert tail == ("a" * 5000 + "*** end")[-4000:]


def test_no_secret_gets_into_the_record(life: Life, tmp_path: Path) -> None:
    with pytest.raises(StepFailedError) as caught:
        life.attempt(f"echo {SECRET}; exit 1").run()
    assert life.only_run.params == {"command": "echo ***; exit 1"}
    project = tmp_path / SECRET
    project.mkdir()
    (project / "MLproject").write_text("entry_points: {main: {command: 'exit 1'}}")
    with pytest.raises(StepFailedError) as caught:
        life.attempt(uri=str(project), parameters={}).run()
    assert "***" in str(caught.value)
    with pytest.raises(ProjectError):
        life.attempt(uri=str(project), entry_point="none").run()
    failed, refused = life.runs[1:]
    assert "/***" in failed.tags["mlflow.source.name"]
    assert "/***" in refused.tags["mlflow.source.name"]
    assert "/***" in refused.tags[REASON]
    assert SECRET not in str(life.runs)


def test_what_a_parameter_loses_in_the_record_is_said(life: Life) -> None:
    # Twice the longest: one that is just not too long is not spoken of.
    life.attempt("true", parameters={"command": "true", "more": "x" * 6001, "fits": "y" * 6000}).run()
    assert {name: len(value) for name, value in life.only_run.params.items()} == {
        "command": 4, "more": 6000, "fits": 6000,
    }  # fmt: skip
    said = [line for line in life.log if "characters" in line]
    assert said == ["Parameter 'more' has 6001 characters; MLflow records the first 6000."]


def test_a_failed_command_whose_artifact_store_is_out_of_reach_says_so(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OnS3(MemoryClient):
        def create_run(self, *arguments: Any) -> Run:
            run = replace(super().create_run(*arguments), artifact_uri="s3://bucket/0/run/artifacts")
            self._runs[run.run_id].run = run
            return run

    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_PROFILE", "nobody")  # so boto3 asks nobody
    life.client = OnS3()
    for status in (125, 126):
        with pytest.raises(StepFailedError):
            life.attempt(f"exit {status}").run()
    asked = "Its artifact store s3://bucket cannot be used: The config profile (nobody) could not be found."
    assert [run.tags[REASON].removeprefix(f"{life.name} failed: exit status ") for run in life.runs] == [
        f"125. {asked}",
        "126: the command cannot be executed.",
    ]


# --- nothing is started ---


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"backend": "kubernetes"}, "There is no backend 'kubernetes'; use one of: local, sagemaker."),
        ({"parameters": {}}, "no value for the parameter 'command'"),
        ({"entry_point": "train"}, "has no entry point 'train'"),
        ({"uri": "/no/such/project"}, "The project /no/such/project does not exist on this worker; check the uri."),
        ({"backend_config": {"grace": 3}}, "backend_config has the unknown key 'grace'; known are: "),
        ({"env_manager": "pip"}, "There is no env_manager 'pip'; use one of: "),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_started(step: dict[str, Any], said: str, life: Life) -> None:
    with pytest.raises(ProjectError) as caught:
        life.attempt("echo started", **step).run()
    assert said in str(caught.value)
    run = life.only_run
    assert ending(run) == ("FAILED", str(caught.value), None, None)
    assert run.end_time is not None
    assert life.opened == [(run.run_id, None)]
    assert life.log == []
    assert {name: value for name, value in run.tags.items() if name.startswith("mlflow.project.")} == {
        "mlflow.project.entryPoint": step.get("entry_point", "main"),
        "mlflow.project.backend": step.get("backend", "local"),
    }
    assert run.tags["mlflow.source.name"] == step.get("uri", str(life.project))


def test_a_refusal_that_cannot_be_recorded_is_said_all_the_same(life: Life) -> None:
    def refuse(method: str, arguments: tuple[Any, ...]) -> None:
        raise TrackingError("The tracking server says no.")

    life.client.before = refuse
    with pytest.raises(ProjectError, match="There is no backend 'x'"):
        life.attempt(backend="x").run()
    assert life.runs == []
    assert life.log == ["The end of this attempt could not be recorded in MLflow: The tracking server says no."]


def test_without_a_record_no_command_starts(life: Life, tmp_path: Path) -> None:
    def refuse(method: str, arguments: tuple[Any, ...]) -> None:
        raise TrackingError("The tracking server says no.")

    life.client.before = refuse
    with pytest.raises(TrackingError, match="says no"):
        life.attempt(f"touch {tmp_path}/started").run()
    assert not (tmp_path / "started").exists()
    assert life.opened == []


def test_whatever_ends_the_preparation_is_recorded_as_killed(life: Life) -> None:
    attempt = life.attempt("true", parameters={"command": "true", "long": "x" * 6001})
    life.on_line = lambda line: (_ for _ in ()).throw(TimeoutError(f"too slow, {SECRET}"))
    with pytest.raises(TimeoutError):
        attempt.run()
    assert ending(life.only_run) == ("KILLED", "stopped: TimeoutError too slow, ***", None, None)


# --- the end ---


def test_airflows_timeout_is_recorded_as_killed_with_the_output_so_far(life: Life) -> None:
    def time_out(line: str) -> None:
        if line == "second":
            raise TimeoutError("after 3 s")

    life.on_line = time_out
    with pytest.raises(TimeoutError):
        life.attempt("echo first; echo second; sleep 600; echo ended").run()
    assert ending(life.only_run) == ("KILLED", "stopped: TimeoutError after 3 s", "first", None)
    assert "ended" not in life.log
    assert life.client.calls.count("update_run") == 1


def test_a_time_out_stays_one_when_the_tracking_server_is_away(life: Life) -> None:
    def away(method: str, arguments: tuple[Any, ...]) -> None:
        raise TrackingUnavailableError("The tracking server does not answer.")

    def time_out(line: str) -> None:
        if line == "begun":
            life.client.before = away
            raise TimeoutError("after 3 s")

    life.on_line = time_out
    with pytest.raises(TimeoutError, match="after 3 s"):
        life.attempt("echo begun; sleep 600").run()
    assert life.only_run.status == "RUNNING"  # whoever comes next closes it


def test_a_command_that_airflow_stopped_is_killed_whatever_its_exit_status_says(life: Life) -> None:
    attempt = life.attempt("trap 'echo tidied; exit 0' TERM; echo ready; while :; do :; done")
    life.on_line = lambda line: attempt.kill() if line == "ready" else None
    with pytest.raises(AttemptKilledError, match=r"^stopped by Airflow$"):
        attempt.run()
    assert ending(life.only_run) == ("KILLED", "stopped by Airflow", "ready\ntidied", "0")
    assert life.client.calls.count("update_run") == 1


OVER = "stopped: its execution_timeout is over"


def test_a_time_out_whose_exception_is_lost_ends_the_command_all_the_same(life: Life) -> None:
    attempt = life.attempt("echo ready; sleep 600; true")
    seen = []
    life.on_line = lambda line: seen.append(attempt.expire()) if line == "ready" else None
    with pytest.raises(AttemptKilledError, match=f"^{OVER}$"):
        attempt.run()
    assert (life.only_run.status, life.only_run.tags[REASON]) == ("KILLED", OVER)
    assert seen == [True], "no exception is needed for it"


def test_a_time_out_whose_exception_is_lost_before_the_start_starts_nothing(life: Life) -> None:
    attempt = life.attempt("touch started")
    attempt.expire()
    with pytest.raises(AttemptKilledError, match=f"^{OVER}$"):
        attempt.run()
    assert life.only_run.status == "KILLED"
    assert OVER in life.only_run.tags[REASON]
    assert "Running" not in "".join(life.log)


def test_a_run_that_was_given_up_meanwhile_stays_as_it_is(life: Life) -> None:
    def give_up(line: str) -> None:
        if line == "partitioned":
            life.client.log_batch(life.only_run.run_id, tags={REASON: "its worker was lost"})
            life.client.update_run(life.only_run.run_id, "KILLED", 77)

    life.on_line = give_up
    with pytest.raises(AttemptKilledError, match=r"^given up before its command ended: its worker was lost$"):
        life.attempt("echo partitioned").run()
    run = life.only_run
    assert (ending(run), run.end_time, run.params) == (("KILLED", "its worker was lost", None, None), 77, {})


def test_a_server_that_refuses_the_end_of_a_success_fails_the_attempt(life: Life) -> None:
    def refuse(method: str, arguments: tuple[Any, ...]) -> None:
        if method == "update_run":
            raise TrackingError("The tracking server says no.")

    life.client.before = refuse
    with pytest.raises(TrackingError, match="says no"):
        life.attempt("true", keep=True).run()
    assert life.client.calls.count("update_run") == 1


# --- checkpoints ---


def test_a_failure_keeps_its_checkpoint_and_the_next_success_clears_it(life: Life) -> None:
    command = 'ls "$MLFLOW_PROJECTS_CHECKPOINT_DIR"; touch "$MLFLOW_PROJECTS_CHECKPOINT_DIR"/epoch; exit '
    kept = life.folder / "checkpoints" / TASK.key
    with pytest.raises(StepFailedError):
        life.attempt(command + "1", keep=True).run()
    assert [file.name for file in kept.iterdir()] == ["epoch"]
    life.attempt(command + "0", keep=True).run()
    assert life.log[-1] == "epoch"
    assert not kept.exists()


def test_without_a_place_for_checkpoints_a_command_gets_none(life: Life) -> None:
    life.attempt('echo "<$MLFLOW_PROJECTS_CHECKPOINT_DIR>"').run()
    assert life.log[-1] == "<>"


# --- reuse ---


def test_an_earlier_result_ends_the_attempt_before_anything_is_started(life: Life) -> None:
    life.attempt("echo made", reuse="look").run()
    before = life.only_run
    life.log.clear()
    found = life.attempt("echo made", reuse="look").run()
    made, linked = life.runs
    assert made == before
    assert (found.original, found.run.run_id) == (made, linked.run_id)
    assert (linked.status, linked.params, linked.tags["mlflow_projects.reused_from"]) == (
        "FINISHED", made.params, made.run_id,
    )  # fmt: skip
    assert REASON not in linked.tags
    assert life.opened == [(made.run_id, None), (linked.run_id, None)]
    assert "made" not in life.log


def test_a_failure_is_no_result_and_another_content_is_another_one(life: Life) -> None:
    for command in ("echo made; exit 1", "echo made; exit 1", "echo made; false"):
        with pytest.raises(StepFailedError):
            life.attempt(command, reuse="look").run()
    assert life.log.count("made") == 3


def test_a_file_that_cannot_be_read_refuses_the_attempt_before_it_starts(life: Life, tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "MLproject").write_text("python_env: e.yaml\nentry_points: {main: {command: 'true'}}")
    (tmp_path / "project" / "e.yaml").write_text("dependencies: ['-r none.txt']")
    with pytest.raises(ProjectError) as caught:
        life.attempt(uri=str(tmp_path / "project"), parameters={}, env_manager="uv", reuse="look").run()
    assert ending(life.only_run) == ("FAILED", str(caught.value), None, None)


# --- a job elsewhere ---


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> MemoryJobs:
    return MemoryJobs(lines=tuple(f"line {n}" for n in range(25))).install(monkeypatch)


def submitted(life: Life, **step: Any) -> tuple[Run, Handle]:
    started = life.attempt(backend="memory", **step).start()
    assert started.handle
    assert started.original is None
    return started.run, started.handle


def test_a_job_elsewhere_is_known_before_it_is_submitted(life: Life, jobs: MemoryJobs) -> None:
    seen: list[Any] = []

    def look(call: str) -> None:
        if call == "submit":
            tags = life.only_run.tags
            seen.extend((json.loads(tags["mlflow_projects.job"]), tags["memory.job"], list(life.opened)))

    jobs.before = look
    run, handle = submitted(life)
    assert handle == HANDLE
    assert seen == [HANDLE.as_json(), "job-1", [(run.run_id, HANDLE)]]
    assert jobs.calls == ["prepare", "stage", "submit"]
    assert life.only_run.status == "RUNNING"
    job, opened = jobs.submitted["job-1"]
    assert opened == OpenRun(
        {
            "MLFLOW_RUN_ID": run.run_id,
            "MLFLOW_EXPERIMENT_ID": "0",
            "MLFLOW_RUN_CONTEXT": json.dumps(TASK.inner_tags()),
        },
        run.artifact_uri,
        checkpoint=None,
    )
    assert (job.label, job.attempt_id, job.task_key) == ("dag-step", "attempt-1", TASK.key)
    assert (job.checkpoint_days, job.redact(SECRET)) == (14.0, "***")


def test_another_process_concludes_what_this_one_started(life: Life, jobs: MemoryJobs) -> None:
    run, handle = submitted(life)
    jobs.jobs["job-1"] = JobStatus("succeeded", 0, metrics={"sagemaker/seconds": 3.0}, tags={"memory.host": "a"})
    found = life.attempt(backend="memory").conclude(run, handle)
    assert found.run.status == "FINISHED"
    kept = life.only_run
    assert (kept.status, kept.params, kept.metrics) == ("FINISHED", {"command": "true"}, {"sagemaker/seconds": 3.0})
    assert kept.tags["memory.host"] == "a"
    assert jobs.calls[3:] == ["last_lines", "status", "clear_checkpoint job-1"]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (JobStatus("failed", 3, "the algorithm failed."), ("FAILED", "failed: the algorithm failed: line 24.", "3")),
        (JobStatus("stopped", None, "by a person"), ("KILLED", "was stopped: by a person.", None)),
        (JobStatus("running"), ("KILLED", "did not end in time and was stopped.", None)),
    ],
)
def test_the_verdict_on_a_job_elsewhere(
    status: JobStatus, expected: tuple[str, str, str | None], life: Life, jobs: MemoryJobs
) -> None:
    run, handle = submitted(life)
    jobs.jobs["job-1"] = replace(status, metrics={"cost": 1.0}) if status.state != "running" else status
    with pytest.raises(StepFailedError) as caught:
        life.attempt(backend="memory").conclude(run, handle)
    kept = life.only_run
    state, reason, code = expected[0], f"{life.name} {expected[1]}", expected[2]
    tail = "\n".join(f"line {n}" for n in range(5, 25))
    assert ending(kept) == (state, reason, tail, code)
    assert str(caught.value) == reason
    assert kept.metrics == ({} if status.state == "running" else {"cost": 1.0})
    assert ("cancel job-1" in jobs.calls) is (status.state == "running")
    assert "clear_checkpoint job-1" not in jobs.calls
    assert jobs.waited == [60.0, 60.0]


def test_a_later_try_follows_the_job_to_the_end_of_the_same_run(life: Life, jobs: MemoryJobs) -> None:
    run, handle = submitted(life)
    life.attempt(backend="memory", tags={"late": "yes"}).attach(run, handle)
    assert life.log == list(jobs.lines)
    assert (life.only_run.status, life.only_run.params) == ("FINISHED", {"command": "true"})
    second, handle = submitted(life)
    life.attempt(backend="memory", parameters={"command": 7}).attach(second, handle)  # as it was when it began
    third, handle = submitted(life)
    cut = replace(third, tags={**third.tags, "mlflow_projects.parameters": '{"command": "tr'})
    life.attempt(backend="memory", parameters={"command": 7}).attach(cut, handle)
    assert [run.params for run in life.runs[1:]] == [{"command": "true"}, {"command": "7"}]
    jobs.kept_parameters = {"command": "true", "of the MLproject": "default"}
    fourth, handle = submitted(life)
    cut = replace(fourth, tags={**fourth.tags, "mlflow_projects.parameters": '{"command": "tr'})
    life.attempt(backend="memory", parameters={"command": 7}).attach(cut, handle)
    assert life.runs[3].params == jobs.kept_parameters


def test_a_checkpoint_that_stays_is_no_failure(life: Life, jobs: MemoryJobs) -> None:
    def refuse(call: str) -> None:
        if call.startswith("clear_checkpoint"):
            raise StepFailedError("S3 is away.")

    jobs.before = refuse
    assert life.attempt(backend="memory").run().run.status == "FINISHED"
    assert life.log[-1] == "The checkpoint stays, until it is old: S3 is away."


@pytest.mark.parametrize(
    ("error", "status", "reason", "cancelled"),
    [
        (StepFailedError(f"AWS is away, {SECRET}."), "FAILED", "AWS is away, ***.", True),
        (ProjectError("No such role."), "FAILED", "No such role.", False),
        (TimeoutError("3 s"), "KILLED", "stopped: TimeoutError 3 s", True),
    ],
)
def test_a_job_that_may_be_there_is_stopped_when_its_submission_fails(
    error: BaseException, status: str, reason: str, cancelled: bool, life: Life, jobs: MemoryJobs
) -> None:
    def refuse(call: str) -> None:
        if call == "submit":
            raise error

    jobs.before = refuse
    with pytest.raises(type(error)):
        life.attempt(backend="memory").run()
    assert ending(life.only_run)[:2] == (status, reason)
    assert ("cancel job-1" in jobs.calls) is cancelled
    assert jobs.waited == [60.0]
    assert life.client.calls.count("update_run") == 1


@pytest.mark.parametrize(("error", "status"), [(StepFailedError("S3 is away."), "FAILED"), (OSError("x"), "KILLED")])
def test_no_job_is_stopped_that_was_never_submitted(
    error: BaseException, status: str, life: Life, jobs: MemoryJobs
) -> None:
    def refuse(call: str) -> None:
        if call == "stage":
            raise error

    jobs.before = refuse
    with pytest.raises(type(error)):
        life.attempt(backend="memory").run()
    assert jobs.calls == ["prepare", "stage"]
    assert life.only_run.status == status


@pytest.mark.parametrize(
    ("moment", "calls"),
    [
        ("prepare", ["prepare"]),
        ("stage", ["prepare", "stage"]),
        ("submit", ["prepare", "stage", "submit", "cancel job-1", "cancel job-1", "lines", "status"]),
        ("lines", ["prepare", "stage", "submit", "lines", "cancel job-1", "status"]),
        ("status", ["prepare", "stage", "submit", "lines", "status", "cancel job-1"]),
    ],
)
def test_airflow_stops_a_job_elsewhere_at_any_moment(
    moment: str, calls: list[str], life: Life, jobs: MemoryJobs
) -> None:
    attempt = life.attempt(backend="memory")
    jobs.before = lambda call: attempt.kill() if call == moment else None
    with pytest.raises(AttemptKilledError, match=r"^stopped by Airflow$"):
        attempt.run()
    assert jobs.calls == calls
    run = life.only_run
    assert run.status == "KILLED"
    assert run.tags[REASON] in ("stopped by Airflow", "stopped: AttemptKilledError stopped by Airflow")
    assert life.client.calls.count("update_run") == 1
    assert jobs.waited[-1:] in ([], [4.0])


@pytest.mark.parametrize("moment", ["prepare", "stage", "submit", "lines", "status"])
def test_a_lost_time_out_ends_a_job_elsewhere_at_any_moment(moment: str, life: Life, jobs: MemoryJobs) -> None:
    attempt = life.attempt(backend="memory")
    seen: list[str] = []

    def look(call: str) -> None:
        seen.append(call)
        if call == moment:
            attempt.expire()

    jobs.before = look
    with pytest.raises(AttemptKilledError, match=f"^{OVER}$"):
        attempt.run()
    assert moment in seen
    assert (life.only_run.status, OVER in life.only_run.tags[REASON]) == ("KILLED", True)
    assert life.client.calls.count("update_run") == 1


def test_a_project_that_a_remote_backend_refuses_is_never_staged(life: Life, jobs: MemoryJobs) -> None:
    def refuse(call: str) -> None:
        if call == "prepare":
            raise ProjectError("This backend needs an image.")

    jobs.before = refuse
    with pytest.raises(ProjectError, match=r"^This backend needs an image\.$"):
        life.attempt(backend="memory").run()
    assert jobs.calls == ["prepare"]
    assert ending(life.only_run)[:2] == ("FAILED", "This backend needs an image.")


def test_a_step_that_waits_for_others_has_no_job_before_its_turn(life: Life, jobs: MemoryJobs) -> None:
    run, handle = submitted(life, reuse="wait")
    assert handle == MemoryHandle("memory", "job-2")  # anew: its deadline counts from its turn
    assert life.opened == [(run.run_id, None), (run.run_id, handle)]
    assert json.loads(life.only_run.tags["mlflow_projects.job"]) == handle.as_json()
    assert life.only_run.tags["memory.job"] == "job-2"
    assert jobs.calls == ["prepare", "stage", "submit"]


def test_a_result_that_is_taken_over_names_no_job(life: Life, jobs: MemoryJobs) -> None:
    made = life.attempt(backend="memory", reuse="look").run()
    for reuse in ("look", "wait"):
        found = life.attempt(backend="memory", reuse=reuse).start()
        assert (found.original, found.handle) == (life.runs[0], None)
        assert {"mlflow_projects.job", "memory.job"} & {*life.runs[-1].tags} == set()
    assert {"mlflow_projects.job", "memory.job"} <= {*life.runs[0].tags}
    assert life.opened[1:] == [(run.run_id, None) for run in life.runs[1:]]
    assert made.original is None


def test_the_backend_works_with_the_attempts_settings(life: Life, jobs: MemoryJobs) -> None:
    attempt = life.attempt(backend="memory")
    attempt.aws_conn_id, attempt.poll_interval = "aws_team", 3.0
    attempt.run()
    assert jobs.hosts == [Host(attempt.log, "aws_team", 3.0)]


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), shutil.Error([("a", "b", "[Errno 28] No space left")])],
)
def test_a_full_disk_is_a_sentence_and_no_retry(error: OSError, life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(ProjectError, match=r"The cache folder .* cannot be written .*No space left.* make room"):
        life.attempt().run()
    assert life.only_run.status == "FAILED"
    assert "make room" in life.only_run.tags[REASON]


def test_a_cache_of_another_user_is_a_sentence_and_a_closed_project_is_its_own(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = life.attempt()
    closed = attempt.cache.root / "git" / "a.lock"

    def refuse(*_: Any, **__: Any) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(closed))

    monkeypatch.setattr("mlflow_projects.attempt.life.fetch", refuse)
    with pytest.raises(
        ProjectError, match=r"The cache folder .* \(Permission denied\); let this user write there, or"
    ):
        attempt.run()
    closed = Path("/project/MLproject")
    with pytest.raises(PermissionError):
        life.attempt().run()
