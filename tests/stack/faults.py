"""Break the parts of docker-compose.yaml while steps run, and check that both records still agree.

Usage: python -m tests.stack.faults [--only WORDS]      a line per fault
       python -m tests.stack.faults --third 0           a third of them, and what has failed before

The stack is one of its own, with two Celery workers, other ports and other volumes than `make stack-up` has; at the
end it is removed. The last line is "N of M hold"; the exit status is 1 if anything that must hold does not.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.faults.choice import THIRDS, choose
from tests.faults.observed import PATIENCE
from tests.faults.verdict import Fault, Verdict, cause, conclude, run_all, secrets_kept
from tests.stack.client import StackClient
from tests.stack.parts import ROOT, ComposeStack, compose, container_logs
from tests.support.servers import free_port

WORK = ROOT / "build" / "stack-faults"
DAGS = ("stack_step", "stack_many", "stack_uploads", "stack_deferred")
FAILED_BEFORE = Path(__file__).with_name("failed_before.txt")
FIRST_TRY_HANGS = "test $AIRFLOW_CTX_TRY_NUMBER != 1 || sleep 600"
# A cut worker is given up after 20 s (tests/stack/faults.yaml), and finds its connection to Redis dead after 30 s
# (docker-compose.yaml): the network must be away for longer than both.
MINUTE = 60.0
WORKERS = 2

FAULTS: list[Fault[ComposeStack]] = []
Cause = Callable[[ComposeStack], tuple[str, str]]


def fault(name: str, ends: str = "success") -> Callable[[Cause], None]:
    def add(function: Cause) -> None:
        FAULTS.append(Fault(name, function, ends, disturbs=True))

    return add


def run(stack: ComposeStack, dag_id: str, **conf: object) -> tuple[str, str]:
    return dag_id, stack.trigger(dag_id, **conf)


def new_signal() -> str:
    """Return the path of a file that does not exist yet, where all workers see it."""
    return f"/opt/airflow/cache/told-{uuid.uuid4().hex}"


def run_until_told(stack: ComposeStack, dag_id: str) -> tuple[str, str]:
    """Start a DAG run whose commands end, well, as soon as the returned file exists; wait until one runs."""
    told = new_signal()
    run_id = stack.trigger(dag_id, command=f"until test -e {told}; do sleep 0.2; done")
    stack.wait_worker(run_id)
    return run_id, told


def end_while_away(stack: ComposeStack, service: str, dag_id: str) -> tuple[str, str]:
    """Kill a service while steps run, and start it again when their commands have ended."""
    run_id, told = run_until_told(stack, dag_id)
    with stack.killed(stack.container(service)):
        stack.tell(told)
        stack.wait_command_ended(run_id)
    return dag_id, run_id


def both_work(stack: ComposeStack) -> tuple[str, str]:
    """Wait until a DAG run's mapped steps are done by both workers; return that DAG run."""
    found: list[str] = []

    def look() -> bool:
        run_id, told = run_until_told(stack, "stack_many")
        # A message that a dead connection took with it is sent again after TASK_QUEUED_TIMEOUT.
        wait_four_steps(stack, run_id)
        stack.tell(told)
        assert stack.wait_end("stack_many", run_id) == "success"
        found[:] = [run_id]
        return len({stack.hosts("stack_many", run_id, index=index)[-1] for index in range(4)}) == 2

    stack.wait(look, "both workers at work", 2 * PATIENCE)
    return "stack_many", found[0]


def wait_four_steps(stack: ComposeStack, run_id: str) -> None:
    stack.wait(lambda: sum(is_running_step(found) for found in stack.runs(run_id)) == 4, "four steps at once")


def is_running_step(found: Any) -> bool:
    return bool(found.info.status == "RUNNING" and found.data.tags.get("mlflow_projects.role") == "step")


@fault("nothing goes wrong, and both workers share the mapped steps")
def _(stack: ComposeStack) -> tuple[str, str]:
    for dag_id in DAGS:
        stack.client.wait_for_dag(dag_id)
    return both_work(stack)


@fault("one of two workers is killed in the middle of a step")
def _(stack: ComposeStack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "stack_step", command=FIRST_TRY_HANGS)
    with stack.killed(stack.wait_worker(run_id)):
        stack.wait_end(dag_id, run_id)
        first, second = stack.hosts(dag_id, run_id)
        assert first != second, "the retry ran on the worker that was killed"
    return dag_id, run_id


