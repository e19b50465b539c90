"""The named faults of functions (``@task.mlflow``), which run in the task's own process."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.faults.stack import Stack, Way, proxy_down
from tests.faults.table import (
    OPENED_ELSEWHERE,
    SLOW_ANSWER,
    clear_step,
    delete_parents_xcom,
    delete_run,
    new_signal,
    patch_dag_run,
    patch_task,
    wait_second_try,
)
from tests.faults.verdict import Fault
from tests.support.flaky import answer, lose_answer, outlast, refuse

HANGING = "begin(); time.sleep(600)"
FIRST_TRY_HANGS = "begin()\nif number == 1: time.sleep(600)"
FUNCTION_FAULTS: list[Fault[Stack]] = []


def fault(name: str, ends: str, **more: bool) -> Callable[[Callable[..., tuple[str, str]]], None]:
    def add(function: Callable[..., tuple[str, str]]) -> None:
        FUNCTION_FAULTS.append(Fault(f"function: {name}", function, ends, **more))

    return add


def run(stack: Stack, dag_id: str, command: str = "") -> tuple[str, str]:
    return dag_id, stack.trigger(dag_id, command=command, told=str(new_signal(stack)))


def begun(stack: Stack, dag_id: str, command: str) -> tuple[str, Path]:
    """Start a DAG run, wait until its function has begun; return its id and the file that tells it to go on."""
    told = new_signal(stack)
    run_id = stack.trigger(dag_id, command=command, told=str(told))
    stack.wait(Path(f"{told}.begun").exists, f"the function of {run_id}")
    return run_id, told


def process_of(stack: Stack, dag_id: str, run_id: str, task_id: str = "parent.step") -> psutil.Process:
    return psutil.Process(stack.task(dag_id, run_id, task_id)["pid"])


# --- what the function does


@fault("nothing goes wrong", "success")
def _(stack: Stack) -> tuple[str, str]:
    return run(stack, "function", "mlflow.log_metric('loss', 0.5)")


@fault("it raises", "failed")
def _(stack: Stack) -> tuple[str, str]:
    return run(stack, "function", "raise ValueError('a\\0b last words')")


@fault("it ends its run FAILED but returns", "success")
def _(stack: Stack) -> tuple[str, str]:
    return run(stack, "function", "mlflow.end_run('FAILED')")


@fault("it ends its run FINISHED but raises", "failed")
def _(stack: Stack) -> tuple[str, str]:
    return run(stack, "function", "mlflow.end_run()\nraise ValueError('no')")


@fault("it leaves a nested run open", "success")
def _(stack: Stack) -> tuple[str, str]:
    return run(stack, "function", "mlflow.start_run(nested=True)")


@fault("it leaves the process with a nested run open", "failed")
def _(stack: Stack) -> tuple[str, str]:
    return run(stack, "function", "import os; mlflow.start_run(nested=True); os._exit(3)")


@fault("a command of it leaves a run open in another experiment", "success")
def _(stack: Stack) -> tuple[str, str]:
    script = OPENED_ELSEWHERE.replace("os.environ.pop", "os.environ.get")  # of a function's run none is there
    return run(stack, "function", f"import subprocess\nsubprocess.run(['python', '-c', {script!r}])")


@fault("it changes the tags by which its run is known", "failed")
def _(stack: Stack) -> tuple[str, str]:
    tags = ("airflow.run_id", "airflow.task_id", "mlflow_projects.role", "mlflow_projects.reason")
    dag_id, run_id = run(stack, "function", f"mlflow.set_tags({dict.fromkeys(tags, 'mine')})\nraise SystemExit(3)")
    stack.wait_end(dag_id, run_id)
    assert {found.data.tags["airflow.task_id"] for found in stack.runs(run_id)} == {
        "parent.start_run", "parent.step",
    }  # fmt: skip
    return dag_id, run_id


@fault("the first try fails, the second succeeds", "success")
def _(stack: Stack) -> tuple[str, str]:
    return run(stack, "function_again", "assert number == 2")


@fault("it logs to the parent run, fails, and succeeds in its second try", "success")
def _(stack: Stack) -> tuple[str, str]:
    return run(stack, "function_of_parent", "mlflow.log_metric('tries', number); assert number == 2")


@fault("it logs to the parent run and is killed, then a retry", "success")
def _(stack: Stack) -> tuple[str, str]:
    run_id, _ = begun(stack, "function_of_parent", FIRST_TRY_HANGS)
    process_of(stack, "function_of_parent", run_id).kill()
    return "function_of_parent", run_id


@fault("what comes after its work fails", "failed")
def _(stack: Stack) -> tuple[str, str]:
    return run(stack, "function_late_error")


@fault("what comes after its work fails, without a group", "failed")
def _(stack: Stack) -> tuple[str, str]:
    return run(stack, "function_alone_late_error")


# --- what a person does


@fault("a person marks it failed while it runs", "failed")
def _(stack: Stack) -> tuple[str, str]:
    run_id, _ = begun(stack, "function", HANGING)
    patch_task(stack, "function", run_id, "failed")
    return "function", run_id


@fault("a person marks it a success while it runs", "success", marked=True)
def _(stack: Stack) -> tuple[str, str]:
    run_id, _ = begun(stack, "function", HANGING)
    patch_task(stack, "function", run_id, "success")
    stack.wait_end("function", run_id)
    (step,) = (found for found in stack.runs(run_id) if found.data.tags["airflow.task_id"] == "parent.step")
    assert step.info.status == "KILLED", "that is what happened to it"
    return "function", run_id


@fault("a person marks it failed in the moment when it ends well", "failed")
def _(stack: Stack) -> tuple[str, str]:
    run_id, told = begun(stack, "function", "wait()")
    patch_task(stack, "function", run_id, "failed")
    told.touch()
    return "function", run_id


@fault("a person clears it while it runs", "success")
def _(stack: Stack) -> tuple[str, str]:
    run_id, _ = begun(stack, "function", FIRST_TRY_HANGS)
    clear_step(stack, "function", run_id)
    return "function", run_id


@fault("a person clears the whole failed DAG run, which then succeeds", "success")
def _(stack: Stack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "function", "assert number == 2")
    stack.wait_end(dag_id, run_id)
    stack.clear(dag_id, run_id)
    wait_second_try(stack, dag_id, run_id)
    return dag_id, run_id


# Airflow may call that DAG run a success, as with a project.
@fault("a person marks the DAG run failed while it runs", "")
def _(stack: Stack) -> tuple[str, str]:
    run_id, _ = begun(stack, "function", HANGING)
    patch_dag_run(stack, "function", run_id, "failed")
    return "function", run_id


@fault("a person deletes the parent run in MLflow while it runs", "success")
def _(stack: Stack) -> tuple[str, str]:
    run_id, told = begun(stack, "function", "wait()")
    delete_run(stack, run_id, "parent")
    told.touch()
    return "function", run_id


@fault("a person deletes the parent run's XCom while it runs", "success")
def _(stack: Stack) -> tuple[str, str]:
    run_id, told = begun(stack, "function", "wait()")
    delete_parents_xcom(stack, "function", run_id)
    told.touch()
    return "function", run_id


# --- time-outs and signals


@fault("execution_timeout", "failed")
def _(stack: Stack) -> tuple[str, str]:
    run_id, _ = begun(stack, "function_limited", HANGING)
    process_of(stack, "function_limited", run_id).send_signal(signal.SIGALRM)
    return "function_limited", run_id


@fault("execution_timeout, and it swallows the exception", "failed")
def _(stack: Stack) -> tuple[str, str]:
    swallowing = "begin()\ntry: time.sleep(600)\nexcept BaseException: pass"
    run_id, _ = begun(stack, "function_limited", swallowing)
    process_of(stack, "function_limited", run_id).send_signal(signal.SIGALRM)
    return "function_limited", run_id


@fault("dagrun_timeout", "failed")
def _(stack: Stack) -> tuple[str, str]:
    run_id, _ = begun(stack, "function_short_run", HANGING)
    stack.let_time_out(run_id)
    return "function_short_run", run_id


@fault("dagrun_timeout without a group", "failed")
def _(stack: Stack) -> tuple[str, str]:
    run_id, _ = begun(stack, "function_alone", HANGING)
    stack.let_time_out(run_id)
    return "function_alone", run_id


@fault("SIGTERM to the task process, then a retry", "success")
def _(stack: Stack) -> tuple[str, str]:
    run_id, _ = begun(stack, "function_again", FIRST_TRY_HANGS)
    process_of(stack, "function_again", run_id).send_signal(signal.SIGTERM)
    return "function_again", run_id


@fault("SIGKILL to the task process, then a retry", "success")
def _(stack: Stack) -> tuple[str, str]:
    run_id, _ = begun(stack, "function_again", FIRST_TRY_HANGS)
    process_of(stack, "function_again", run_id).kill()
    return "function_again", run_id


@fault("SIGKILL to the task process, no group and no retry", "failed")
def _(stack: Stack) -> tuple[str, str]:
    run_id, _ = begun(stack, "function_alone", HANGING)
    process_of(stack, "function_alone", run_id, "step").kill()
    return "function_alone", run_id


@fault("a person deletes its run in MLflow, then its process is killed and tries again", "success", unrecorded=True)
def _(stack: Stack) -> tuple[str, str]:
    run_id, _ = begun(stack, "function_again", FIRST_TRY_HANGS)
    delete_run(stack, run_id, "step")
    process_of(stack, "function_again", run_id).kill()
    stack.wait_end("function_again", run_id)
    assert len(stack.runs(run_id)) == 3, "the parent, the second try, the function after it"
    return "function_again", run_id


@fault("SIGKILL to the supervisor, then a retry", "success", disturbs=True)
def _(stack: Stack) -> tuple[str, str]:
    run_id, _ = begun(stack, "function_again", FIRST_TRY_HANGS)
    supervisor = process_of(stack, "function_again", run_id).parent()
    assert supervisor is not None
    supervisor.kill()
    stack.let_look_lost(run_id)
    return "function_again", run_id


@fault("the whole machine of the executor is lost, then a retry", "success", disturbs=True)
def _(stack: Stack) -> tuple[str, str]:
    run_id, _ = begun(stack, "function_again", FIRST_TRY_HANGS)
    lost = process_of(stack, "function_again", run_id)
    stack.kill("scheduler")
    with contextlib.suppress(psutil.NoSuchProcess):
        lost.kill()
    stack.start("scheduler")
    return "function_again", run_id


@fault("the API server is killed and started again while it ends", "success", disturbs=True)
def _(stack: Stack) -> tuple[str, str]:
    run_id, told = begun(stack, "function_again", "wait()")
    stack.kill("api-server")
    told.touch()
    stack.start("api-server")
    stack.wait(stack.is_up, "the API server")
    return "function_again", run_id


# --- the tracking server


@fault("the tracking server is away when the DAG run starts", "success", own_way=True)
def _(stack: Stack, way: Way) -> tuple[str, str]:
    with proxy_down(way.proxy):
        dag_id, run_id = run(stack, f"function_{way.dag_id}")
        stack.wait_tries(way.proxy)
    return dag_id, run_id


@fault("the tracking server is away while it logs", "success", own_way=True)
def _(stack: Stack, way: Way) -> tuple[str, str]:
    dag_id = f"function_{way.dag_id}"
    run_id, told = begun(stack, dag_id, "wait(); mlflow.log_metric('loss', 0.5)")
    with proxy_down(way.proxy):
        told.touch()
        stack.wait_tries(way.proxy, 2)
    assert stack.wait_end(dag_id, run_id) == "success"
    assert [attempt.data.metrics.get("loss") for attempt in stack.runs(run_id)].count(0.5) == 1
    return dag_id, run_id


@fault("the tracking server is away when it ends", "success", own_way=True)
def _(stack: Stack, way: Way) -> tuple[str, str]:
    run_id, told = begun(stack, f"function_{way.dag_id}", "wait()")
    with proxy_down(way.proxy):
        told.touch()
        stack.wait_tries(way.proxy)
    return f"function_{way.dag_id}", run_id


@fault("the tracking server is away when dagrun_timeout strikes", "failed", own_way=True)
def _(stack: Stack, way: Way) -> tuple[str, str]:
    dag_id = f"function_{way.dag_id}"
    run_id, _ = begun(stack, dag_id, HANGING)
    with proxy_down(way.proxy):
        stack.let_time_out(run_id)
        stack.wait_end(dag_id, run_id)
        stack.wait_tries(way.proxy, 6)
    return dag_id, run_id


@fault("every answer of the tracking server takes 3 s", "success", own_way=True)
def _(stack: Stack, way: Way) -> tuple[str, str]:
    way.proxy.delay = SLOW_ANSWER
    dag_id, run_id = run(stack, f"function_{way.dag_id}", "mlflow.log_metric('loss', 0.5)")
    stack.wait_end(dag_id, run_id)
    return dag_id, run_id


@fault("answers are lost, late or refused in every kind of request", "success", own_way=True)
def _(stack: Stack, way: Way) -> tuple[str, str]:
    way.proxy.faults["runs/create"] = [lose_answer, lose_answer]
    way.proxy.faults["runs/update"] = [outlast, answer(503)]
    for path in ("runs/get", "runs/log-batch", "runs/search"):
        way.proxy.faults[path] = [refuse, lose_answer, answer(429, {"Retry-After": "2"})]
    dag_id, run_id = run(stack, f"function_{way.dag_id}")
    stack.wait_end(dag_id, run_id)
    return dag_id, run_id


@fault("the MLflow server is killed and comes back while it ends", "success", disturbs=True)
def _(stack: Stack) -> tuple[str, str]:
    run_id, told = begun(stack, "function", "wait()")
    with stack.mlflow_killed():
        told.touch()
        stack.wait_tries(stack.proxy)
    return "function", run_id
