"""Break the parts of docker-compose.yaml while steps run, and check that both records still agree.

Usage: python -m tests.stack.faults [--only WORDS]      a line per fault

The stack is one of its own, with two Celery workers, other ports and other volumes than `make stack-up` has; at the
end it is removed. The exit status is 1 if anything that must hold does not.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.faults.verdict import Fault, cause, run_all
from tests.stack.client import StackClient
from tests.stack.parts import ROOT, ComposeStack, compose
from tests.support.servers import free_port

WORK = ROOT / "build" / "stack-faults"
DAGS = ("stack_step", "stack_many", "stack_uploads", "stack_deferred")
FIRST_TRY_HANGS = "test $AIRFLOW_CTX_TRY_NUMBER != 1 || sleep 300"
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


def both_work(stack: ComposeStack) -> None:
    """Wait until a DAG run's mapped steps are done by both workers."""

    def look() -> bool:
        dag_id, run_id = run(stack, "stack_many", command="sleep 3")
        # A message that a dead connection took with it is sent again after TASK_QUEUED_TIMEOUT.
        assert stack.wait_end(dag_id, run_id, 180) == "success"
        return len({stack.hosts(dag_id, run_id, index=index)[-1] for index in range(4)}) == 2

    stack.wait(look, 240, "both workers at work")


def is_running_step(found: Any) -> bool:
    return bool(found.info.status == "RUNNING" and found.data.tags.get("mlflow_projects.role") == "step")


@fault("nothing goes wrong, and both workers share the mapped steps")
def _(stack: ComposeStack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "stack_many", command="sleep 5")
    stack.wait_end(dag_id, run_id, 120)
    hosts = [stack.hosts(dag_id, run_id, index=index)[-1] for index in range(4)]
    assert len(set(hosts)) == 2, f"the steps ran on {hosts}"
    return dag_id, run_id


@fault("one of two workers is killed in the middle of a step")
def _(stack: ComposeStack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "stack_step", command=FIRST_TRY_HANGS)
    with stack.killed(stack.wait_worker(run_id)):
        stack.wait_end(dag_id, run_id, 150)
        first, second = stack.hosts(dag_id, run_id)
        assert first != second, "the retry ran on the worker that was killed"
    return dag_id, run_id


@fault("Redis is killed and started again while steps run")
def _(stack: ComposeStack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "stack_many", command="sleep 12")
    stack.wait_worker(run_id)
    stack.restart("redis", away=5)
    return dag_id, run_id


# All steps have begun: one that is just beginning fails before its operator is called, as Airflow asks its database
# for it, and has no MLflow run then.
@fault("PostgreSQL is killed and started again while steps run")
def _(stack: ComposeStack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "stack_many", command="sleep 20")
    stack.wait(lambda: sum(is_running_step(found) for found in stack.runs(run_id)) == 4, 120, "four steps at once")
    stack.restart("postgres", away=5)
    return dag_id, run_id


@fault("the MLflow server is killed and started again while a step ends")
def _(stack: ComposeStack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "stack_step", command="sleep 6")
    stack.wait_worker(run_id)
    stack.restart("mlflow", away=5)
    return dag_id, run_id


@fault("the MLflow server is killed and started again while a step uploads")
def _(stack: ComposeStack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "stack_uploads", files=8)
    wait_artifact(stack, run_id)
    stack.restart("mlflow", away=3)
    return dag_id, run_id


@fault("S3 is killed and started again while a step uploads")
def _(stack: ComposeStack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "stack_uploads", files=8)
    wait_artifact(stack, run_id)
    stack.restart("s3", away=5)
    return dag_id, run_id


@fault("S3 is full while a step uploads, then has space again")
def _(stack: ComposeStack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "stack_uploads", files=30)
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
        stack.wait(failed, 120, "the step's failure")
    assert "artifact store" in reasons[0], reasons[0]
    return dag_id, run_id


@fault("the scheduler is killed and started again while steps run")
def _(stack: ComposeStack) -> tuple[str, str]:
    dag_id, run_id = run(stack, "stack_many", command="sleep 8")
    stack.wait_worker(run_id)
    stack.restart("scheduler", away=3)
    return dag_id, run_id


@fault("the triggerer is killed and started again while a task is deferred")
def _(stack: ComposeStack) -> tuple[str, str]:
    from mlflow import MlflowClient

    model = f"model-{time.monotonic_ns()}"
    dag_id, run_id = run(stack, "stack_deferred", model=model)
    stack.wait(lambda: stack.task(dag_id, run_id, "parent.wait")["state"] == "deferred", 90, "the deferral")
    with stack.killed(stack.container("triggerer")):
        client = MlflowClient(stack.mlflow_uri)
        client.create_registered_model(model)
        client.create_model_version(model, "s3://mlflow/model")
    return dag_id, run_id


