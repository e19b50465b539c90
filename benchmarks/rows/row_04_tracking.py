"""Row 4: how often a successful step asks the tracking server, counted in front of it."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.row import ECHO, Bench, Row
from benchmarks.tracking_server import Calls, counting_proxy, create_run

GOAL_REQUESTS = 6


def measure(bench: Bench) -> Row:
    """Run ``echo`` through a counting proxy: ours, the bare command, and ``mlflow run``."""
    ours = _counted(bench, _ours)
    bare = _counted(bench, _bare)
    mlflow_run = _counted(bench, _mlflow_run)
    kinds = ours.requests(ours=True)
    return Row(
        number=4,
        name="tracking calls of a successful step",
        unit="requests",
        ours=float(sum(kinds.values())),
        limit=1.0,
        goal=float(GOAL_REQUESTS),
        # What mlflow run asks cannot be told from what its entry point asks; it is what is left of both.
        peers={"mlflow run": float(mlflow_run.kinds.total() - bare.kinds.total())},
        conditions={"one connection": ours.connections[True] == 1},
        details={
            "ours": kinds,
            "connections": ours.connections[True],
            "the entry point's own": ours.requests(ours=False),
            "the bare command's": bare.requests(ours=False),
            "mlflow run's with its entry point's": mlflow_run.requests(ours=False),
            "connections of mlflow run beyond the bare command": (
                mlflow_run.connections[False] - bare.connections[False]
            ),
        },
    )


def _counted(bench: Bench, way: Callable[[Bench, str], None]) -> Calls:
    with counting_proxy(bench.tracking_uri) as (uri, calls):
        way(bench, uri)
    return calls


def _ours(bench: Bench, uri: str) -> None:
    with bench.airflow(MLFLOW_TRACKING_URI=uri) as airflow:
        airflow.run("echo.ours")


def _bare(bench: Bench, uri: str) -> None:
    run_id = create_run(bench.tracking_uri)
    environment = bench.environment(MLFLOW_TRACKING_URI=uri, MLFLOW_RUN_ID=run_id)
    bench.command(["python", "echo.py", "--text", "hello", "--num", "3"], environment, ECHO)


def _mlflow_run(bench: Bench, uri: str) -> None:
    command = ["mlflow", "run", str(ECHO), "--env-manager", "local", "-P", "text=hello", "-P", "num=3"]
    bench.command(command, bench.environment(MLFLOW_TRACKING_URI=uri))
