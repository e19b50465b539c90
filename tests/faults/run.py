"""Break things on a real Airflow and MLflow and check that both still tell the same story.

Usage: python -m tests.faults.run [--only WORDS]           the table of named faults, a line per fault
       python -m tests.faults.run --random 200 --seed 7    random faults on random small DAGs

The exit status is 1 if anything that must hold does not.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import tests.faults.training  # noqa: F401 (adds to the table)
from tests.faults.invariants import leaks
from tests.faults.jobs import JOB_FAULTS
from tests.faults.randomly import run_randomly
from tests.faults.stack import Stack
from tests.faults.table import FAULTS
from tests.faults.verdict import run_all

TABLES = {"all": FAULTS + JOB_FAULTS, "local": FAULTS, "jobs": JOB_FAULTS}


@contextlib.contextmanager
def working_stack(home: Path, seed: int, *, postgresql: bool, with_sagemaker: bool) -> Iterator[Stack]:
    """Yield a stack that has run a DAG run without a fault; a second one if the first one cannot.

    What is broken before any fault says nothing of the faults; it is printed, with the ends of the logs.
    """
    dag_id = "job_watched" if with_sagemaker else "once"
    with contextlib.ExitStack() as resources:
        for name in ("first", "second"):
            stack = resources.enter_context(
                Stack(home / name, seed, postgresql=postgresql, with_sagemaker=with_sagemaker)
            )
            try:
                ended = stack.wait_end(dag_id, stack.trigger(dag_id, command="true"), 120)
            except AssertionError as error:
                ended = str(error)
            if ended == "success":
                yield stack
                return
            print(
                f"The {name} stack does not work, before any fault: {ended}",
                *stack.last_lines(),
                sep="\n",
                flush=True,
            )
            resources.close()
        raise SystemExit("No stack works on this machine; see above.")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="only faults whose name holds these words")
    parser.add_argument("--again", action="store_true", help="cause a fault that broke something once more, alone")
    parser.add_argument("--keep", type=Path, help="work in this new folder and keep it")
    parser.add_argument("--random", type=int, default=0, metavar="N", help="cause N random faults instead")
    parser.add_argument("--seed", type=int, default=None, help="of the random faults; default: by the clock")
    parser.add_argument("--postgresql", action="store_true", help="Airflow's and MLflow's databases on PostgreSQL")
    parser.add_argument("--table", choices=TABLES, default="all", help="which of the named faults")
    arguments = parser.parse_args()
    seed = int(time.time()) if arguments.seed is None else arguments.seed
    faults = [fault for fault in TABLES[arguments.table] if arguments.only in fault.name]
    with_sagemaker = any(fault.needs_sagemaker for fault in faults) and not arguments.random
    with tempfile.TemporaryDirectory(prefix="mlflow-projects-faults-") as folder:
        home = arguments.keep or Path(folder) / "home"
        with working_stack(home, seed, postgresql=arguments.postgresql, with_sagemaker=with_sagemaker) as stack:
            if arguments.random:
                broken_lines = run_randomly(stack, arguments.random, seed)
                secrets = leaks(stack)
                print("\n".join([*broken_lines, *secrets]))
                print(f"seed {seed}: {arguments.random} random faults, {len(broken_lines)} broken")
                return 1 if broken_lines or secrets else 0
            verdicts = run_all(stack, faults, again=arguments.again)
            secrets = leaks(stack)
    print("\n".join(secrets) or "no planted secret was found in logs, tags, parameters, XComs or databases")
    broken = [verdict for verdict in verdicts if verdict.problems]
    print(f"{len(verdicts) - len(broken)} of {len(verdicts)} faults hold")
    return 1 if broken or secrets or not verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
