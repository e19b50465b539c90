"""The named faults of training jobs, each with the worker watching and with a trigger watching."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import psutil

from mlflow_projects.backends.sagemaker.request import job_name
from tests.faults.stack import GONE_IMAGE, JOB_MODES, Stack
from tests.faults.table import clear_step, patch_task
from tests.faults.verdict import Fault

JOB_FAULTS: list[Fault[Stack]] = []
LONG = "echo begun; sleep 90"
# For the step; AWS itself would let the job go on.
PAST_ITS_DEADLINE = {
    "max_run": 5,
    "max_queue_seconds": 0,
    "overrides": {"StoppingCondition": {"MaxRuntimeInSeconds": 3600}},
}
CREATE = {"service": "sagemaker", "operation": "CreateTrainingJob"}

Cause = Callable[[Stack, str], tuple[str, str]]


def fault(
    name: str, ends: str, *, disturbs: bool = False, modes: tuple[str, ...] = JOB_MODES
) -> Callable[[Cause], None]:
    def add(function: Cause) -> None:
        for mode in modes:

            def do(stack: Stack, mode: str = mode) -> tuple[str, str]:
                return function(stack, mode)

            lane = mode if disturbs else ""
            JOB_FAULTS.append(Fault(f"job {mode}: {name}", do, ends, disturbs, lane=lane, needs_sagemaker=True))

    return add


def order(stack: Stack, mode: str, *faults: Mapping[str, object]) -> None:
    """Order faults of AWS for the requests that steps of this mode send."""
    stack.sagemaker.faults(*({**fault, "access_key": mode} for fault in faults))


def run(stack: Stack, dag_id: str, command: str = "true", **conf: object) -> tuple[str, str]:
    return dag_id, stack.trigger(dag_id, command=command, **conf)


def worker_of(stack: Stack, dag_id: str, run_id: str) -> psutil.Process:
    """Return the step's task process."""
    stack.wait(lambda: bool(stack.task(dag_id, run_id)["pid"]), 60, "the task's process")
    return psutil.Process(stack.task(dag_id, run_id)["pid"])


def wait_until_deferred(stack: Stack, dag_id: str, run_id: str, mode: str) -> None:
    if mode == "deferred":
        stack.wait(lambda: stack.task(dag_id, run_id)["state"] == "deferred", 60, "the deferral")


def one_job(stack: Stack, run_id: str) -> None:
    count = len(stack.jobs_of(run_id))
    assert count == 1, f"{count} jobs, not one"


@fault("nothing goes wrong", "success")
def _(stack: Stack, mode: str) -> tuple[str, str]:
    return run(stack, f"job_{mode}", "echo fine")


@fault("the project fails", "failed")
def _(stack: Stack, mode: str) -> tuple[str, str]:
    return run(stack, f"job_{mode}", "echo last words; exit 3")


@fault("the container cannot start, as its image is missing", "failed")
def _(stack: Stack, mode: str) -> tuple[str, str]:
    account = stack.sagemaker.role.split(":")[4]
    image = f"{account}.dkr.ecr.us-east-1.amazonaws.com/no-such-image:1"
    return run(stack, f"job_{mode}", config={"image_uri": image})


@fault("the image cannot be pulled once the job has begun", "failed")
def _(stack: Stack, mode: str) -> tuple[str, str]:
    return run(stack, f"job_{mode}", config={"image_uri": GONE_IMAGE})


@fault("somebody stops the job in AWS", "failed")
def _(stack: Stack, mode: str) -> tuple[str, str]:
    dag_id, run_id = run(stack, f"job_{mode}", LONG)
    name = stack.wait_job(run_id, "Training")
    stack.sagemaker.client().stop_training_job(TrainingJobName=name)
    return dag_id, run_id


@fault("the job takes longer than max_run", "failed")
def _(stack: Stack, mode: str) -> tuple[str, str]:
    return run(stack, f"job_{mode}", LONG, config={"max_run": 2})


