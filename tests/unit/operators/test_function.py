"""A function as a step: what its run holds, how it ends, and what Airflow's signals do to it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from mlflow_projects import MLflowTaskOperator, mlflow_run, mlflow_task
from mlflow_projects.exceptions import TrackingError, TrackingUnavailableError
from mlflow_projects.operators import supervision
from mlflow_projects.tracking.client import Run, now
from tests.support.memory_tracking import MemoryClient
from tests.support.tracked import CONNECTION, TaskInstance, connected, running

REASON, TAIL, CAUSE = "mlflow_projects.reason", "mlflow_projects.output_tail", "mlflow_projects.cause"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> MemoryClient:
    return connected(monkeypatch)


@pytest.fixture(autouse=True)
def _without_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that does not import MLflow finds none in its process."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "mlflow"]:
        monkeypatch.delitem(sys.modules, name)


def called(function: Any, ti: TaskInstance | None = None, **arguments: Any) -> Any:
    with DAG("dag", schedule=None):
        step = MLflowTaskOperator(task_id="step", python_callable=function, mlflow_conn_id=CONNECTION, **arguments)
    return running(step, ti or TaskInstance("step"))


def only(client: MemoryClient) -> Run:
    (run,) = client.runs
    return run


def test_the_run_is_open_while_the_function_works_and_finished_after_it(client: MemoryClient) -> None:
    seen: list[Any] = []

    def function(
        rate: float, *more: int, name: str = "x", deep: bool = True, nothing: None = None, **rest: Any
    ) -> str:
        run = only(client)
        seen.append((run.status, os.environ["MLFLOW_RUN_ID"] == run.run_id, os.environ["MLFLOW_TRACKING_URI"]))
        return "value"

    ti = TaskInstance("step")
    arguments = {"op_args": [0.5, 1, 2], "op_kwargs": {"name": "y", "extra": 3, "listed": [4]}}
    assert called(function, ti, **arguments, tags={"team": "red"}) == "value"
    run = only(client)
    assert seen == [("RUNNING", True, "http://tracking.test")]
    assert (run.status, run.name) == ("FINISHED", "step")
    assert run.params == {"rate": "0.5", "name": "y", "deep": "True", "extra": "3"}
    assert run.tags["team"] == "red"
    assert run.tags["mlflow_projects.role"] == "step"
    assert ti.pushed["mlflow_run"]["run_id"] == run.run_id
    assert ti.pushed["mlflow_run"]["status"] == "FINISHED"
    assert ti.store["mlflow_run"]["run_id"] == run.run_id
    assert "mlflow" not in sys.modules
    assert "MLFLOW_RUN_ID" not in os.environ


def test_what_is_left_of_the_environment_is_what_was_there(
    client: MemoryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    monkeypatch.setenv("MLFLOW_OWN", "kept")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def function() -> None:
        os.environ["MLFLOW_OWN"] = "changed"
        del os.environ["MLFLOW_EXPERIMENT_ID"]

    called(function)
    assert {name: os.environ.get(name) for name in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_OWN", "MLFLOW_TRACKING_URI")} == {
        "MLFLOW_EXPERIMENT_ID": "0", "MLFLOW_OWN": "kept", "MLFLOW_TRACKING_URI": None,
    }  # fmt: skip


@pytest.mark.parametrize(("wanted", "seen"), [(True, "true"), (False, None)])
def test_mlflow_measures_the_machine_if_that_is_wanted(client: MemoryClient, wanted: bool, seen: str | None) -> None:
    name = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
    assert called(lambda: os.environ.get(name), system_metrics=wanted) == seen
    assert name not in os.environ


def raising(error: BaseException) -> Any:
    def function() -> None:
        raise error

    return function


def test_what_it_raises_is_the_reason_and_goes_on_to_airflow(client: MemoryClient) -> None:
    with pytest.raises(ValueError, match="no such luck"):
        called(raising(ValueError("no such luck")))
    run = only(client)
    assert (run.status, run.tags[REASON], run.tags[CAUSE]) == ("FAILED", "ValueError: no such luck", "user_error")
    assert run.tags[TAIL].splitlines()[-1] == "ValueError: no such luck"


def test_an_error_that_cannot_say_what_it_is_closes_the_run_too(client: MemoryClient) -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    with pytest.raises(MuteError):
        called(raising(MuteError()))
    assert (only(client).status, only(client).tags[REASON]) == ("FAILED", "MuteError")


@pytest.mark.parametrize("is_async", [False, True])
def test_the_trace_begins_in_the_function_wherever_its_file_is(client: MemoryClient, is_async: bool) -> None:
    """The folder of DAGs of Airflow's own image is called like a part of Airflow."""
    source = f"""
def deeper():
    raise ValueError("no such luck")


{"async " if is_async else ""}def function():
    deeper()
"""
    names: dict[str, Any] = {"__name__": "unusual_prefix_1_dag"}
    exec(compile(source, "/opt/airflow/dags/dag.py", "exec"), names)
    with pytest.raises(ValueError, match="no such luck"):
        called(names["function"])
    places = [line.strip() for line in only(client).tags[TAIL].splitlines() if "File" in line]
    assert places == [
        'File "/opt/airflow/dags/dag.py", line 7, in function',
        'File "/opt/airflow/dags/dag.py", line 3, in deeper',
    ]


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (ValueError(), "FAILED"), (AirflowSkipException(), "FINISHED")]
)
def test_the_xcom_says_how_the_run_ended(client: MemoryClient, error: Exception | None, status: str) -> None:
    ti = TaskInstance("step")
    with contextlib.suppress(ValueError, AirflowSkipException):
        called(raising(error) if error else lambda: None, ti)
    assert ti.pushed["mlflow_run"]["status"] == only(client).status == status


