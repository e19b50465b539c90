"""What must be true after every fault, read from Airflow, MLflow and the process table."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

from tests.faults.observed import Observed
from tests.faults.stack import SECRET, Stack
from tests.support.servers import dumped

SECONDS_TO_SETTLE = 100  # more than the pauses of the last word, less than what commands leave behind lives


def violations(
    stack: Observed, dag_id: str, run_id: str, *, unrecorded: bool = False, marked: bool = False
) -> list[str]:
    """Return every broken invariant of a DAG run that ended; [] means that all hold, perhaps after a while.

    :param unrecorded: failed tries may have no MLflow run, as no tracking server could be reached while they lived
    :param marked: a person called a running step a success: its run is KILLED, as that is what happened to it
    """
    found: list[str] = []

    def look() -> bool:
        found[:] = _now(stack, dag_id, run_id, unrecorded, marked)
        return not found

    try:
        stack.wait(look, "the invariants", SECONDS_TO_SETTLE)
    except AssertionError:
        return found
    return []


def _now(stack: Observed, dag_id: str, run_id: str, unrecorded: bool, marked: bool) -> list[str]:
    problems = []
    runs = stack.runs(run_id)
    for run in runs:
        if run.info.status in ("RUNNING", "SCHEDULED"):
            problems.append(f"1: run {run.info.run_name} is {run.info.status}")
    base = f"/dags/{dag_id}/dagRuns/{run_id}"
    for task in stack.get(f"{base}/taskInstances?limit=200")["task_instances"]:
        # A function that logs to another's run has none of its own.
        has_run = task["rendered_fields"].get("log_to", "own") == "own"
        if has_run and task["operator"] in ("MLflowProjectOperator", "_MLflowDecoratedOperator"):
            problems += _attempts(stack, base, task, runs, unrecorded, marked)
    if stack.with_sagemaker:
        problems += _jobs(stack, run_id)
    if left := stack.processes(run_id):
        problems.append(f"3: still alive: {list(map(str, left))}")  # cmdline() fails once it has ended
    return problems + _parents(stack, dag_id, run_id, runs)


def _parents(stack: Observed, dag_id: str, run_id: str, runs: list[Any]) -> list[str]:
    """Look whether each parent run says what its group did; one that stands for all says what the DAG run says."""
    state, over = stack.dag_run(dag_id, run_id), stack.get(f"/dags/{dag_id}/dagRuns/{run_id}")["end_date"]
    parents = [run for run in runs if run.data.tags.get("mlflow_projects.role") == "parent"]
    groups = {(run.data.tags["airflow.task_id"], run.data.tags["airflow.map_index"]) for run in parents}
    tasks = stack.get(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=200")["task_instances"]
    starts = sum(task["operator"] == "MLflowStartRunOperator" for task in tasks)  # a person may have deleted a parent
    problems = []
    for group, index in groups:
        of_group = [run for run in parents if _task(run) == (group, index)]
        ended = state
        if starts > 1:
            prefix = group.removesuffix("start_run")
            bad = [
                task
                for task in tasks
                if task["task_id"].startswith(prefix)
                and task["state"] in ("failed", "upstream_failed")
                and int(index) in (-1, task["map_index"])
            ]
            ended = "failed" if bad else "success"
            # A person failed the DAG run: Airflow skips what comes behind, and calls a skipped last task no failure.
            if bad and any(task["task_id"].startswith(prefix) and task["state"] == "skipped" for task in tasks):
                ended = "unknown"
            last = next(task for task in tasks if task["task_id"] == f"{prefix}end_run")
            # A person or a time-out may have been first.
            if not bad and state == "failed" and (last["state"] != "success" or last["end_date"] > over):
                ended = "unknown"
        expected = {
            "success": ("FINISHED",),
            "failed": ("FAILED", "KILLED"),
            "unknown": ("FINISHED", "FAILED", "KILLED"),
        }[ended]
        kept = [run for run in of_group if run.info.status in expected]
        lost = [run for run in of_group if "another try" in run.data.tags.get("mlflow_projects.reason", "")
                or "has run" in run.data.tags.get("mlflow_projects.reason", "")]  # fmt: skip
        if not kept or len(of_group) > len(lost) + 1:
            statuses = [run.info.status for run in of_group]
            problems.append(f"4: {group}[{index}] is {ended}, its parent runs {statuses}")
    return problems


def _task(run: Any) -> tuple[str, str]:
    return run.data.tags["airflow.task_id"], run.data.tags["airflow.map_index"]


def _attempts(
    stack: Observed, base: str, task: dict[str, Any], runs: list[Any], unrecorded: bool, marked: bool
) -> list[str]:
    problems = []
    index = task["map_index"]
    path = f"{base}/taskInstances/{task['task_id']}" + (f"/{index}" if index >= 0 else "")
    for attempt in stack.get(f"{path}/tries")["task_instances"]:
        number, state = attempt["try_number"], attempt["state"]
        if stack.has_process(attempt):  # it may still open a run, or close one
            problems.append(f"3: the process of try {number} of {task['task_id']}[{index}] is alive")
        of_try = [
            run.info.status
            for run in runs
            if run.data.tags.get("airflow.task_id") == task["task_id"]
            and run.data.tags.get("airflow.map_index") == str(index)
            and run.data.tags.get("airflow.try_number") == str(number)
            and run.data.tags.get("mlflow_projects.role") == "step"
        ]
        if not of_try and any(_took_over(run, task, number) for run in runs):
            continue  # its worker was lost, its job went on, and a later try followed it in the same run
        who = f"try {number} of {task['task_id']}[{index}] is {state}, its runs: {of_try}"
        if state == "success" and of_try != ["FINISHED"] and not (marked and of_try == ["KILLED"]):
            problems.append(f"2: {who}")
        truthful = of_try in (["FAILED"], ["KILLED"]) or (unrecorded and not of_try)
        if state in ("failed", "up_for_retry") and not truthful and (of_try or _could_say(stack, base, attempt)):
            problems.append(f"2: {who}")
    return problems


def _could_say(stack: Observed, base: str, attempt: dict[str, Any]) -> bool:
    """Tell whether a try lived long enough to open a run, or to say why not.

    A person may end it while it is queued (it has a start then, but no process ever was) or while its process starts.
    """
    if attempt["pid"] is None:
        return False
    where = f"{base}/taskInstances/{attempt['task_id']}/logs/{attempt['try_number']}"
    log = str(stack.get(f"{where}?full_content=true&map_index={attempt['map_index']}"))
    return "MLflow run " in log or "Task failed with exception" in log


def _took_over(run: Any, task: dict[str, Any], number: int) -> bool:
    tags = run.data.tags
    same = tags.get("airflow.task_id") == task["task_id"] and tags.get("airflow.map_index") == str(task["map_index"])
    return same and str(number) in tags.get("mlflow_projects.tries", "").split(",")


def _jobs(stack: Observed, run_id: str) -> list[str]:
    """Look for jobs that still cost, and for attempts that paid twice."""
    jobs = stack.jobs_of(run_id)
    problems = [
        f"6: job {job['TrainingJobName']} is {job['TrainingJobStatus']}"
        for job in jobs
        if job["TrainingJobStatus"] == "InProgress"
    ]
    paid = Counter(job["Environment"]["MLFLOW_RUN_ID"] for job in jobs)
    return problems + [f"7: run {run} has {count} jobs" for run, count in paid.items() if count > 1]


def leaks(stack: Stack) -> list[str]:
    """Return where the planted secret is found: logs, MLflow's database, Airflow's database."""
    places = []
    for file in stack.home.rglob("*"):
        if file.is_file() and file.suffix in (".log", ".json", ".txt") and SECRET in file.read_text(errors="replace"):
            places.append(f"5: {file.relative_to(stack.home)}")
    if stack.with_sagemaker:
        seen = str(stack.sagemaker.requests()) + str(
            [stack.sagemaker.logs(job["name"]) for job in stack.sagemaker.jobs()]
        )
        places += ["5: a request for a training job, or its output"] if SECRET in seen else []
    if stack.databases:
        dumps = {uri: dumped(uri) for uri in stack.databases}
    else:
        files = (stack.home / "airflow.db", stack.home / "mlflow" / "mlflow.db")
        dumps = {file.name: _dumped_sqlite(file) for file in files}
    return places + [f"5: {name}" for name, text in dumps.items() if SECRET in text or len(text) < 10_000]


def _dumped_sqlite(database: Path) -> str:
    with sqlite3.connect(database) as connection:
        return "\n".join(connection.iterdump())
