"""Measure what waiting for many training jobs costs one triggerer: calls to AWS a minute, and memory.

Usage: python benchmarks/jobs.py [--jobs 10 50 200] [--seconds 60]

The jobs are real ones of the SageMaker stand-in, and the triggers the very ones that a triggerer runs, in one
process and one event loop as there. Prints one JSON object; ``make bench`` runs it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
POLL_SECONDS = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure many training jobs on one triggerer.")
    parser.add_argument("--jobs", type=int, nargs="+", default=[10, 50, 200])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--one", type=int, help="measure this number in this process, on the stand-in of AWS_*")
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(asyncio.run(watch(arguments.one, arguments.seconds))))
        return
    sys.path[:0] = [str(ROOT), str(ROOT / "plugins")]
    from tests.support.sagemaker import running_sagemaker

    results = {}
    for count in arguments.jobs:
        with tempfile.TemporaryDirectory(prefix="bench-jobs-") as folder:
            with running_sagemaker(Path(folder) / "sagemaker") as stand_in:
                for number in range(count):
                    request = stand_in.request(f"mlflow-bench-{number}", ["sleep", "3600"])
                    request["StoppingCondition"] = {"MaxRuntimeInSeconds": 7200}
                    stand_in.client().create_training_job(**request)
                stand_in.forget_requests()
                command = [sys.executable, __file__, "--one", str(count), "--seconds", str(arguments.seconds)]
                done = subprocess.run(
                    command,
                    env={
                        **os.environ,
                        **stand_in.environment,
                        "AIRFLOW_HOME": folder,
                        "PYTHONPATH": f"{ROOT}/plugins",
                    },
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if done.returncode:
                    raise RuntimeError(done.stderr[-2000:])
                measured = json.loads(done.stdout.strip().splitlines()[-1])
                calls = stand_in.requests()["counts"]
                per_minute = 60 / arguments.seconds
                results[count] = {
                    **measured,
                    "calls_per_minute": round(sum(calls.values()) * per_minute, 1),
                    "calls": calls,
                    "one_describe_per_job_per_minute": count * 60 / POLL_SECONDS,
                }
    print(json.dumps(results, indent=2))


async def watch(count: int, seconds: float) -> dict[str, Any]:
    """Wait for that many jobs as a triggerer does; return the memory that this took."""
    import psutil

    from mlflow_projects.triggers.sagemaker import SageMakerTrigger

    me = psutil.Process()
    before = me.memory_info().rss
    now = time.time()
    triggers = [
        SageMakerTrigger(
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

    async def follow(trigger: SageMakerTrigger) -> None:
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
    return {"jobs": count, "memory_mb": round((after - before) / 2**20, 1), "process_mb": round(after / 2**20, 1)}


if __name__ == "__main__":
    main()
