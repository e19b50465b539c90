"""The named faults of training jobs, each with the worker watching and with a trigger watching."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping

import psutil

from mlflow_projects.backends.sagemaker.request import job_name
from tests.faults.stack import GONE_IMAGE, JOB_MODES, Stack
from tests.faults.table import clear_step, new_signal, patch_task, until
from tests.faults.verdict import Fault

JOB_FAULTS: list[Fault[Stack]] = []
BEGUN = "begun 42"  # as the job says it, not as its command is written
HANGING = "echo begun $((6 * 7)); sleep 600"  # until it is stopped
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
    stack.wait(lambda: bool(stack.task(dag_id, run_id)["pid"]), "the task's process")
    return psutil.Process(stack.task(dag_id, run_id)["pid"])


def wait_until_watched(stack: Stack, dag_id: str, run_id: str, mode: str) -> None:
    """Wait until the worker, or the trigger, has told what the job wrote."""
    stack.wait_task(dag_id, run_id, "deferred" if mode == "deferred" else "running")
    stack.wait(lambda: BEGUN in stack.task_log(dag_id, run_id), "the job's output in the task's log")


def wait_second_try(stack: Stack, dag_id: str, run_id: str) -> None:
    """Wait until a worker, or a trigger, looks after the job in the second try."""

    def look() -> bool:
        task = stack.task(dag_id, run_id)
        return task["try_number"] == 2 and task["state"] in ("running", "deferred")

    stack.wait(look, "the second try")


def one_job(stack: Stack, run_id: str) -> None:
    count = len(stack.jobs_of(run_id))
    assert count == 1, f"{count} jobs, not one"


@fault("nothing goes wrong", "success")
def _(stack: Stack, mode: str) -> tuple[str, str]:
    return run(stack, f"job_{mode}", "echo fine")


# Before the others, as it takes longest: AWS may not know a new job everywhere, so nobody believes at once.
@fault("AWS knows the job no more", "failed")
def _(stack: Stack, mode: str) -> tuple[str, str]:
    dag_id, run_id = run(stack, f"job_{mode}", HANGING)
    wait_until_watched(stack, dag_id, run_id, mode)
    stack.sagemaker.forget(stack.wait_job(run_id, "Training"))
    stack.wait_end(dag_id, run_id)
    assert "AWS knows it no more" in stack.task_log(dag_id, run_id), "no line says what became of the job"
    return dag_id, run_id


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
    dag_id, run_id = run(stack, f"job_{mode}", HANGING)
    name = stack.wait_job(run_id, "Training")
    stack.sagemaker.client().stop_training_job(TrainingJobName=name)
    return dag_id, run_id


@fault("the job takes longer than max_run", "failed")
def _(stack: Stack, mode: str) -> tuple[str, str]:
    return run(stack, f"job_{mode}", HANGING, config={"max_run": 2})


@fault("the job waits for ever and its deadline passes", "failed")
def _(stack: Stack, mode: str) -> tuple[str, str]:
    return run(stack, f"job_{mode}", HANGING, config=PAST_ITS_DEADLINE)


@fault("its deadline passes while AWS is slow to take the stop", "failed", disturbs=True)
def _(stack: Stack, mode: str) -> tuple[str, str]:
    slow = {"service": "sagemaker", "operation": "StopTrainingJob", "error": "ThrottlingException", "times": 3}
    order(stack, mode, slow)
    return run(stack, f"job_{mode}", HANGING, config=PAST_ITS_DEADLINE)


@fault("a person marks the step failed while its job runs", "failed")
def _(stack: Stack, mode: str) -> tuple[str, str]:
    dag_id, run_id = run(stack, f"job_{mode}", HANGING)
    wait_until_watched(stack, dag_id, run_id, mode)
    patch_task(stack, dag_id, run_id, "failed")
    return dag_id, run_id


@fault("a person clears the step while its job runs", "success")
def _(stack: Stack, mode: str) -> tuple[str, str]:
    dag_id, run_id = run(stack, f"job_{mode}", f"test $TRY = 2 || {{ {HANGING}; }}")
    wait_until_watched(stack, dag_id, run_id, mode)
    clear_step(stack, dag_id, run_id)
    stack.wait(lambda: len(stack.jobs_of(run_id)) == 2, "the second job")
    return dag_id, run_id


@fault("execution_timeout while the job runs", "failed")
def _(stack: Stack, mode: str) -> tuple[str, str]:
    dag_id, run_id = run(stack, f"job_limited_{mode}", HANGING)
    if mode == "watched":
        wait_until_watched(stack, dag_id, run_id, mode)
        worker_of(stack, dag_id, run_id).send_signal(signal.SIGALRM)
    return dag_id, run_id


@fault("dagrun_timeout while the job runs", "failed")
def _(stack: Stack, mode: str) -> tuple[str, str]:
    dag_id, run_id = run(stack, f"job_short_run_{mode}", HANGING)
    wait_until_watched(stack, dag_id, run_id, mode)
    stack.let_time_out(run_id)
    return dag_id, run_id


@fault("1 MB of parameters and a variable of 513 characters", "success")
def _(stack: Stack, mode: str) -> tuple[str, str]:
    many = {f"key{number}": "x" * 50_000 for number in range(20)}
    command = 'test ${#LONG} = 513 && test $(echo "$*" | wc -c) -gt 1000000'
    return run(stack, f"job_{mode}", command, parameters=many, config={"environment": {"LONG": "v" * 513}})


@fault("SIGKILL to the worker while it waits, then a retry", "success", modes=("watched",))
def _(stack: Stack, mode: str) -> tuple[str, str]:
    told = new_signal(stack)
    dag_id, run_id = run(stack, f"job_again_{mode}", until(told))
    stack.wait_job(run_id, "Training")
    worker_of(stack, dag_id, run_id).kill()
    wait_second_try(stack, dag_id, run_id)
    told.touch()
    stack.wait_end(dag_id, run_id)
    one_job(stack, run_id)
    return dag_id, run_id


@fault("SIGKILL to the worker while it waits, and no retry", "failed", modes=("watched",))
def _(stack: Stack, mode: str) -> tuple[str, str]:
    dag_id, run_id = run(stack, f"job_{mode}", HANGING)
    stack.wait_job(run_id, "Training")
    worker_of(stack, dag_id, run_id).kill()
    return dag_id, run_id


@fault("SIGKILL to the worker while the job is being created, then a retry", "success", disturbs=True)
def _(stack: Stack, mode: str) -> tuple[str, str]:
    order(stack, mode, {**CREATE, "hold": True, "after": True})
    told = new_signal(stack)
    dag_id, run_id = run(stack, f"job_again_{mode}", until(told))
    stack.wait_job(run_id)
    worker_of(stack, dag_id, run_id).kill()
    wait_second_try(stack, dag_id, run_id)
    stack.mend(mode)
    told.touch()
    stack.wait_end(dag_id, run_id)
    one_job(stack, run_id)
    return dag_id, run_id


@fault("the triggerer is killed and started again", "success", disturbs=True, modes=("deferred",))
def _(stack: Stack, mode: str) -> tuple[str, str]:
    told = new_signal(stack)
    dag_id, run_id = run(stack, f"job_{mode}", f"echo begun $((6 * 7)); {until(told)}")
    wait_until_watched(stack, dag_id, run_id, mode)
    stack.kill("triggerer")
    stack.start("triggerer")
    # It tells again what the job wrote.
    stack.wait(lambda: stack.task_log(dag_id, run_id).count(BEGUN) > 1, "the new triggerer to look after the job")
    told.touch()
    stack.wait_end(dag_id, run_id)
    one_job(stack, run_id)
    return dag_id, run_id


@fault("ThrottlingException, again and again", "success", disturbs=True)
def _(stack: Stack, mode: str) -> tuple[str, str]:
    for operation in ("CreateTrainingJob", "DescribeTrainingJob", "ListTrainingJobs"):
        fault = {"service": "sagemaker", "operation": operation, "error": "ThrottlingException", "times": 6}
        order(stack, mode, fault)
    dag_id, run_id = run(stack, f"job_{mode}")
    stack.wait_end(dag_id, run_id)
    one_job(stack, run_id)
    return dag_id, run_id


@fault("the service answers InternalServerError, and has made the job or not", "success", disturbs=True)
def _(stack: Stack, mode: str) -> tuple[str, str]:
    failing = {**CREATE, "error": "InternalServerError"}
    order(stack, mode, failing, {**failing, "after": True})
    dag_id, run_id = run(stack, f"job_{mode}")
    stack.wait_end(dag_id, run_id)
    one_job(stack, run_id)
    return dag_id, run_id


@fault("the answer to the creation is lost", "success", disturbs=True)
def _(stack: Stack, mode: str) -> tuple[str, str]:
    order(stack, mode, {**CREATE, "error": "lost", "after": True})
    dag_id, run_id = run(stack, f"job_{mode}")
    stack.wait_end(dag_id, run_id)
    one_job(stack, run_id)
    return dag_id, run_id


def unavailable(stack: Stack, mode: str, error: str, times: int) -> tuple[str, str]:
    """Let a job end while AWS answers with an error, until it has done so many times."""
    told = new_signal(stack)
    dag_id, run_id = run(stack, f"job_{mode}", until(told))
    name = stack.wait_job(run_id, "Training")
    services = ("sagemaker", "logs", "sts")
    order(stack, mode, *({"service": name, "error": error, "times": 0} for name in services))
    told.touch()
    stack.wait(lambda: stack.sagemaker.describe(name)["TrainingJobStatus"] == "Completed", "the end of the job")
    stack.wait(lambda: stack.sagemaker.struck(mode) >= times, f"{times} requests in vain")
    stack.mend(mode)
    stack.wait_end(dag_id, run_id)
    one_job(stack, run_id)
    return dag_id, run_id


@fault("AWS cannot be asked for a while", "success", disturbs=True)
def _(stack: Stack, mode: str) -> tuple[str, str]:
    # Of each service, four requests are one look in vain; so this outlasts two looks, at least.
    return unavailable(stack, mode, "ServiceUnavailable", 16)


@fault("the credentials are expired for a while", "success", disturbs=True)
def _(stack: Stack, mode: str) -> tuple[str, str]:
    return unavailable(stack, mode, "ExpiredTokenException", 6)


@fault("CloudWatch cannot be asked", "success", disturbs=True)
def _(stack: Stack, mode: str) -> tuple[str, str]:
    fault = {"service": "logs", "operation": "FilterLogEvents", "error": "ServiceUnavailable", "times": 0}
    order(stack, mode, fault)
    return run(stack, f"job_{mode}")


@fault("the upload to S3 fails half-way, then a retry", "success", disturbs=True)
def _(stack: Stack, mode: str) -> tuple[str, str]:
    put = {"service": "s3", "operation": "PutObject"}
    order(stack, mode, {**put, "error": ""}, {**put, "error": "InternalError", "times": 5})
    dag_id, run_id = run(stack, f"job_again_{mode}", "true")
    stack.wait_end(dag_id, run_id)
    one_job(stack, run_id)
    return dag_id, run_id


@fault("somebody else's job has the same name", "failed", disturbs=True)
def _(stack: Stack, mode: str) -> tuple[str, str]:
    order(stack, mode, {"service": "s3", "operation": "PutObject", "hold": True, "times": 0})
    dag_id, run_id = run(stack, f"job_{mode}")
    stack.wait(lambda: stack.sagemaker.holding(mode), "the upload of the project")
    name = job_name(f"{dag_id}-step", stack.task(dag_id, run_id)["id"])
    stack.sagemaker.client().create_training_job(**stack.sagemaker.request(name, ["true"]))
    stack.mend(mode)
    return dag_id, run_id
