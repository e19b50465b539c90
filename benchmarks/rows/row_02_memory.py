"""Row 2: the most memory that a task process takes, over an Airflow task that does nothing."""

from __future__ import annotations

from benchmarks.row import Bench, Row, medians
from benchmarks.scheduler import running_scheduler


def measure(bench: Bench) -> Row:
    """Measure below a real scheduler, where every task is a process of its own; the command's is not counted."""
    dags = ("nothing", "ours", "projects")
    private: dict[str, list[float]] = {dag_id: [] for dag_id in dags}
    with running_scheduler(bench, set(dags)) as scheduler:

        def run(dag_id: str) -> float:
            memory = scheduler.memory(dag_id)
            private[dag_id].append(memory["private"])
            return memory["peak"]

        ways = {dag_id: (lambda dag_id=dag_id: run(dag_id)) for dag_id in dags}
        figures = bench.in_turns(ways, rounds=3, discard=0)
    peak = medians(figures, 1)
    return Row(
        number=2,
        name="peak memory of the task process over an empty task",
        unit="MB",
        ours=round(peak["ours"] - peak["nothing"], 1),
        limit=0.0,
        goal=25.0,
        peers={"mlflow.projects.run in a @task": round(peak["projects"] - peak["nothing"], 1)},
        # A task process is a fork: what it shares with Airflow's own processes is in the peak, too.
        details={"peak": peak, "private at the end": medians(private, 1), "samples": figures},
    )