@fault("Redis is killed and started again while steps run")
def _(stack: ComposeStack) -> tuple[str, str]:
    return end_while_away(stack, "redis", "stack_many")


# All steps have begun: one that is just beginning fails before its operator is called, as Airflow asks its database
# for it, and has no MLflow run then.
@fault("PostgreSQL is killed and started again while steps run")
def _(stack: ComposeStack) -> tuple[str, str]:
    run_id, told = run_until_told(stack, "stack_many")
    wait_four_steps(stack, run_id)
    with stack.killed(stack.container("postgres")):
        stack.wait(lambda: not stack.is_up(), "Airflow to miss its database")
    stack.wait(stack.is_up, "Airflow")
    stack.tell(told)
    return "stack_many", run_id


@fault("the MLflow server is killed and started again while a step ends")
def _(stack: ComposeStack) -> tuple[str, str]:
    return end_while_away(stack, "mlflow", "stack_step")


@fault("the MLflow server is killed and started again while a step uploads")
def _(stack: ComposeStack) -> tuple[str, str]:
    return fail_to_upload(stack, "mlflow")


@fault("S3 is killed and started again while a step uploads")
def _(stack: ComposeStack) -> tuple[str, str]:
    return fail_to_upload(stack, "s3")


def fail_to_upload(stack: ComposeStack, service: str) -> tuple[str, str]:
    """Kill a service until a step's uploads have failed; the next try uploads something and ends."""
    told = new_signal()
    dag_id, run_id = run(stack, "stack_uploads", told=told)
    wait_artifact(stack, run_id)
    with stack.killed(stack.container(service)):
        stack.wait_command_ended(run_id)
    stack.tell(told)
    return dag_id, run_id


@fault("S3 is full while a step uploads, then has space again")
def _(stack: ComposeStack) -> tuple[str, str]:
    told = new_signal()
    dag_id, run_id = run(stack, "stack_uploads", told=told)
    wait_artifact(stack, run_id)
    reasons: list[str] = []

    def failed() -> bool:
        reasons[:] = [
            attempt.data.tags["mlflow_projects.reason"]
            for attempt in stack.runs(run_id)
            # The project's own MLflow ends the run first, without a reason.
            if attempt.info.status == "FAILED" and "mlflow_projects.reason" in attempt.data.tags
        ]
        return bool(reasons)

    with stack.full_store():
        stack.wait(failed, "the step's failure")
    stack.tell(told)
    assert "artifact store" in reasons[0], reasons[0]
    return dag_id, run_id


@fault("the scheduler is killed and started again while steps run")
def _(stack: ComposeStack) -> tuple[str, str]:
    return end_while_away(stack, "scheduler", "stack_many")


@fault("the triggerer is killed and started again while a task is deferred")
def _(stack: ComposeStack) -> tuple[str, str]:
    from mlflow import MlflowClient

    model = f"model-{uuid.uuid4().hex}"
    dag_id, run_id = run(stack, "stack_deferred", model=model)
    stack.wait_task(dag_id, run_id, "deferred", "parent.wait")
    with stack.killed(stack.container("triggerer")):
        client = MlflowClient(stack.mlflow_uri)
        client.create_registered_model(model)
        client.create_model_version(model, "s3://mlflow/model")
    return dag_id, run_id


@fault("a worker's network is cut for a minute in the middle of a step")
def _(stack: ComposeStack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "stack_step", command=FIRST_TRY_HANGS)
    worker = stack.wait_worker(run_id)
    with stack.cut_off(worker):
        time.sleep(MINUTE)
    return recover(stack, dag_id, run_id, worker)


@fault("a worker's network is cut for a minute, and the step's command ends well meanwhile")
def _(stack: ComposeStack) -> tuple[str, str]:
    run_id, told = run_until_told(stack, "stack_step")
    worker = stack.wait_worker(run_id)
    with stack.cut_off(worker):
        stack.tell(told)
        time.sleep(MINUTE)
    return recover(stack, "stack_step", run_id, worker)


