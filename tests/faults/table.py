"""The named faults: what is done, and what Airflow must say of the DAG run afterwards."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.faults.invariants import violations
from tests.faults.stack import ROOT, Stack, Way, proxy_down
from tests.faults.verdict import Fault
from tests.support.flaky import answer, lose_answer, outlast, refuse
from tests.support.servers import free_port

# These run until they are stopped: nothing waits for their end.
HANGING = "echo begun; sleep 600; true"
PROJECTS = ROOT / "tests" / "projects"
STUBBORN = "trap '' TERM; echo begun; sleep 600 & sleep 600; sleep 600"
FIRST_TRY_HANGS = "test $AIRFLOW_CTX_TRY_NUMBER != 1 || sleep 600"
SLOW_ANSWER = 3.0  # seconds

FAULTS: list[Fault[Stack]] = []


def fault(
    name: str, ends: str, *, disturbs: bool = False, unrecorded: bool = False, own_way: bool = False
) -> Callable[[Callable[..., tuple[str, str]]], None]:
    def add(function: Callable[..., tuple[str, str]]) -> None:
        FAULTS.append(Fault(name, function, ends, disturbs, unrecorded, own_way=own_way))

    return add


def run(stack: Stack, dag_id: str, command: str = "true", **conf: object) -> tuple[str, str]:
    return dag_id, stack.trigger(dag_id, command=command, **conf)


def new_signal(stack: Stack) -> Path:
    """Return the path of a file that does not exist yet."""
    return stack.home / f"told-{uuid.uuid4().hex}"


def until(told: Path) -> str:
    """Return a command that runs until the file exists."""
    return f"until test -e {told}; do sleep 0.05; done"


def run_until_told(stack: Stack, dag_id: str, then: str = "true") -> tuple[str, Path]:
    """Start a DAG run whose command ends, well, as soon as the returned file exists; wait until it runs.

    :param then: what the command does last
    """
    told = new_signal(stack)
    run_id = stack.trigger(dag_id, command=f"{until(told)}; {then}", told=str(told))
    stack.wait_output(run_id)
    return run_id, told


def patch_task(stack: Stack, dag_id: str, run_id: str, state: str) -> None:
    stack.send("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/parent.step", {"new_state": state})


def patch_dag_run(stack: Stack, dag_id: str, run_id: str, state: str) -> None:
    stack.send("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}", {"state": state})


# --- what the command does


@fault("nothing goes wrong", "success")
def _(stack: Stack) -> tuple[str, str]:
    return run(stack, "once")


@fault("the command fails", "failed")
def _(stack: Stack) -> tuple[str, str]:
    return run(stack, "once", "echo last words; exit 3")


@fault("the last words are no text for a database", "failed")
def _(stack: Stack) -> tuple[str, str]:
    return run(stack, "once", "printf 'a\\000b \\001 \\377 last words\\n'; exit 3")


@fault("the command kills itself", "failed")
def _(stack: Stack) -> tuple[str, str]:
    return run(stack, "once", "kill -9 $$")


@fault("the project ends its run FAILED but exits 0", "success")
def _(stack: Stack) -> tuple[str, str]:
    return run(stack, "once", project="tracked", parameters={"ends_as": "FAILED"})


@fault("the project ends its run FINISHED but exits 1", "failed")
def _(stack: Stack) -> tuple[str, str]:
    return run(stack, "once", project="tracked", parameters={"code": 1})


@fault("the project crashes with a nested run open", "failed")
def _(stack: Stack) -> tuple[str, str]:
    script = "import mlflow, os; mlflow.start_run(); mlflow.start_run(nested=True); os._exit(1)"
    return run(stack, "once", f'python -c "{script}"')


@fault("the project logs a parameter in another spelling", "success")
def _(stack: Stack) -> tuple[str, str]:
    return run(stack, "once", project="tracked", parameters={"learning_rate": "1e-5"})


@fault("200 parameters with names beyond ASCII", "success")
def _(stack: Stack) -> tuple[str, str]:
    parameters = {f"値{n}": "x" * 100 for n in range(200)}
    return run(stack, "once", project="tracked", parameters=parameters)


@fault("a parameter name that MLflow refuses", "failed")
def _(stack: Stack) -> tuple[str, str]:
    return run(stack, "once", project="tracked", parameters={"a*b": "1"})


@fault("the command leaves processes behind", "success")
def _(stack: Stack) -> tuple[str, str]:
    return run(stack, "once", "setsid sleep 600 & echo over")


@fault("the first try fails, the second succeeds", "success")
def _(stack: Stack) -> tuple[str, str]:
    return run(stack, "again", "test $AIRFLOW_CTX_TRY_NUMBER = 2")


@fault("50 mapped steps at once", "success")
def _(stack: Stack) -> tuple[str, str]:
    return run(stack, "many")


@fault("a step is skipped", "success")
def _(stack: Stack) -> tuple[str, str]:
    return run(stack, "skipping")


@fault("two DAG runs of one DAG at once", "success")
def _(stack: Stack) -> tuple[str, str]:
    runs = [run_until_told(stack, "once") for _ in range(2)]
    for _, told in runs:
        told.touch()
    (first, _), (second, _) = runs
    assert stack.wait_end("once", first) == "success"
    assert violations(stack, "once", first) == []
    return "once", second


# --- what a person does


@fault("a person marks the running step failed", "failed")
def _(stack: Stack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "once", STUBBORN)
    stack.wait_output(run_id)
    patch_task(stack, dag_id, run_id, "failed")
    return dag_id, run_id


def clear_step(stack: Stack, dag_id: str, run_id: str) -> None:
    stack.clear(dag_id, run_id, task_ids=["parent.step"], include_downstream=True)


@fault("a person marks the step failed in the moment when its command ends well", "failed")
def _(stack: Stack) -> tuple[str, str]:
    run_id, told = run_until_told(stack, "once")
    patch_task(stack, "once", run_id, "failed")
    told.touch()
    return "once", run_id


@fault("a person clears the step in the moment when its command ends well", "success")
def _(stack: Stack) -> tuple[str, str]:
    run_id, told = run_until_told(stack, "once")
    clear_step(stack, "once", run_id)
    told.touch()
    return "once", run_id


@fault("a person marks the step failed and clears it in the moment when its command ends well", "success")
def _(stack: Stack) -> tuple[str, str]:
    run_id, told = run_until_told(stack, "gated")
    patch_task(stack, "gated", run_id, "failed")
    clear_step(stack, "gated", run_id)
    told.touch()
    return "gated", run_id


@fault("a person clears the step in the moment after its success was reported", "success")
def _(stack: Stack) -> tuple[str, str]:
    told = new_signal(stack)
    run_id = stack.trigger("gated", told=str(told))
    stack.wait_task("gated", run_id, "success")
    clear_step(stack, "gated", run_id)
    told.touch()
    return "gated", run_id


def wait_second_try(stack: Stack, dag_id: str, run_id: str) -> None:
    stack.wait(lambda: stack.task(dag_id, run_id)["try_number"] == 2, "the second try")


@fault("a person clears the running step", "success")
def _(stack: Stack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "once", FIRST_TRY_HANGS)
    stack.wait_output(run_id)
    clear_step(stack, dag_id, run_id)
    return dag_id, run_id


@fault("a person clears the step after success", "success")
def _(stack: Stack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "once")
    stack.wait_end(dag_id, run_id)
    clear_step(stack, dag_id, run_id)
    wait_second_try(stack, dag_id, run_id)
    return dag_id, run_id


@fault("a person clears the whole failed DAG run, which then succeeds", "success")
def _(stack: Stack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "once", "test $AIRFLOW_CTX_TRY_NUMBER = 2")
    stack.wait_end(dag_id, run_id)
    stack.clear(dag_id, run_id)
    wait_second_try(stack, dag_id, run_id)
    return dag_id, run_id


# Airflow lets the pending teardown run and then judges by the last task, which it skipped: the DAG run that
# a person marked failed may end as a success. That is Airflow's to say; MLflow must say the same.
@fault("a person marks the DAG run failed while a step runs", "")
def _(stack: Stack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "once", STUBBORN)
    stack.wait_output(run_id)
    patch_dag_run(stack, dag_id, run_id, "failed")
    return dag_id, run_id


@fault("a person marks the DAG run failed while a step waits for its retry", "")
def _(stack: Stack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "again", "exit 1")
    stack.wait_task(dag_id, run_id, "up_for_retry")
    patch_dag_run(stack, dag_id, run_id, "failed")
    return dag_id, run_id


@fault("a person clears the DAG run and marks it failed in the same second", "")
def _(stack: Stack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "once", STUBBORN)
    stack.wait_output(run_id)
    stack.clear(dag_id, run_id)
    patch_dag_run(stack, dag_id, run_id, "failed")
    return dag_id, run_id


@fault("a person marks the DAG run failed while a step runs, and deletes it at once", "success")
def _(stack: Stack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "once", STUBBORN)
    stack.wait_output(run_id)
    patch_dag_run(stack, dag_id, run_id, "failed")
    path = f"/dags/{dag_id}/dagRuns/{run_id}"
    stack.wait(lambda: stack.ask("DELETE", path, None).status_code in (204, 404), "the end of the DAG run")

    def nothing_is_left() -> bool:
        statuses = {found.info.status for found in stack.runs(run_id)}
        return bool(statuses) and "RUNNING" not in statuses and not stack.processes(run_id)

    stack.wait(nothing_is_left, "the end of its runs and processes")
    return run(stack, "once")  # another one, which Airflow still has


# --- time-outs


@fault("execution_timeout, and the command ignores SIGTERM", "failed")
def _(stack: Stack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "limited", STUBBORN)
    stack.task_process(run_id).send_signal(signal.SIGALRM)
    return dag_id, run_id


@fault("dagrun_timeout", "failed")
def _(stack: Stack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "short_run", STUBBORN)
    stack.wait_output(run_id)
    stack.let_time_out(run_id)
    return dag_id, run_id


# --- signals


@fault("SIGTERM to the task process, then a retry", "success")
def _(stack: Stack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "again", FIRST_TRY_HANGS)
    stack.task_process(run_id).send_signal(signal.SIGTERM)
    return dag_id, run_id


@fault("SIGKILL to the task process, then a retry", "success")
def _(stack: Stack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "again", FIRST_TRY_HANGS)
    stack.task_process(run_id).kill()
    return dag_id, run_id


@fault("SIGKILL to the task process, and no retry", "failed")
def _(stack: Stack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "once", STUBBORN)
    stack.task_process(run_id).kill()
    return dag_id, run_id


@fault("SIGKILL to the entry point", "failed")
def _(stack: Stack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "once", HANGING)
    stack.wait_output(run_id).kill()
    return dag_id, run_id


@fault("SIGKILL to the watchdog", "failed")
def _(stack: Stack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "once", HANGING)
    watchdog = stack.wait_output(run_id).parent()
    assert watchdog is not None
    watchdog.kill()
    return dag_id, run_id


@fault("SIGKILL to the supervisor, then a retry", "success", disturbs=True)
def _(stack: Stack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "again", FIRST_TRY_HANGS)
    supervisor = stack.task_process(run_id).parent()
    assert supervisor is not None
    supervisor.kill()
    stack.let_look_lost(run_id)
    return dag_id, run_id


@fault("the whole machine of the executor is lost, then a retry", "success", disturbs=True)
def _(stack: Stack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "again", FIRST_TRY_HANGS)
    lost = [stack.task_process(run_id), *stack.processes(run_id)]
    stack.kill("scheduler")
    for process in lost:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    stack.start("scheduler")
    return dag_id, run_id


@fault("SIGTERM to the scheduler in the middle of a step", "success", disturbs=True)
def _(stack: Stack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "again", FIRST_TRY_HANGS)
    stack.wait_output(run_id)
    stack.kill("scheduler", signal.SIGTERM)
    stack.start("scheduler")
    return dag_id, run_id


@fault("the API server is killed and started again while a step ends", "success", disturbs=True)
def _(stack: Stack) -> tuple[str, str]:
    run_id, told = run_until_told(stack, "again")
    stack.kill("api-server")
    told.touch()
    stack.wait_command_ended(run_id)
    stack.start("api-server")
    stack.wait(stack.is_up, "the API server")
    return "again", run_id


# --- the tracking server


@fault("the tracking server is away when the DAG run starts", "success", own_way=True)
def _(stack: Stack, way: Way) -> tuple[str, str]:
    with proxy_down(way.proxy):
        dag_id, run_id = run(stack, way.dag_id)
        stack.wait_tries(way.proxy)
    return dag_id, run_id


@fault("the tracking server is away while the command logs", "success", own_way=True)
def _(stack: Stack, way: Way) -> tuple[str, str]:
    script = "import mlflow; mlflow.start_run(); mlflow.log_metric('loss', 0.5)"
    run_id, told = run_until_told(stack, way.dag_id, f'python -c "{script}"')
    with proxy_down(way.proxy):
        told.touch()
        stack.wait_tries(way.proxy, 2)
    assert stack.wait_end(way.dag_id, run_id) == "success"
    assert [attempt.data.metrics.get("loss") for attempt in stack.runs(run_id)].count(0.5) == 1
    return way.dag_id, run_id


@fault("the tracking server is away when the step ends", "success", own_way=True)
def _(stack: Stack, way: Way) -> tuple[str, str]:
    run_id, told = run_until_told(stack, way.dag_id)
    with proxy_down(way.proxy):
        told.touch()
        stack.wait_tries(way.proxy)
    return way.dag_id, run_id


@fault("every answer of the tracking server takes 3 s", "success", own_way=True)
def _(stack: Stack, way: Way) -> tuple[str, str]:
    way.proxy.delay = SLOW_ANSWER
    dag_id, run_id = run(stack, way.dag_id)
    stack.wait_end(dag_id, run_id)
    return dag_id, run_id


@fault("one answer of every kind comes when the client waits no longer", "success", own_way=True)
def _(stack: Stack, way: Way) -> tuple[str, str]:
    paths = ("runs/create", "runs/log-batch", "runs/update")
    for path in paths:
        way.proxy.faults[path] = [outlast]
    dag_id, run_id = run(stack, way.dag_id)
    stack.wait_end(dag_id, run_id)
    assert sorted(way.proxy.failed[-3:]) == sorted(paths)
    return dag_id, run_id


@fault("a burst of HTTP 500, 503 and 429 with Retry-After", "success", own_way=True)
def _(stack: Stack, way: Way) -> tuple[str, str]:
    for path in ("runs/get", "runs/log-batch", "runs/update", "runs/search"):
        way.proxy.faults[path] = [answer(500), answer(503), answer(429, {"Retry-After": "2"})]
    return run(stack, way.dag_id)


@fault("a proxy's page answers twice with 200 before the server does", "success", own_way=True)
def _(stack: Stack, way: Way) -> tuple[str, str]:
    page = answer(200, {"Content-Type": "text/html"}, b"<html>We will be back soon.</html>")
    for path in (
        "experiments/get-by-name",
        "runs/create",
        "runs/get",
        "runs/log-batch",
        "runs/update",
        "runs/search",
    ):
        way.proxy.faults[path] = [page, page]
    return run(stack, way.dag_id)


@fault("the answer to every first runs/create is lost", "success", own_way=True)
def _(stack: Stack, way: Way) -> tuple[str, str]:
    way.proxy.faults["runs/create"] = [lose_answer, lose_answer]
    return run(stack, way.dag_id)


@fault("connections are reset in the middle of every kind of request", "success", own_way=True)
def _(stack: Stack, way: Way) -> tuple[str, str]:
    for path in ("runs/create", "runs/get", "runs/log-batch", "runs/update", "runs/search"):
        way.proxy.faults[path] = [refuse, lose_answer] if path != "runs/create" else [refuse]
    return run(stack, way.dag_id)


def end_while_mlflow_is_killed(stack: Stack, port: int | None = None) -> tuple[str, str]:
    run_id, told = run_until_told(stack, "once")
    with stack.mlflow_killed(port):
        told.touch()
        stack.wait_tries(stack.proxy)
    return "once", run_id


@fault("the MLflow server is killed and comes back on its port", "success", disturbs=True)
def _(stack: Stack) -> tuple[str, str]:
    return end_while_mlflow_is_killed(stack)


@fault("the MLflow server comes back on another port behind the same name", "success", disturbs=True)
def _(stack: Stack) -> tuple[str, str]:
    return end_while_mlflow_is_killed(stack, free_port())


@fault("the disk of the MLflow server is full for a while", "success", disturbs=True)
def _(stack: Stack) -> tuple[str, str]:
    run_id, told = run_until_told(stack, "once")
    with stack.full_disk():
        told.touch()
        stack.wait_tries(stack.proxy)
    return "once", run_id


# --- the last word


@fault("the tracking server is away when dagrun_timeout strikes", "failed", own_way=True)
def _(stack: Stack, way: Way) -> tuple[str, str]:
    dag_id, run_id = run(stack, way.dag_id, STUBBORN)
    stack.wait_output(run_id)
    with proxy_down(way.proxy):
        stack.let_time_out(run_id)
        stack.wait_end(dag_id, run_id)
        stack.wait_tries(way.proxy, 6)
    return dag_id, run_id


@fault("every answer is 503 when a person marks the DAG run failed", "", own_way=True)
def _(stack: Stack, way: Way) -> tuple[str, str]:
    dag_id, run_id = run(stack, way.dag_id, STUBBORN)
    stack.wait_output(run_id)
    for path in ("experiments/search", "runs/search", "runs/get", "runs/log-batch", "runs/update"):
        way.proxy.faults[path] = [answer(503)] * 12
    patch_dag_run(stack, dag_id, run_id, "failed")
    stack.wait_tries(way.proxy, 12)
    for faults in way.proxy.faults.values():
        faults.clear()
    return dag_id, run_id


@fault("MLflow and the triggerer are killed when dagrun_timeout strikes", "failed", disturbs=True)
def _(stack: Stack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "short_run", STUBBORN)
    stack.wait_output(run_id)
    with stack.mlflow_killed():
        stack.let_time_out(run_id)
        stack.wait_end(dag_id, run_id)
        stack.wait_tries(stack.proxy)
        stack.kill("triggerer")
    stack.start("triggerer")
    return dag_id, run_id


@fault("a late closing finds that a person cleared the DAG run", "success", own_way=True)
def _(stack: Stack, way: Way) -> tuple[str, str]:
    run_id, told = run_until_told(stack, way.dag_id, "test $AIRFLOW_CTX_TRY_NUMBER = 2")
    way.proxy.delay = SLOW_ANSWER
    told.touch()
    stack.wait_end(way.dag_id, run_id)
    stack.clear(way.dag_id, run_id)
    wait_second_try(stack, way.dag_id, run_id)
    stack.wait_end(way.dag_id, run_id)
    return way.dag_id, run_id


# --- what is lost with an XCom


def start_task(stack: Stack, dag_id: str, run_id: str) -> psutil.Process:
    """Return the process of a running start task."""
    stack.wait(lambda: bool(stack.task(dag_id, run_id, "parent.start_run")["pid"]), "the start task's process")
    return psutil.Process(stack.task(dag_id, run_id, "parent.start_run")["pid"])


@fault("the start task is killed before it hears that its run was made", "failed", own_way=True)
def _(stack: Stack, way: Way) -> tuple[str, str]:
    way.proxy.faults["runs/create"] = [outlast]
    dag_id, run_id = run(stack, way.dag_id)
    stack.wait(lambda: bool(stack.runs(run_id)), "the parent run")
    start_task(stack, dag_id, run_id).kill()
    return dag_id, run_id


@fault("a person clears the start task while its run is being made", "success", own_way=True)
def _(stack: Stack, way: Way) -> tuple[str, str]:
    way.proxy.faults["runs/create"] = [outlast]
    dag_id, run_id = run(stack, way.dag_id)
    stack.wait(lambda: bool(stack.runs(run_id)), "the parent run")
    stack.clear(dag_id, run_id, task_ids=["parent.start_run"], include_downstream=True)
    stack.wait_task(dag_id, run_id, "success", "parent.start_run", tries=2)
    return dag_id, run_id


def delete_parents_xcom(stack: Stack, dag_id: str, run_id: str) -> None:
    entry = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/parent.start_run/xcomEntries/return_value"
    stack.wait(lambda: stack.ask("DELETE", entry, None).status_code in (204, 404), "the end of the XCom")


@fault("a person deletes the parent run's XCom while a step runs", "success")
def _(stack: Stack) -> tuple[str, str]:
    run_id, told = run_until_told(stack, "once")
    delete_parents_xcom(stack, "once", run_id)
    told.touch()
    return "once", run_id


@fault("no task pushes an XCom", "success")
def _(stack: Stack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "silent")
    stack.wait_end(dag_id, run_id)
    parents = {attempt.data.tags.get("mlflow.parentRunId") for attempt in stack.runs(run_id)}
    assert len(parents) == 2, "the parent run itself has none, all steps have it"
    return dag_id, run_id


# --- outside of a group, and elsewhere


@fault("SIGKILL to a step of its own, and no retry", "failed")
def _(stack: Stack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "lone", STUBBORN)
    stack.task_process(run_id).kill()
    return dag_id, run_id


@fault("dagrun_timeout of a step of its own", "failed")
def _(stack: Stack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "lone", STUBBORN)
    stack.wait_output(run_id)
    stack.let_time_out(run_id)
    return dag_id, run_id


@fault("what comes after the work of a step of its own fails", "failed")
def _(stack: Stack) -> tuple[str, str]:
    return run(stack, "lone_late_error")


@fault("what comes after a step's work fails", "failed")
def _(stack: Stack) -> tuple[str, str]:
    return run(stack, "late_error")


@fault("dagrun_timeout of a step in another experiment", "failed")
def _(stack: Stack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "elsewhere", STUBBORN)
    stack.wait_output(run_id)
    stack.let_time_out(run_id)
    return dag_id, run_id


OPENED_ELSEWHERE = """
import mlflow, os
os.environ.pop("MLFLOW_RUN_ID"), os.environ.pop("MLFLOW_EXPERIMENT_ID")
mlflow.set_experiment("faults of a project")
mlflow.start_run(run_name="opened by the project")
os._exit(0)
"""


def leave_a_run_elsewhere(stack: Stack, dag_id: str) -> tuple[str, str]:
    _, run_id = run(stack, dag_id, f"python -c '{OPENED_ELSEWHERE}'")
    stack.wait_end(dag_id, run_id)
    assert "opened by the project" in {attempt.info.run_name for attempt in stack.runs(run_id)}
    return dag_id, run_id


@fault("a project leaves a run of its own open in another experiment", "success")
def _(stack: Stack) -> tuple[str, str]:
    return leave_a_run_elsewhere(stack, "once")


@fault("the project of a step of its own leaves a run open in another experiment", "success")
def _(stack: Stack) -> tuple[str, str]:
    return leave_a_run_elsewhere(stack, "lone")


# --- what a person deletes in MLflow


def delete_run(stack: Stack, run_id: str, role: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=stack.mlflow_uri)
    for found in stack.runs(run_id):
        if found.data.tags.get("mlflow_projects.role") == role:
            client.delete_run(found.info.run_id)


@fault("a person deletes the parent run in MLflow while a step runs", "success")
def _(stack: Stack) -> tuple[str, str]:
    run_id, told = run_until_told(stack, "once")
    delete_run(stack, run_id, "parent")
    told.touch()
    return "once", run_id


@fault(
    "a person deletes a step's run in MLflow, then its worker is killed and tries again", "success", unrecorded=True
)
def _(stack: Stack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "again", FIRST_TRY_HANGS)
    process = stack.task_process(run_id)
    delete_run(stack, run_id, "step")
    process.kill()
    stack.wait_end(dag_id, run_id)
    assert len(stack.runs(run_id)) == 3, "the parent, the second try, the step after it"
    return dag_id, run_id


# --- groups of their own


@fault("one of two groups fails", "failed")
def _(stack: Stack) -> tuple[str, str]:
    return run(stack, "two_groups", "exit 3")


@fault("one index of a mapped group fails", "failed")
def _(stack: Stack) -> tuple[str, str]:
    return run(stack, "mapped_groups")


@fault("a project changes the tags by which its run is known, and its end", "failed")
def _(stack: Stack) -> tuple[str, str]:
    script = """
