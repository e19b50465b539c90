"""Measure this project against the other ways to run the sample project ``echo`` as an Airflow task.

Usage: python benchmarks/run.py [--rounds 5]

Everything is measured in one run, side by side, against one http tracking server. A round runs every way
once; round 0 fills caches and is thrown away. Medians count. The result is also in build/bench.json. The
exit status is 0 if the measurement is valid, however slow the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from airflow_process import DAGS, AirflowProcess
from rich.console import Console
from rich.table import Table
from tracking_server import counting_proxy, create_run, tracking_server, unfinished_runs

ROOT = Path(__file__).resolve().parents[1]
ECHO = ROOT / "sample_projects" / "echo"
WORK = ROOT / "build" / "bench"
RESULT = ROOT / "build" / "bench.json"
GOAL_SECONDS = 0.5

BARE_COMMAND = ["python", "echo.py", "--text", "hello", "--num", "3"]
MLFLOW_RUN_COMMAND = ["mlflow", "run", str(ECHO), "--env-manager", "local", "-P", "text=hello", "-P", "num=3"]
PROJECTS_RUN = (
    "import mlflow; mlflow.projects.run("
    f"{str(ECHO)!r}, parameters={{'text': 'hello', 'num': 3}}, env_manager='local')"
)

BARE = "bare command: python echo.py"
OURS = "MLflowProjectOperator, warm process"
OURS_FRESH = "MLflowProjectOperator, its imports included"
MLFLOW_RUN = "mlflow run"
BASH = "BashOperator(mlflow run)"
PROJECTS = "mlflow.projects.run(), fresh process"
NOTHING = "empty Airflow task"
DESCRIBE = "one DescribeTrainingJob a look"


@dataclass(frozen=True)
class Bench:
    """The ways to run ``echo``; each returns its wall time in seconds.

    :param environment: of every process
    :param server: the tracking server's URI
    :param warm: an Airflow process that lives as long as the benchmark
    """

    environment: Mapping[str, str]
    server: str
    warm: AirflowProcess

    def ways(self) -> dict[str, Callable[[], float]]:
        return {
            BARE: lambda: bare(self.server, self.environment),
            OURS: lambda: self.warm.run("ours")["seconds"],
            OURS_FRESH: lambda: fresh(self.environment)["seconds"],
            MLFLOW_RUN: lambda: command(MLFLOW_RUN_COMMAND, self.environment),
            BASH: lambda: self.warm.run("bash")["seconds"],
            # In a @task of the warm process mlflow would be imported once and for all; real Airflow
            # starts a new process for each task, which imports it each time. So: a fresh process.
            PROJECTS: lambda: command([sys.executable, "-c", PROJECTS_RUN], self.environment),
            NOTHING: lambda: self.warm.run("nothing")["seconds"],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the ways to run an MLflow Project in Airflow.")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (default: %(default)s)")
    rounds = max(1, parser.parse_args().rounds)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped."))  # so that the server is stopped too
    try:
        seconds, calls, imported = measure(rounds)
        jobs = measure_jobs()
    except (RuntimeError, OSError) as error:
        sys.exit(f"The measurement is invalid: {error}")
    about = {"rounds": rounds, "machine": machine(), "versions": versions()}
    rows = {
        "echo_wall_time": {**wall_time(seconds), **about},
        "tracking_calls_per_step": {**tracking_calls(calls), **about, "rounds": 1},
        "task_process_imports_mlflow": {
            "ours": imported, "limit": False, "peers": {}, "unit": "yes or no", **about, "rounds": 1,
        },
        "many_jobs_on_one_triggerer": {
            "ours": {count: row["calls_per_minute"] for count, row in jobs.items()},
            "limit": None,
            "peers": {DESCRIBE: {count: row["one_describe_per_job_per_minute"] for count, row in jobs.items()}},
            "memory_mb": {count: row["process_mb"] for count, row in jobs.items()},
            "unit": "calls to AWS a minute, by number of jobs", **about, "rounds": 1,
        },
    }  # fmt: skip
    RESULT.write_text(json.dumps(rows, indent=2) + "\n")
    show(rows, calls)


def measure(rounds: int) -> tuple[dict[str, list[float]], dict[str, Counter[tuple[bool, str]]], bool]:
    """Return seconds by way, tracking calls by way, and whether a task process of ours imported mlflow.

    :raises RuntimeError: something failed, so the figures would mean nothing
    """
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    environment = clean_environment()
    command([sys.executable, "-m", "airflow", "db", "migrate"], environment)
    with ExitStack() as stack:
        server = stack.enter_context(tracking_server(WORK, environment))
        environment["MLFLOW_TRACKING_URI"] = server
        warm = stack.enter_context(AirflowProcess(environment, WORK / "airflow.log"))
        ways = Bench(environment, server, warm).ways()
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(rounds + 1):
            for way, run in ways.items():
                taken = run()
                print(f"round {number}/{rounds}  {taken:7.2f} s  {way}", file=sys.stderr, flush=True)
                if number:
                    seconds[way].append(taken)
        calls, imported = count_calls(server, environment)
        if unfinished := unfinished_runs(server):
            raise RuntimeError(f"{unfinished} MLflow run(s) did not end as FINISHED.")
    return seconds, calls, imported


def measure_jobs() -> dict[str, Any]:
    """Return the figures of benchmarks/jobs.py, by number of jobs."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "jobs.py")],
        env=clean_environment(), cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"The jobs could not be measured:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout))


