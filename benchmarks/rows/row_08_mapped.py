"""Row 8: many mapped steps of a second each on two slots."""

from __future__ import annotations

from benchmarks.row import Bench, Row, ensure
from benchmarks.scheduler import Scheduler, running_scheduler
from benchmarks.tracking_server import count_runs

SLOTS = 2
GOAL_RATIO = 1.3
PART = 5  # mlflow run takes so long that a part of the steps must do


def measure(bench: Bench) -> Row:
    """Measure wall times of whole DAG runs below a real scheduler, one after the other."""
    steps = bench.size(100, 10)
    finished = "attributes.status = 'FINISHED' and tags.`airflow.dag_id` = 'many_ours'"
    before = count_runs(bench.tracking_uri, finished)
    with running_scheduler(
        bench,
        {"many_ours", "many_nothing", "many_bare", "fewer_bash"},
        slots=SLOTS,
        BENCH_MAPPED=str(steps),
    ) as scheduler:
        nothing = _wall(scheduler, "many_nothing", steps)
        ours = _wall(scheduler, "many_ours", steps)
        bare = _wall(scheduler, "many_bare", steps)
        bash = _wall(scheduler, "fewer_bash", steps // PART) * PART
    made = count_runs(bench.tracking_uri, finished) - before
    ensure(made == steps, f"{steps} steps left {made} FINISHED runs.")
    limit = steps * 1.0 / SLOTS
    return Row(
        number=8,
        name=f"{steps} mapped steps of 1 s on {SLOTS} slots",
        unit="s",
        ours=round(ours, 1),
        limit=limit,
        goal=round(GOAL_RATIO * (nothing + limit), 1),
        peers={"BashOperator(sleep 1), without MLflow": round(bare, 1), "BashOperator(mlflow run)": round(bash, 1)},
        details={
            "Airflow's own mapped no-op tasks": round(nothing, 1),
            "over no-op tasks and bare commands": round(ours / (nothing + limit), 2),
            "BashOperator(mlflow run) measured with": f"{steps // PART} steps, times {PART}",
        },
    )


def _wall(scheduler: Scheduler, dag_id: str, steps: int) -> float:
    done = scheduler.run(dag_id)
    ensure(len(done["tasks"]) == steps, f"The DAG run of {dag_id!r} had {len(done['tasks'])} tasks, not {steps}.")
    return float(done["seconds"])