@fault("a worker's network is cut for a minute in the middle of a step")
def _(stack: ComposeStack) -> tuple[str, str]:
    return cut_for_a_minute(stack, FIRST_TRY_HANGS)


@fault("a worker's network is cut for a minute, and the step's command ends well meanwhile")
def _(stack: ComposeStack) -> tuple[str, str]:
    return cut_for_a_minute(stack, "test $AIRFLOW_CTX_TRY_NUMBER != 1 || sleep 10")


def cut_for_a_minute(stack: ComposeStack, command: str) -> tuple[str, str]:
    """Cut the network of the worker that runs a step's command; wait until nothing is left of that try."""
    dag_id, run_id = run(stack, "stack_step", command=command)
    worker = stack.wait_worker(run_id)
    with stack.cut_off(worker):
        time.sleep(MINUTE)
    stack.wait_end(dag_id, run_id, 150)
    stack.wait(lambda: not stack.processes(run_id), 120, "the end of the old command")
    stack.wait(lambda: not stack.is_busy(worker), 180, "the end of the old try")
    both_work(stack)
    return dag_id, run_id


def wait_artifact(stack: ComposeStack, run_id: str) -> None:
    """Wait until a step has uploaded something."""
    from mlflow import MlflowClient

    client = MlflowClient(stack.mlflow_uri)

    def look() -> bool:
        steps = [found for found in stack.runs(run_id) if found.data.tags.get("mlflow_projects.role") == "step"]
        return any(client.list_artifacts(found.info.run_id) for found in steps)

    stack.wait(look, 90, "an artifact")


@contextlib.contextmanager
def running_stack(keep: bool) -> Iterator[ComposeStack]:
    """Start a stack of its own with two workers; remove it after the block, with its volumes.

    :param keep: take it if it runs already, and let it run
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
        if not (keep and len(compose.containers("worker", ended=False)) == WORKERS):
            subprocess.run([*tool, "up", "--workers", str(WORKERS)], check=True)
        env = compose.read(env_file)
        # MLflow's client, which reads what the steps left.
        os.environ["MLFLOW_TRACKING_USERNAME"] = env["MLFLOW_ADMIN_USER"]
        os.environ["MLFLOW_TRACKING_PASSWORD"] = env["MLFLOW_ADMIN_PASSWORD"]
        stack = ComposeStack(StackClient(env))
        for dag_id in DAGS:
            stack.client.wait_for_dag(dag_id)
        yield stack
    finally:
        if not keep:
            subprocess.run([*tool, "down", "--volumes"], check=False)
            env_file.unlink()


def secrets_shown(stack: ComposeStack, env: dict[str, str]) -> list[str]:
    """Return where a password or key of ``.env`` is found: the containers' output, MLflow's tags and parameters."""
    secret = {name: value for name, value in env.items() if name.endswith(("PASSWORD", "SECRET", "KEY"))}
    secret.pop("S3_ACCESS_KEY", None)  # a name
    text = "\n".join(stack.last_lines(100_000)) + stack.records()
    return [f"5: {name} of .env" for name, value in secret.items() if value in text]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="only faults whose name holds these words")
    parser.add_argument("--again", action="store_true", help="cause a fault that broke something once more")
    parser.add_argument("--keep", action="store_true", help="let the stack run at the end; take it the next time")
    arguments = parser.parse_args()
    probe, *faults = FAULTS
    faults = [fault for fault in faults if arguments.only in fault.name]
    with running_stack(arguments.keep) as stack:
        healthy = cause(stack, probe)
        print(healthy, flush=True)
        if healthy.problems:
            print("The stack does not work, before any fault:", *stack.last_lines(), sep="\n")
            return 1
        begin = time.monotonic()
        verdicts = run_all(stack, faults, again=arguments.again, with_logs=True)
        shown = secrets_shown(stack, compose.read(Path(os.environ["ENV_FILE"])))
    print("\n".join(shown) or "no password or key of .env was found in the containers' output or in MLflow")
    broken = [verdict for verdict in verdicts if verdict.problems]
    print(f"{len(verdicts) - len(broken)} of {len(verdicts)} faults hold, in {time.monotonic() - begin:.0f} s")
    return 1 if broken or shown or not verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
