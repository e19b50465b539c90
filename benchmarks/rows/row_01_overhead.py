"""Row 1: what a step costs above its bare command, in a warm ``dag.test()`` and below a real scheduler."""

from __future__ import annotations

import os

from benchmarks.row import ECHO, Bench, Row, ensure, medians
from benchmarks.scheduler import running_scheduler
from benchmarks.tracking_server import count_runs, create_run

BARE = "bare command: python echo.py"
MLFLOW_RUN = "mlflow run, no Airflow"
CHAIN_STEPS = 4


def measure(bench: Bench) -> Row:
    """Measure ``echo`` in all ways; the worse of our two overheads is the figure."""
    uri = bench.tracking_uri
    environment = bench.environment(MLFLOW_TRACKING_URI=uri)
    steps = bench.size(CHAIN_STEPS, 2)

    def bare() -> float:
        run_id = create_run(uri)  # the command's run exists beforehand, as with us
        argv = ["python", "echo.py", "--text", "hello", "--num", "3"]
        return bench.command(argv, {**environment, "MLFLOW_RUN_ID": run_id}, ECHO)

    mlflow_run = ["mlflow", "run", str(ECHO), "--env-manager", "local", "-P", "text=hello", "-P", "num=3"]
    dags = {"nothing", "ours", "bash", "projects", "chain"}
    with bench.airflow() as warm, running_scheduler(bench, dags, BENCH_CHAIN=str(steps)) as scheduler:
        ways = {
            BARE: bare,
            MLFLOW_RUN: lambda: bench.command(mlflow_run, environment),
            "dag.test: ours": lambda: warm.seconds("echo.ours"),
            "dag.test: nothing": lambda: warm.seconds("nothing.nothing"),
            "dag.test: bash": lambda: warm.seconds("other_ways.bash"),
            "scheduler: ours": lambda: scheduler.task_seconds("ours"),
            "scheduler: nothing": lambda: scheduler.task_seconds("nothing"),
            "scheduler: bash": lambda: scheduler.task_seconds("bash"),
            "scheduler: projects": lambda: scheduler.task_seconds("projects"),
            "scheduler: chain": lambda: scheduler.task_seconds("chain") / steps,
        }
        # A tenth of a second is looked for in commands of two, which vary by more: twice as many samples of these.
        twice = {f"{way}, again": ways[way] for way in (BARE, "dag.test: ours", "scheduler: ours")}
        figures = bench.in_turns({**ways, **twice}, rounds=7)
        ensure(not warm.run("echo.ours")["mlflow_imported"], "Our task process imports mlflow.")
    for way in twice:
        figures[way.removesuffix(", again")] += figures.pop(way)
    open_runs = count_runs(uri, "attributes.status != 'FINISHED'")
    ensure(open_runs == 0, f"{open_runs} MLflow run(s) did not end as FINISHED.")
    seconds = medians(figures)
    over = {way: round(taken - seconds[BARE], 3) for way, taken in seconds.items()}
    ours = {place: over[f"{place}: ours"] for place in ("dag.test", "scheduler")}
    return Row(
        number=1,
        name="step overhead",
        unit="s",
        ours=max(ours.values()),
        limit=0.0,
        goal=round(min(0.3, over[MLFLOW_RUN] / 10), 3),
        peers={
            "BashOperator(mlflow run)": over["scheduler: bash"],
            "mlflow.projects.run in a @task": over["scheduler: projects"],
            "main.py that calls mlflow.projects.run, a step": over["scheduler: chain"],
            "mlflow run without Airflow": over[MLFLOW_RUN],
        },
        details={
            "ours": ours,
            "ours beyond an empty task": round(over["scheduler: ours"] - seconds["scheduler: nothing"], 3),
            "medians": seconds,
            "samples": figures,
            "chained steps": steps,
            "load": os.getloadavg(),
        },
    )
