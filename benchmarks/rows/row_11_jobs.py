"""Row 11: what waiting for many deferred training jobs costs one triggerer: calls to AWS, and memory.

The triggers are the very ones that a triggerer runs, in one process and one event loop as there. The jobs are real
ones of the SageMaker stand-in, and stay in their first state: on so small a machine, not all could run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from typing import Any

from benchmarks.row import Bench, Row
from tests.support.sagemaker import SageMaker, running_sagemaker

POLL_SECONDS = 10.0
GOAL_MB = 400
FEW, MANY = "few", "many"


def measure(bench: Bench) -> Row:
    """Watch few and many jobs for a while; count the calls at the stand-in."""
    seconds = bench.size(60.0, 15.0)
    counts = bench.size({FEW: 50, MANY: 500}, {FEW: 5, MANY: 50})
    figures = {which: _watched(bench, count, seconds) for which, count in counts.items()}
    times = counts[MANY] / counts[FEW]
    calls = {which: figure["calls_per_minute"] for which, figure in figures.items()}
    return Row(
        number=11,
        name=f"{counts[MANY]} deferred SageMaker jobs on one triggerer",
        unit="calls/min",
        ours=calls[MANY],
        limit=0.0,
        # Ten times as many jobs may need half of ten times as many calls.
        goal=round(calls[FEW] * times / 2, 1),
        peers={"one DescribeTrainingJob a look": counts[MANY] * 60 / POLL_SECONDS},
        conditions={f"below {GOAL_MB} MB": figures[MANY]["process_mb"] < GOAL_MB},
        details={f"{counts[which]} jobs": figure for which, figure in figures.items()},
    )


def _watched(bench: Bench, count: int, seconds: float) -> dict[str, Any]:
    folder = bench.folder(f"jobs-{count}")
    with running_sagemaker(folder / "sagemaker", start_seconds=36000) as stand_in:
        _create(stand_in, count)
        stand_in.forget_requests()
        environment = bench.environment(AIRFLOW_HOME=str(bench.airflow_home), **stand_in.environment)
        command = [sys.executable, "-m", "benchmarks.rows.row_11_jobs", str(count), str(seconds)]
        measured = json.loads(bench.output(command, environment).splitlines()[-1])
        calls = stand_in.requests()["counts"]
    return {**measured, "calls": calls, "calls_per_minute": round(sum(calls.values()) * 60 / seconds, 1)}


def _create(stand_in: SageMaker, count: int) -> None:
    for number in range(count):
        request = stand_in.request(f"mlflow-bench-{number}", ["true"])
        request["StoppingCondition"] = {"MaxRuntimeInSeconds": 7200}
        stand_in.client().create_training_job(**request)


async def watch(count: int, seconds: float) -> dict[str, Any]:
    """Wait for that many jobs as a triggerer does; return the memory that this took.

    :raises RuntimeError: a trigger ended, so something is wrong
    """
    import psutil

    from mlflow_projects.triggers.job import JobTrigger

    me = psutil.Process()
    before = me.memory_info().rss
    now = time.time()
    triggers = [
        JobTrigger(
            {
                "backend": "sagemaker",
                "job_name": f"mlflow-bench-{number}",
                "region": "us-east-1",
                "aws_conn_id": None,
                "submitted": now,
                "deadline_seconds": 7200,
            },
            "run",
            now + 7200,
            POLL_SECONDS,
            "mlflow_default",
        )
        for number in range(count)
    ]

    async def follow(trigger: JobTrigger) -> None:
        async for _ in trigger.run():
            raise RuntimeError("a job ended while it was measured")

    tasks = [asyncio.create_task(follow(trigger)) for trigger in triggers]
    done, _ = await asyncio.wait(tasks, timeout=seconds)
    if done:
        raise RuntimeError(f"{len(done)} triggers ended: {[task.exception() for task in done][:1]}")
    after = me.memory_info().rss
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks)
    return {"memory_mb": round((after - before) / 2**20, 1), "process_mb": round(after / 2**20, 1)}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(watch(int(sys.argv[1]), float(sys.argv[2])))))