@fault("the job waits for ever and its deadline passes", "failed")
def _(stack: Stack, mode: str) -> tuple[str, str]:
    return run(stack, f"job_{mode}", LONG, config=PAST_ITS_DEADLINE)


@fault("its deadline passes while AWS is slow to take the stop", "failed", disturbs=True)
def _(stack: Stack, mode: str) -> tuple[str, str]:
    slow = {"service": "sagemaker", "operation": "StopTrainingJob", "error": "ThrottlingException", "times": 3}
    order(stack, mode, slow)
    return run(stack, f"job_{mode}", LONG, config=PAST_ITS_DEADLINE)


@fault("a person marks the step failed while its job runs", "failed")
def _(stack: Stack, mode: str) -> tuple[str, str]:
    dag_id, run_id = run(stack, f"job_{mode}", LONG)
    stack.wait_job(run_id, "Training")
    wait_until_deferred(stack, dag_id, run_id, mode)
    time.sleep(2)
    patch_task(stack, dag_id, run_id, "failed")
    return dag_id, run_id


@fault("a person clears the step while its job runs", "success")
def _(stack: Stack, mode: str) -> tuple[str, str]:
    dag_id, run_id = run(stack, f"job_{mode}", "test $TRY = 2 || sleep 90")
    stack.wait_job(run_id, "Training")
    wait_until_deferred(stack, dag_id, run_id, mode)
    time.sleep(2)
    clear_step(stack, dag_id, run_id)
    stack.wait(lambda: len(stack.jobs_of(run_id)) == 2, 60, "the second job")
    return dag_id, run_id


@fault("execution_timeout while the job runs", "failed")
def _(stack: Stack, mode: str) -> tuple[str, str]:
    return run(stack, f"job_limited_{mode}", LONG)


@fault("dagrun_timeout while the job runs", "failed")
def _(stack: Stack, mode: str) -> tuple[str, str]:
    return run(stack, f"job_short_run_{mode}", LONG)


@fault("1 MB of parameters and a variable of 513 characters", "success")
def _(stack: Stack, mode: str) -> tuple[str, str]:
    many = {f"key{number}": "x" * 50_000 for number in range(20)}
    command = 'test ${#LONG} = 513 && test $(echo "$*" | wc -c) -gt 1000000'
    return run(stack, f"job_{mode}", command, parameters=many, config={"environment": {"LONG": "v" * 513}})


@fault("SIGKILL to the worker while it waits, then a retry", "success", modes=("watched",))
def _(stack: Stack, mode: str) -> tuple[str, str]:
    dag_id, run_id = run(stack, f"job_again_{mode}", "sleep 15")
    stack.wait_job(run_id, "Training")
    worker_of(stack, dag_id, run_id).kill()
    stack.wait_end(dag_id, run_id, 120)
    one_job(stack, run_id)
    return dag_id, run_id


@fault("SIGKILL to the worker while it waits, and no retry", "failed", modes=("watched",))
def _(stack: Stack, mode: str) -> tuple[str, str]:
    dag_id, run_id = run(stack, f"job_{mode}", LONG)
    stack.wait_job(run_id, "Training")
    worker_of(stack, dag_id, run_id).kill()
    return dag_id, run_id


@fault("SIGKILL to the worker while the job is being created, then a retry", "success", disturbs=True)
def _(stack: Stack, mode: str) -> tuple[str, str]:
    order(stack, mode, {**CREATE, "delay": 4, "after": True})
    dag_id, run_id = run(stack, f"job_again_{mode}", "sleep 15")
    stack.wait_job(run_id)
    worker_of(stack, dag_id, run_id).kill()
    stack.wait_end(dag_id, run_id, 120)
    one_job(stack, run_id)
    return dag_id, run_id


@fault("the triggerer is killed and started again", "success", disturbs=True, modes=("deferred",))
def _(stack: Stack, mode: str) -> tuple[str, str]:
    dag_id, run_id = run(stack, f"job_{mode}", "sleep 12")
    stack.wait_job(run_id, "Training")
    wait_until_deferred(stack, dag_id, run_id, mode)
    stack.kill("triggerer")
    stack.start("triggerer")
    stack.wait_end(dag_id, run_id, 120)
    one_job(stack, run_id)
    return dag_id, run_id