def test_arguments_that_the_function_does_not_ask_for_are_left_out_as_airflow_does(client: MemoryClient) -> None:
    assert called(lambda rate: rate, op_kwargs={"rate": 1, "of_another_function": 2}) == 1
    assert only(client).params == {"rate": "1"}


def test_a_skip_is_no_failure(client: MemoryClient) -> None:
    with pytest.raises(AirflowSkipException):
        called(raising(AirflowSkipException("nothing new")))
    run = only(client)
    assert (run.status, run.tags[REASON], CAUSE in run.tags) == ("FINISHED", "skipped: nothing new", False)


@pytest.mark.parametrize("error", [SystemExit(3), SystemExit(0)])
def test_an_exit_is_a_failure_as_it_is_for_airflow(client: MemoryClient, error: SystemExit) -> None:
    with pytest.raises(SystemExit):
        called(raising(error))
    assert only(client).status == "FAILED"


def test_ctrl_c_is_a_kill(client: MemoryClient) -> None:
    with pytest.raises(KeyboardInterrupt):
        called(raising(KeyboardInterrupt()))
    run = only(client)
    assert (run.status, run.tags[REASON], run.tags[CAUSE]) == ("KILLED", "stopped: KeyboardInterrupt", "interrupted")


def test_the_functions_own_error_counts_over_a_server_that_is_away(client: MemoryClient) -> None:
    def away(method: str, _: Any) -> None:
        raise TrackingUnavailableError(f"{method}: no answer")

    def function() -> None:
        client.before = away
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        called(function)


def test_a_server_that_is_away_at_the_end_of_a_success_is_a_failure(client: MemoryClient) -> None:
    def away(method: str, _: Any) -> None:
        if method != "close":
            raise TrackingUnavailableError(f"{method}: no answer")

    def function() -> None:
        client.before = away

    with pytest.raises(AirflowException, match="no answer"):
        called(function)


# --- signals ---