def recover(stack: ComposeStack, dag_id: str, run_id: str, worker: str) -> tuple[str, str]:
    """Wait until nothing is left of the try on the worker whose network was cut, and it works again."""
    stack.wait_end(dag_id, run_id)
    stack.wait_command_ended(run_id)
    stack.wait(lambda: not stack.is_busy(worker), "the end of the old try")
    both_work(stack)
    return dag_id, run_id


def wait_artifact(stack: ComposeStack, run_id: str) -> None:
    """Wait until a step has uploaded something."""
    from mlflow import MlflowClient

    client = MlflowClient(stack.mlflow_uri)

    def look() -> bool:
        steps = [found for found in stack.runs(run_id) if found.data.tags.get("mlflow_projects.role") == "step"]
        return any(client.list_artifacts(found.info.run_id) for found in steps)

    stack.wait(look, "an artifact")


@contextlib.contextmanager
def running_stack(keep: bool) -> Iterator[ComposeStack | None]:
    """Start a stack of its own with two workers; remove it after the block, with its volumes.

    :param keep: take it if it runs already, and let it run
    :return: None if it does not start; then the ends of its logs are printed
    """
    WORK.mkdir(parents=True, exist_ok=True)
    env_file = WORK / "env"
    os.environ.setdefault("COMPOSE_PROJECT_NAME", "stack-faults")
    os.environ["ENV_FILE"] = str(env_file)
    os.environ["STACK_FILES"] = "tests/stack/faults.yaml"
    if not env_file.exists():
        ports = (f"{name}={free_port()}\n" for name in ("AIRFLOW_PORT", "MLFLOW_PORT", "S3_PORT"))
        env_file.touch(mode=0o600)
        env_file.write_text("".join(ports))
    tool = [sys.executable, str(ROOT / "tools" / "stack.py")]
    if not keep:  # what a run that was killed left has other passwords
        subprocess.run([*tool, "down", "--volumes"], check=True)
    try:
        running = keep and len(compose.containers("worker", ended=False)) == WORKERS
        if not running and subprocess.run([*tool, "up", "--workers", str(WORKERS)], check=False).returncode:
            print("The stack does not start:", *container_logs(), sep="\n", flush=True)
            yield None
            return
        env = compose.read(env_file)
        # MLflow's client, which reads what the steps left.
        os.environ["MLFLOW_TRACKING_USERNAME"] = env["MLFLOW_ADMIN_USER"]
        os.environ["MLFLOW_TRACKING_PASSWORD"] = env["MLFLOW_ADMIN_PASSWORD"]
        yield ComposeStack(StackClient(env))
    finally:
        if not keep:
            subprocess.run([*tool, "down", "--volumes"], check=False)
            env_file.unlink()


def secrets_shown(stack: ComposeStack, env: dict[str, str]) -> list[str]:
    """Return where a password or key of ``.env`` is found: the containers' output, MLflow's tags and parameters."""
    secret = {name: value for name, value in env.items() if name.endswith(("PASSWORD", "SECRET", "KEY"))}
    secret.pop("S3_ACCESS_KEY", None)  # a name
    text = "\n".join(stack.last_lines(count=100_000)) + stack.records()
    return [f"5: {name} of .env" for name, value in secret.items() if value in text]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="only faults whose name holds these words")
    parser.add_argument("--third", type=int, choices=range(THIRDS), help="only a third, and what has failed before")
    parser.add_argument("--again", action="store_true", help="cause a fault that broke something once more")
    parser.add_argument("--keep", action="store_true", help="let the stack run at the end; take it the next time")
    arguments = parser.parse_args()
    probe = FAULTS[0]
    chosen = choose(FAULTS, arguments.third, FAILED_BEFORE)
    faults = [fault for fault in chosen if arguments.only in fault.name and fault is not probe]
    verdicts: list[Verdict] = []
    with running_stack(arguments.keep) as stack:
        if stack:
            verdicts.append(healthy := cause(stack, probe))
            print(healthy, *healthy.logs, sep="\n", flush=True)
            if not healthy.problems:
                verdicts += run_all(stack, faults, again=arguments.again, record=FAILED_BEFORE)
                verdicts.append(secrets_kept(secrets_shown(stack, compose.read(Path(os.environ["ENV_FILE"])))))
                print(verdicts[-1], flush=True)
    return conclude(verdicts, len(faults) + 2)  # with the probe and the look for secrets


if __name__ == "__main__":
    sys.exit(main())