def clean_environment() -> dict[str, str]:
    """Return the same environment for every way, whatever the shell of the person who measures holds."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        # Without PYTHONDONTWRITEBYTECODE: whoever compiles mlflow at each start measures the compiler.
        if not name.startswith(("AIRFLOW_", "MLFLOW_")) and name != "PYTHONDONTWRITEBYTECODE"
    }
    return {
        **inherited,
        "AIRFLOW_HOME": str(WORK / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "MLFLOW_DISABLE_TELEMETRY": "true",  # else MLflow asks the internet at each start
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",  # our operator sets it for the entry point
        "PYTHONWARNINGS": "ignore",
    }


def bare(server: str, environment: Mapping[str, str]) -> float:
    """Run the entry point's command and nothing else; its run exists beforehand."""
    run_id = create_run(server)
    return command(BARE_COMMAND, {**environment, "MLFLOW_RUN_ID": run_id}, ECHO)


def command(argv: list[str], environment: Mapping[str, str], cwd: Path = ROOT) -> float:
    """Run a command and return its wall time in seconds.

    :raises RuntimeError: it failed
    """
    start = time.perf_counter()
    done = subprocess.run(argv, env=environment, cwd=cwd, capture_output=True, text=True, check=False)
    taken = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return taken


def fresh(environment: Mapping[str, str]) -> dict[str, Any]:
    """Run our operator in a new process: Airflow is warm, what our task imports when it runs is not.

    This is nearest to real Airflow, where every task is a new process.
    """
    with AirflowProcess(environment, WORK / "airflow-fresh.log") as process:
        process.run("nothing")
        return process.run("ours")


def count_calls(server: str, environment: Mapping[str, str]) -> tuple[dict[str, Counter[tuple[bool, str]]], bool]:
    """Run three ways once more through a counting proxy, which would slow a measured round."""
    imported = False
    counted = {}
    for way in (BARE, OURS_FRESH, MLFLOW_RUN):
        with counting_proxy(server) as (uri, calls):
            through_proxy = {**environment, "MLFLOW_TRACKING_URI": uri}
            if way == BARE:
                bare(server, through_proxy)
            elif way == MLFLOW_RUN:
                command(MLFLOW_RUN_COMMAND, through_proxy)
            else:
                imported = fresh(through_proxy)["mlflow_imported"]
        counted[way] = calls
    return counted, imported


