"""Row 1: what a step costs above its bare command, in a warm ``dag.test()`` and below a real scheduler."""

from __future__ import annotations

import os
from collections.abc import Callable
from statistics import median

from benchmarks.row import ECHO, Bench, Row, ensure, medians
from benchmarks.scheduler import running_scheduler
from benchmarks.tracking_server import count_runs, create_run

OURS = ("dag.test: ours", "scheduler: ours")
CHAIN_STEPS = 4
# A tenth of a second is looked for beside commands of two, which vary by more.
SAMPLES_A_ROUND = 3


def measure(bench: Bench) -> Row:
    """Measure ``echo`` in all ways; the worse of our two overheads is the figure.

    How long ``import mlflow`` takes changes from minute to minute, so each way is compared with the bare
    command right before and right after it.
    """
    uri = bench.tracking_uri
    environment = bench.environment(MLFLOW_TRACKING_URI=uri)
    steps = bench.size(CHAIN_STEPS, 2)
    bare: list[float] = []

    def run_bare() -> None:
        run_id = create_run(uri)  # the command's run exists beforehand, as with us
        argv = ["python", "echo.py", "--text", "hello", "--num", "3"]
        bare.append(bench.command(argv, {**environment, "MLFLOW_RUN_ID": run_id}, ECHO))

    def over_bare(run: Callable[[], float]) -> Callable[[], float]:
        def overhead() -> float:
            seconds = run()
            run_bare()
            return seconds - sum(bare[-2:]) / 2

        return overhead

    mlflow_run = ["mlflow", "run", str(ECHO), "--env-manager", "local", "-P", "text=hello", "-P", "num=3"]
    dags = {"nothing", "ours", "bash", "projects", "chain"}
    with bench.airflow() as warm, running_scheduler(bench, dags, BENCH_CHAIN=str(steps)) as scheduler:
        run_bare()
        ways = {
            "mlflow run": lambda: bench.command(mlflow_run, environment),
            "dag.test: ours": lambda: warm.seconds("echo.ours"),
            "dag.test: bash": lambda: warm.seconds("other_ways.bash"),
            "scheduler: ours": lambda: scheduler.task_seconds("ours"),
            "scheduler: bash": lambda: scheduler.task_seconds("bash"),
            "scheduler: projects": lambda: scheduler.task_seconds("projects"),
            "scheduler: chain": lambda: scheduler.task_seconds("chain") / steps,
        }
        for number in range(2, SAMPLES_A_ROUND + 1):
            ways |= {f"{way}, {number}": ways[way] for way in OURS}
        empty = {
            "dag.test: nothing": lambda: warm.seconds("nothing.nothing"),
            "scheduler: nothing": lambda: scheduler.task_seconds("nothing"),
        }
        # What is compared with the bare command comes in a row, with nothing else in between.
        figures = bench.in_turns({**{way: over_bare(run) for way, run in ways.items()}, **empty}, rounds=7)
        ensure(not warm.run("echo.ours")["mlflow_imported"], "Our task process imports mlflow.")
    for way in set(ways) - {way.partition(",")[0] for way in ways}:
        figures[way.partition(",")[0]] += figures.pop(way)
    open_runs = count_runs(uri, "attributes.status != 'FINISHED'")
    ensure(open_runs == 0, f"{open_runs} MLflow run(s) did not end as FINISHED.")
    over = medians(figures)
    return Row(
        number=1,
        name="step overhead",
        unit="s",
        ours=max(over[way] for way in OURS),
        limit=0.0,
        goal=round(min(0.3, over["mlflow run"] / 10), 3),
        peers={
            "BashOperator(mlflow run)": over["scheduler: bash"],
            "mlflow.projects.run in a @task": over["scheduler: projects"],
            "main.py that calls mlflow.projects.run, a step": over["scheduler: chain"],
            "mlflow run without Airflow": over["mlflow run"],
        },
        details={
            "ours": {way: over[way] for way in OURS},
            "ours beyond an empty task": round(over["scheduler: ours"] - over["scheduler: nothing"], 3),
            "bare command": round(median(bare), 3),
            "medians": over,
            "samples": {**figures, "bare command": bare},
            "chained steps": steps,
            "load": os.getloadavg(),
        },
    )