import mlflow
with mlflow.start_run():
    for key in ("airflow.run_id", "airflow.task_id", "mlflow_projects.role", "mlflow_projects.reason"):
        mlflow.set_tag(key, "mine")
raise SystemExit(3)
"""
    dag_id, run_id = run(stack, "once", f"python -c '{script}'")
    stack.wait_end(dag_id, run_id)
    assert {attempt.data.tags["airflow.task_id"] for attempt in stack.runs(run_id)} == {
        "parent.start_run", "parent.step",
    }  # fmt: skip
    return dag_id, run_id


# Takes off its own run and its parent all that tells whose they are; then their ids are in the file "told".
FORGET = """
import os, pathlib
from mlflow import MlflowClient
client, own = MlflowClient(), os.environ["MLFLOW_RUN_ID"]
parent = client.get_run(own).data.tags.get("mlflow.parentRunId")
runs = [run for run in (own, parent) if run]
for run in runs:
    for key in client.get_run(run).data.tags:
        if key.startswith(("airflow.", "mlflow_projects.", "mlflow.parentRunId")):
            client.delete_tag(run, key)
pathlib.Path("{told}.new").write_text(" ".join(runs))
os.rename("{told}.new", "{told}")
"""
END_PARENT = """
import os, pathlib
from mlflow import MlflowClient
client, own = MlflowClient(), os.environ["MLFLOW_RUN_ID"]
client.set_terminated(client.get_run(own).data.tags["mlflow.parentRunId"])
pathlib.Path("{told}").touch()
"""


def run_script_and_hang(stack: Stack, dag_id: str, script: str) -> tuple[str, Path]:
    """Start a DAG run whose command does in its first try what a script says, then hangs.

    Return its id when it has done so, and the file "told".
    """
    told = new_signal(stack)
    script = f"python -c '{script.format(told=told)}'"
    _, run_id = run(stack, dag_id, f"test $AIRFLOW_CTX_TRY_NUMBER != 1 || {{ {script}; {HANGING}; }}")
    stack.wait(told.exists, "the end of the script")
    return run_id, told


def wait_known_again(stack: Stack, dag_id: str, run_id: str, told: Path) -> tuple[str, str]:
    """Wait until the runs that a script took the tags off have those again, and an end."""
    ids = set(told.read_text().split())
    stack.wait_end(dag_id, run_id)

    def are_known() -> bool:
        ended = {found.info.run_id for found in stack.runs(run_id) if found.info.status != "RUNNING"}
        return ids <= ended

    stack.wait(are_known, "the tags of the runs")
    return dag_id, run_id


@fault("a step of its own takes all tags off its run and is killed, and no retry", "failed")
def _(stack: Stack) -> tuple[str, str]:
    run_id, told = run_script_and_hang(stack, "lone", FORGET)
    stack.task_process(run_id).kill()
    return wait_known_again(stack, "lone", run_id, told)


@fault("a project takes all tags off its run and its parent, then dagrun_timeout", "failed")
def _(stack: Stack) -> tuple[str, str]:
    run_id, told = run_script_and_hang(stack, "short_run", FORGET)
    stack.let_time_out(run_id)
    return wait_known_again(stack, "short_run", run_id, told)


@fault("a project takes all tags off its run and its parent and is killed, then a retry", "success")
def _(stack: Stack) -> tuple[str, str]:
    run_id, told = run_script_and_hang(stack, "again", FORGET)
    stack.task_process(run_id).kill()
    return wait_known_again(stack, "again", run_id, told)


@fault("a project ends its parent run, then dagrun_timeout", "failed")
def _(stack: Stack) -> tuple[str, str]:
    run_id, _ = run_script_and_hang(stack, "short_run", END_PARENT)
    stack.let_time_out(run_id)
    return "short_run", run_id


@fault("a DAG run times out, is cleared and fails, while the tracking server is away", "failed", own_way=True)
def _(stack: Stack, way: Way) -> tuple[str, str]:
    from mlflow import MlflowClient

    run_id, _ = run_script_and_hang(stack, way.dag_id, 'open("{told}", "w")')
    with proxy_down(way.proxy):
        stack.let_time_out(run_id)
        stack.wait_end(way.dag_id, run_id)
        stack.clear(way.dag_id, run_id)
        stack.wait_task(way.dag_id, run_id, "running", "parent.start_run", tries=2)
        start_task(stack, way.dag_id, run_id).kill()
        stack.wait_end(way.dag_id, run_id)
    parent = next(found for found in stack.runs(run_id) if found.data.tags["mlflow_projects.role"] == "parent")

    def says_the_last_end() -> bool:
        found = MlflowClient(stack.mlflow_uri).get_run(parent.info.run_id)
        reason = found.data.tags.get("mlflow_projects.reason", "")
        return found.info.status == "FAILED" and "start_run failed" in reason

    stack.wait(says_the_last_end, "status and reason of the end that counts")
    return way.dag_id, run_id


# --- survivors


def hidden_child(stack: Stack, dag_id: str) -> tuple[str, psutil.Process]:
    """Start a DAG run whose command leaves a child without its environment and session; return that child."""
    told = new_signal(stack)
    child = f'env -i setsid bash -c "trap : TERM; echo \\$\\$ >{told}; while :; do sleep 600; done" &'
    _, run_id = run(stack, dag_id, f"{child} {HANGING}")
    stack.wait_output(run_id)
    stack.wait(lambda: told.exists() and bool(told.read_text()), "the hidden child")
    return run_id, psutil.Process(int(told.read_text()))


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@fault("task process and watchdog are killed together, and a child is hidden", "failed")
def _(stack: Stack) -> tuple[str, str]:
    run_id, child = hidden_child(stack, "once")
    watchdog = stack.wait_output(run_id).parent()
    victims = [stack.task_process(run_id), watchdog]
    for victim in victims:
        assert victim is not None
        victim.suspend()
    for victim in victims:
        assert victim is not None
        victim.kill()
    stack.wait(lambda: gone(child), "the end of the hidden child")
    return "once", run_id


@fault("the watchdog is stopped, then a person marks the step failed", "failed")
def _(stack: Stack) -> tuple[str, str]:
    run_id, child = hidden_child(stack, "once")
    watchdog = stack.wait_output(run_id).parent()
    assert watchdog is not None
    watchdog.suspend()
    patch_task(stack, "once", run_id, "failed")
    stack.wait(lambda: gone(child), "the end of the hidden child")
    return "once", run_id


# --- a cache without room


def run_of_archive(stack: Stack) -> tuple[str, str]:
    """Trigger a step with a retry whose project is a zip file, which must be unpacked in the cache."""
    archive = stack.home / f"{uuid.uuid4().hex}.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(PROJECTS / "shell" / "MLproject", "MLproject")
        file.writestr("data", random.Random(1).randbytes(2**20))
    return run(stack, "again", project=os.path.relpath(archive, PROJECTS))


def ends_in_one_sentence(stack: Stack, dag_id: str, run_id: str) -> tuple[str, str]:
    stack.wait_end(dag_id, run_id)
    log = stack.task_log(dag_id, run_id)
    assert re.search(rf"The cache folder {re.escape(str(stack.cache))}\S* cannot be written \(", log), log[-2000:]
    assert stack.task(dag_id, run_id)["try_number"] == 1, "another try has no more room"
    return dag_id, run_id


@fault("the cache is full", "failed", disturbs=True, unrecorded=True)
def _(stack: Stack) -> tuple[str, str]:
    with stack.cache_without_room():
        return ends_in_one_sentence(stack, *run_of_archive(stack))


@fault("the cache cannot be written", "failed", disturbs=True, unrecorded=True)
def _(stack: Stack) -> tuple[str, str]:
    with stack.cache_read_only():
        return ends_in_one_sentence(stack, *run_of_archive(stack))


# --- without a scheduler


def test_dag(stack: Stack, command: str) -> tuple[str, str]:
    """Run a DAG as `airflow dags test` does, in a process of its own."""
    tried = uuid.uuid4().hex
    said = stack.dags_test("tested", {"command": command, "told": tried})
    (run_id,) = (
        found["dag_run_id"]
        for found in stack.get("/dags/tested/dagRuns?limit=1000")["dag_runs"]
        if found["conf"].get("told") == tried
    )
    untrue = [line for line in said.splitlines() if "janitor" in line or "not found" in line]
    assert not untrue
    return "tested", run_id


@fault("airflow dags test of a good DAG", "success")
def _(stack: Stack) -> tuple[str, str]:
    return test_dag(stack, "true")


@fault("airflow dags test of a DAG whose command fails", "failed")
def _(stack: Stack) -> tuple[str, str]:
    return test_dag(stack, "exit 3")


# The new scheduler tries the lost step again although it has no retries (Airflow resets what its executor lost);
# that try finds no tracking server, so nothing can hold a run of it.
@fault(
    "scheduler, worker and tracking server are lost together; the janitor tidies up",
    "failed",
    disturbs=True,
    unrecorded=True,
)
def _(stack: Stack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "hasty", STUBBORN)
    stack.wait_output(run_id)
    with proxy_down(stack.proxy):
        stack.kill("scheduler")
        stack.start("scheduler")
        stack.wait_end(dag_id, run_id)
    janitor = stack.trigger("mlflow_projects_janitor")
    assert stack.wait_end("mlflow_projects_janitor", janitor) == "success"
    return dag_id, run_id