def wall_time(seconds: Mapping[str, list[float]]) -> dict[str, Any]:
    medians = {way: round(median(samples), 3) for way, samples in seconds.items()}
    overhead = round(medians[OURS] - medians[BARE], 3)
    return {
        "ours": medians[OURS],
        "limit": medians[BARE],
        "peers": {way: medians[way] for way in (MLFLOW_RUN, BASH, PROJECTS)},
        "others": {way: medians[way] for way in (OURS_FRESH, NOTHING)},
        "goal": {"ours - limit": overhead, "at most": GOAL_SECONDS, "met": overhead <= GOAL_SECONDS},
        "samples": {way: [round(sample, 3) for sample in samples] for way, samples in seconds.items()},
        "unit": "s, median",
    }


def tracking_calls(calls: Mapping[str, Counter[tuple[bool, str]]]) -> dict[str, Any]:
    """Return how many requests each way adds to those of the entry point.

    The bare command needs one, which makes its run. Those of ``mlflow run`` cannot be told from the entry
    point's by their User-Agent; they are what is left after subtracting the bare command's.
    """
    ours = {kind: count for (is_ours, kind), count in calls[OURS_FRESH].items() if is_ours}
    return {
        "ours": sum(ours.values()),
        "limit": 1,
        "peers": {MLFLOW_RUN: calls[MLFLOW_RUN].total() - calls[BARE].total()},
        "kinds": ours,
        "unit": "requests",
    }


def machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"cpu": models[0] if models else platform.processor(), "cores": os.cpu_count()}


def versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("apache-airflow", "mlflow")}
    return {"python": platform.python_version(), **packages}


def show(rows: Mapping[str, Any], calls: Mapping[str, Counter[tuple[bool, str]]]) -> None:
    """Print the tables."""
    row = rows["echo_wall_time"]
    console = Console(width=110)
    medians = {BARE: row["limit"], OURS: row["ours"], **row["others"], **row["peers"]}
    unit = medians[MLFLOW_RUN] - medians[BARE]
    table = Table(title=f"One echo step, medians of {row['rounds']} rounds")
    for name in ("way", "wall s", "over the bare command s", "of mlflow run's overhead"):
        table.add_column(name, justify="left" if name == "way" else "right")
    for way, wall in sorted(medians.items(), key=lambda item: item[1]):
        if way in (BARE, NOTHING):
            table.add_row(way, f"{wall:.2f}", "", "")
        else:
            over = wall - medians[BARE]
            table.add_row(way, f"{wall:.2f}", f"{over:.2f}", f"{over / unit:.0%}" if unit > 0 else "")
    console.print(table)
    goal = row["goal"]
    verdict = "met" if goal["met"] else "not met"
    console.print(f"Goal: ours - bare <= {GOAL_SECONDS} s; measured {goal['ours - limit']:.2f} s: {verdict}")

    table = Table(title="Requests to the tracking server in one echo step")
    for name in ("request", "our task process", "its entry point", "bare command", "mlflow run, both"):
        table.add_column(name, justify="left" if name == "request" else "right")
    columns = (
        (calls[OURS_FRESH], True), (calls[OURS_FRESH], False), (calls[BARE], False), (calls[MLFLOW_RUN], False),
    )  # fmt: skip
    for kind in sorted({kind for count in calls.values() for _, kind in count}):
        table.add_row(kind, *(str(count[ours, kind] or "") for count, ours in columns))
    totals = [sum(n for (is_ours, _), n in count.items() if is_ours == ours) for count, ours in columns]
    table.add_section()
    table.add_row("all", *map(str, totals))
    console.print(table)
    row = rows["many_jobs_on_one_triggerer"]
    table = Table(title="Training jobs that one triggerer waits for")
    for name in ("jobs", "calls to AWS a minute", "one Describe a look", "triggerer process MB"):
        table.add_column(name, justify="right")
    for count, number in row["ours"].items():
        peer = row["peers"][DESCRIBE][count]
        table.add_row(str(count), f"{number:g}", f"{peer:g}", f"{row['memory_mb'][count]:g}")
    console.print(table)
    imported = rows["task_process_imports_mlflow"]["ours"]
    console.print(f"Our task process imports mlflow: {'YES, it must not' if imported else 'no'}")
    about = row["machine"]
    names = ", ".join(f"{name} {number}" for name, number in row["versions"].items())
    console.print(f"{about['cpu']}, {about['cores']} cores; {names}. All figures: {RESULT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
