"""Row 15: a pipeline of two steps as a whole DAG run, with Airflow's own settings and with shorter pauses."""

from __future__ import annotations

from benchmarks.row import ECHO, Bench, InvalidRunError, Row, medians
from benchmarks.scheduler import running_scheduler
from benchmarks.tracking_server import count_runs

WAYS = {
    "ours": "pipeline_ours",
    "BashOperator(bare command), without a run tree": "pipeline_bare",
    "main.py that calls mlflow.projects.run": "pipeline_main",
    "BashOperator(mlflow run)": "pipeline_mlflow_run",
}
OURS, BARE, MAIN, _ = WAYS
# Airflow's scheduler sleeps so long between two looks, and its workers look so seldom for a task's end.
SHORT_PAUSES = {
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
}
GOAL_BARE, GOAL_MAIN = 1.10, 0.70


def measure(bench: Bench) -> Row:
    """Run echo and zip in all ways, below a real scheduler."""
    uri = bench.tracking_uri
    upstream = _artifacts_of_echo(bench, uri)
    seconds = {}
    for name, pauses in (("Airflow's settings", {}), ("short pauses", SHORT_PAUSES)):
        with running_scheduler(bench, set(WAYS.values()), BENCH_UPSTREAM=upstream, **pauses) as scheduler:
            ways = {way: lambda dag=dag: scheduler.run(dag)["seconds"] for way, dag in WAYS.items()}
            seconds[name] = medians(bench.in_turns(ways, rounds=5), 2)
    if open_runs := count_runs(uri, "attributes.status != 'FINISHED'"):
        raise InvalidRunError(f"{open_runs} MLflow run(s) did not end as FINISHED.")
    tuned = seconds["short pauses"]
    return Row(
        number=15,
        name="echo, then zip, as a DAG run with short pauses, over bare commands in BashOperators",
        unit="ratio",
        ours=round(tuned[OURS] / tuned[BARE], 2),
        limit=1.0,
        goal=GOAL_BARE,
        peers={way: round(tuned[way] / tuned[BARE], 2) for way in WAYS if way not in (OURS, BARE)},
        conditions={f"at most {GOAL_MAIN:g} of a main.py": tuned[OURS] <= GOAL_MAIN * tuned[MAIN]},
        details={"seconds": seconds},
    )


def _artifacts_of_echo(bench: Bench, uri: str) -> str:
    """Run echo once and return where its artifacts are."""
    environment = bench.environment(MLFLOW_TRACKING_URI=uri)
    bench.command(["python", "echo.py", "--text", "hello", "--num", "3"], environment, ECHO)
    find = (
        "import mlflow; print('runs:/' + mlflow.search_runs(search_all_experiments=True).run_id[0] + '/downstream')"
    )
    return bench.output(["python", "-c", find], environment).split()[-1]