@pytest.fixture
def airflows_handlers() -> Iterator[None]:
    """SIGTERM calls ``on_kill``, as in Airflow's task process."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def killed(function: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = MLflowTaskOperator.execute

    def execute(self: MLflowTaskOperator, context: Any) -> Any:
        signal.signal(signal.SIGTERM, lambda *_: self.on_kill())
        return real(self, context)

    monkeypatch.setattr(MLflowTaskOperator, "execute", execute)
    called(function)


@pytest.mark.usefixtures("airflows_handlers")
@pytest.mark.parametrize("swallows", [False, True])
def test_a_kill_ends_the_function_and_the_run(
    client: MemoryClient, monkeypatch: pytest.MonkeyPatch, swallows: bool
) -> None:
    def function() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(60)
        except Exception:
            if not swallows:
                raise

    with pytest.raises(AirflowException, match=r"The attempt was stopped by Airflow\."):
        killed(function, monkeypatch)
    run = only(client)
    assert (run.status, run.tags[REASON], run.tags[CAUSE]) == ("KILLED", "stopped by Airflow", "interrupted")


@pytest.mark.usefixtures("airflows_handlers")
def test_a_kill_that_the_function_takes_for_a_reason_to_skip_is_a_kill(
    client: MemoryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def function() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(60)
        except Exception as error:
            raise AirflowSkipException("the source is away") from error

    with pytest.raises(AirflowException, match=r"The attempt was stopped by Airflow\."):
        killed(function, monkeypatch)
    assert (only(client).status, only(client).tags[REASON]) == ("KILLED", "stopped by Airflow")


@pytest.mark.usefixtures("airflows_handlers")
def test_a_function_that_hears_no_signal_has_its_end_written_in_time(
    client: MemoryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As code of C does that holds the main thread: Airflow's SIGKILL would come before its handler."""
    monkeypatch.setattr(supervision, "_WRITE_AFTER_SECONDS", 0.0)
    seen: list[str] = []

    def function() -> None:
        signal.signal(signal.SIGTERM, lambda *_: None)
        os.kill(os.getpid(), signal.SIGTERM)
        while only(client).status == "RUNNING":
            threading.Event().wait(0.01)
        seen.append(only(client).tags[REASON])

    with pytest.raises(AirflowException):
        called(function)
    assert seen == ["stopped by Airflow; the function did not end in time"]
    assert only(client).status == "KILLED"