@fault("ThrottlingException, again and again", "success", disturbs=True)
def _(stack: Stack, mode: str) -> tuple[str, str]:
    for operation in ("CreateTrainingJob", "DescribeTrainingJob", "ListTrainingJobs"):
        fault = {"service": "sagemaker", "operation": operation, "error": "ThrottlingException", "times": 6}
        order(stack, mode, fault)
    dag_id, run_id = run(stack, f"job_{mode}", "sleep 2")
    stack.wait_end(dag_id, run_id, 120)
    one_job(stack, run_id)
    return dag_id, run_id


@fault("the service answers InternalServerError, and has made the job or not", "success", disturbs=True)
def _(stack: Stack, mode: str) -> tuple[str, str]:
    failing = {**CREATE, "error": "InternalServerError"}
    order(stack, mode, failing, {**failing, "after": True})
    dag_id, run_id = run(stack, f"job_{mode}", "sleep 2")
    stack.wait_end(dag_id, run_id, 120)
    one_job(stack, run_id)
    return dag_id, run_id


@fault("the answer to the creation is lost", "success", disturbs=True)
def _(stack: Stack, mode: str) -> tuple[str, str]:
    order(stack, mode, {**CREATE, "error": "lost", "after": True})
    dag_id, run_id = run(stack, f"job_{mode}", "sleep 2")
    stack.wait_end(dag_id, run_id, 120)
    one_job(stack, run_id)
    return dag_id, run_id


def unavailable(stack: Stack, mode: str, error: str, seconds: float) -> tuple[str, str]:
    dag_id, run_id = run(stack, f"job_{mode}", "sleep 5")
    stack.wait_job(run_id, "Training")
    services = ("sagemaker", "logs", "sts")
    order(stack, mode, *({"service": name, "error": error, "seconds": seconds} for name in services))
    time.sleep(seconds)
    stack.wait_end(dag_id, run_id, 120)
    one_job(stack, run_id)
    return dag_id, run_id


@fault("AWS cannot be asked for a minute", "success", disturbs=True)
def _(stack: Stack, mode: str) -> tuple[str, str]:
    return unavailable(stack, mode, "ServiceUnavailable", 60)


@fault("the credentials are expired for a while", "success", disturbs=True)
def _(stack: Stack, mode: str) -> tuple[str, str]:
    return unavailable(stack, mode, "ExpiredTokenException", 10)


@fault("CloudWatch cannot be asked", "success", disturbs=True)
def _(stack: Stack, mode: str) -> tuple[str, str]:
    fault = {"service": "logs", "operation": "FilterLogEvents", "error": "ServiceUnavailable", "seconds": 15}
    order(stack, mode, fault)
    return run(stack, f"job_{mode}", "sleep 2")


@fault("the upload to S3 fails half-way, then a retry", "success", disturbs=True)
def _(stack: Stack, mode: str) -> tuple[str, str]:
    put = {"service": "s3", "operation": "PutObject"}
    order(stack, mode, {**put, "error": ""}, {**put, "error": "InternalError", "times": 5})
    dag_id, run_id = run(stack, f"job_again_{mode}", "true")
    stack.wait_end(dag_id, run_id, 120)
    one_job(stack, run_id)
    return dag_id, run_id


@fault("somebody else's job has the same name", "failed", disturbs=True)
def _(stack: Stack, mode: str) -> tuple[str, str]:
    order(stack, mode, {"service": "s3", "operation": "PutObject", "delay": 4, "times": 2})
    dag_id, run_id = run(stack, f"job_{mode}", "true")
    stack.wait(lambda: stack.task(dag_id, run_id)["state"] == "running", 60, "the task")
    name = job_name(f"{dag_id}-step", stack.task(dag_id, run_id)["id"])
    stack.sagemaker.client().create_training_job(**stack.sagemaker.request(name, ["true"]))
    return dag_id, run_id
