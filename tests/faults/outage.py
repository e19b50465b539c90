"""The tracking server is away exactly when many DAG runs end; once it is back, nothing stays open.

Usage: python -m tests.faults.outage [--minutes 10] [--dag-runs 20] [--postgresql]

The last line says how many DAG runs hold, and how long after the server was back the last of their runs was closed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

from tests.faults.invariants import violations
from tests.faults.stack import Stack, proxy_down
from tests.faults.table import HANGING, run

# A step in a group, one of its own, and one whose run is in another experiment than its parent.
DAGS = ("short_run", "lone", "lone", "elsewhere")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long the server is away")
    parser.add_argument("--dag-runs", type=int, default=20, help="how many end meanwhile")
    parser.add_argument("--postgresql", action="store_true", help="Airflow's and MLflow's databases on PostgreSQL")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="mlflow-projects-outage-") as folder,
        Stack(Path(folder) / "home", postgresql=arguments.postgresql, parallelism=arguments.dag_runs + 2) as stack,
    ):
        dag_runs = [run(stack, dag_id, HANGING) for dag_id in islice(cycle(DAGS), arguments.dag_runs)]
        for _, run_id in dag_runs:
            stack.wait_output(run_id)
        with proxy_down(stack.proxy):
            for _, run_id in dag_runs:
                stack.let_time_out(run_id)
            for dag_id, run_id in dag_runs:
                stack.wait_end(dag_id, run_id)
            print(
                f"{len(dag_runs)} DAG runs have ended; the server stays away for {arguments.minutes:g} min",
                flush=True,
            )
            time.sleep(arguments.minutes * 60)  # this is what is tried
        back = time.time()
        broken = {run_id: found for dag_id, run_id in dag_runs if (found := violations(stack, dag_id, run_id))}
        last = max(run.info.end_time or 0 for _, run_id in dag_runs for run in stack.runs(run_id)) / 1000
    for run_id, found in broken.items():
        print(run_id, *found)
    held = len(dag_runs) - len(broken)
    print(f"{held} of {len(dag_runs)} hold; the last run was closed {last - back:.0f} s after the server was back")
    return 0 if not broken else 1


if __name__ == "__main__":
    sys.exit(main())