@pytest.mark.usefixtures("airflows_handlers")
def test_a_kill_while_the_run_is_opened_closes_it_and_calls_nothing(
    client: MemoryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(method: str, _: Any) -> None:
        if method == "create_run":
            os.kill(os.getpid(), signal.SIGTERM)

    client.before = stop
    called_at_all: list[bool] = []
    with pytest.raises(AirflowException, match=r"The attempt was stopped by Airflow\."):
        killed(lambda: called_at_all.append(True), monkeypatch)
    assert (only(client).status, only(client).tags[REASON]) == ("KILLED", "stopped by Airflow")
    assert not called_at_all


def test_a_run_that_cannot_be_shown_is_closed(client: MemoryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def publish(*_: object) -> None:
        raise RuntimeError("Airflow's API server is away")

    monkeypatch.setattr(MLflowTaskOperator, "publish", publish)
    with pytest.raises(RuntimeError):
        called(lambda: None)
    assert (only(client).status, only(client).tags[REASON]) == (
        "FAILED",
        "RuntimeError: Airflow's API server is away",
    )


# --- whose run ---


def parent_of(client: MemoryClient, status: Any = "RUNNING") -> Run:
    run = client.create_run("0", "parent", now(), {})
    if status != "RUNNING":
        client.update_run(run.run_id, status, now())
    return client.get_run(run.run_id)


@pytest.mark.parametrize("as_xcom", [False, True])
def test_it_may_log_to_a_run_of_others_which_stays_as_it_is(client: MemoryClient, as_xcom: bool) -> None:
    parent = parent_of(client)
    seen: list[str] = []
    ti = TaskInstance("step")
    log_to = {"run_id": parent.run_id} if as_xcom else parent.run_id
    called(lambda rate: seen.append(os.environ["MLFLOW_RUN_ID"]), ti, log_to=log_to, op_args=[1])
    assert seen == [parent.run_id]
    assert client.runs == [parent]
    assert ti.store == {}
    assert ti.pushed["mlflow_run"]["run_id"] == parent.run_id


@pytest.mark.parametrize(("before", "ended"), [("RUNNING", "FINISHED"), ("FINISHED", "RUNNING")])
def test_a_status_that_mlflow_wrote_in_between_is_taken_back(client: MemoryClient, before: str, ended: Any) -> None:
    parent = parent_of(client, before)
    called(lambda: client.update_run(parent.run_id, ended, now()), log_to=parent.run_id)
    assert only(client).status == before


def test_the_second_of_two_at_once_leaves_a_run_that_had_ended_as_it_was(client: MemoryClient) -> None:
    run = parent_of(client, "FINISHED")
    seen: list[str] = []

    def first() -> None:
        client.update_run(run.run_id, "RUNNING")  # as MLflow does, for whoever writes into it
        # Meanwhile the second one begins, the first one ends, and then the second one does.
        called(lambda: client.update_run(run.run_id, "FINISHED", run.end_time), log_to=run.run_id)
        seen.append(only(client).status)

    called(first, log_to=run.run_id)
    assert seen == ["FINISHED"]


def test_a_try_after_one_that_was_killed_gives_a_run_its_end_back(client: MemoryClient) -> None:
    run = parent_of(client, "FAILED")
    with pytest.raises(AirflowException, match="gone"):
        called(lambda: lost_worker(client, run), log_to=run.run_id)
    client.before = lambda method, arguments: None
    assert only(client).status == "RUNNING"
    called(lambda: None, TaskInstance("step", try_number=2), log_to=run.run_id)
    assert (only(client).status, only(client).end_time) == ("FAILED", run.end_time)


def lost_worker(client: MemoryClient, run: Run) -> None:
    """Let MLflow open the run again, and nothing more come from this process."""
    client.update_run(run.run_id, "RUNNING")

    def away(method: str, _: Any) -> None:
        raise TrackingUnavailableError("gone")

    client.before = away


def test_an_end_with_a_reason_stays(client: MemoryClient) -> None:
    parent = parent_of(client)

    def function() -> None:
        client.log_batch(parent.run_id, tags={REASON: "a person said so"})
        client.update_run(parent.run_id, "KILLED", now())

    called(function, log_to=parent.run_id)
    assert only(client).status == "KILLED"


def test_the_parent_is_that_of_the_group_around_it(client: MemoryClient) -> None:
    parent = parent_of(client)
    seen: list[str] = []
    with DAG("dag", schedule=None), mlflow_run("g", mlflow_conn_id=CONNECTION):
        step = MLflowTaskOperator(
            task_id="step", python_callable=lambda: seen.append(os.environ["MLFLOW_RUN_ID"]), log_to="parent"
        )
    ti = TaskInstance("g.step", returned={("g.start_run", -1): {"run_id": parent.run_id, "experiment_id": "0"}})
    running(step, ti)
    assert seen == [parent.run_id]


@pytest.mark.parametrize(
    ("log_to", "sentence"),
    [
        ("parent", r"log_to names no run \(there is no mlflow_run around it\)"),
        ("", r"log_to names no run \(it rendered to nothing\)"),
        ("nobody", "There is no run 'nobody'"),
    ],
)
def test_a_run_that_is_not_there_is_one_sentence(client: MemoryClient, log_to: str, sentence: str) -> None:
    with pytest.raises(AirflowFailException, match=sentence):
        called(lambda: None, log_to=log_to)
    assert client.runs == []


def test_a_value_that_no_run_can_have_as_id_is_one_sentence_too(client: MemoryClient) -> None:
    def refuses(method: str, _: Any) -> None:
        raise TrackingError("Invalid value", code="INVALID_PARAMETER_VALUE")

    client.before = refuses
    with pytest.raises(AirflowFailException, match=r"There is no run '0\.5'"):
        called(lambda: None, log_to=0.5)


def test_a_retry_closes_the_run_of_a_lost_worker_and_names_it(client: MemoryClient) -> None:
    lost = parent_of(client)
    ti = TaskInstance("step", try_number=2)
    ti.store["mlflow_run"] = {"run_id": lost.run_id, "try_number": 1, "max_tries": 0, "handle": {}}
    called(lambda: None, ti)
    before, after = client.runs
    assert (before.status, before.tags[REASON]) == ("KILLED", "its worker was lost; superseded by try 2")
    assert (after.status, after.tags["mlflow_projects.supersedes"]) == ("FINISHED", lost.run_id)


# --- the decorator ---


def test_the_decorator_is_airflows_and_the_importable_one() -> None:
    from airflow.sdk import task

    assert task.mlflow is mlflow_task

    @mlflow_task(retries=2, log_to="parent")
    def function(number: int) -> int:
        return number

    with DAG("dag", schedule=None) as dag:
        function(1)
        function.override(task_id="other", run_name="named").partial().expand(number=[1, 2])
    one = dag.get_task("function")
    assert isinstance(one, MLflowTaskOperator)
    assert (one.retries, one.log_to, one.op_args) == (2, "parent", (1,))
    assert dag.get_task("other").partial_kwargs["run_name"] == "named"


def test_mlflow_becomes_active_with_its_import(monkeypatch: pytest.MonkeyPatch, client: MemoryClient) -> None:
    started: list[str] = []
    fake = ModuleType("mlflow")
    fake.active_run = lambda: None  # type: ignore[attr-defined]
    fake.start_run = lambda run_id: started.append(run_id)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    called(lambda: None)
    assert started == [only(client).run_id]


def test_a_look_whether_mlflow_is_there_is_no_import(
    monkeypatch: pytest.MonkeyPatch, client: MemoryClient, tmp_path: Path
) -> None:
    """As transformers and others look before they import it."""
    (tmp_path / "mlflow").mkdir()
    source = "started = []\nactive_run = lambda: None\nstart_run = lambda run_id: started.append(run_id)\n"
    (tmp_path / "mlflow" / "__init__.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "mlflow", ModuleType("mlflow"))  # so that what is there now comes back
    monkeypatch.delitem(sys.modules, "mlflow")
    before = [*sys.meta_path]

    def function() -> Any:
        assert importlib.util.find_spec("mlflow")
        return importlib.import_module("mlflow").started  # type: ignore[attr-defined]

    assert called(function) == [only(client).run_id]
    assert sys.meta_path == before


def test_a_run_that_earlier_code_left_open_gets_nothing_and_stays(
    monkeypatch: pytest.MonkeyPatch, client: MemoryClient
) -> None:
    """A task of dag.test before this one, or the DAG file itself, called mlflow.start_run() and did not end it."""

    def active(run_id: str) -> Any:
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

    stack = [active("left open")]
    fluent: Any = ModuleType("mlflow.tracking.fluent")
    fluent._active_run_stack, fluent._active_experiment_id = SimpleNamespace(get=lambda: stack), None
    fluent.run_id_to_system_metrics_monitor = {}
    mlflow: Any = ModuleType("mlflow")
    mlflow.active_run = lambda: stack[-1] if stack else None
    mlflow.start_run = lambda run_id: stack.append(active(run_id))
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "mlflow.tracking.fluent", fluent)
    assert called(lambda: [run.info.run_id for run in stack]) == [only(client).run_id]
    assert [run.info.run_id for run in stack] == ["left open"]
