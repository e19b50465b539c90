"""Break things on a real Airflow and MLflow and check that both still tell the same story.

Usage: python -m tests.faults.run [--only WORDS]           the table of named faults, a line per fault
       python -m tests.faults.run --third 0                a third of it, and what has failed before
       python -m tests.faults.run --random 200 --seed 7    random faults on random small DAGs

The last line is "N of M hold"; the exit status is 1 if anything that must hold does not.
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
from tests.faults.choice import FAILED_BEFORE, THIRDS, choose
from tests.faults.functions import FUNCTION_FAULTS
from tests.faults.invariants import leaks
from tests.faults.jobs import JOB_FAULTS
from tests.faults.randomly import run_randomly
from tests.faults.stack import Stack
from tests.faults.table import FAULTS
from tests.faults.verdict import conclude, run_all, secrets_kept

TABLES = {
    "all": FAULTS + FUNCTION_FAULTS + JOB_FAULTS,
    "local": FAULTS + FUNCTION_FAULTS,
    "functions": FUNCTION_FAULTS,
    "jobs": JOB_FAULTS,
}


@contextlib.contextmanager
def working_stack(home: Path, seed: int, *, postgresql: bool, with_sagemaker: bool) -> Iterator[Stack | None]:
    """Yield a stack that has run a DAG run without a fault; a second one if the first one cannot, then None.

    What is broken before any fault says nothing of the faults; it is printed, with the ends of the logs.
    """
    dag_id = "job_watched" if with_sagemaker else "once"
    for name in ("first", "second"):
        with contextlib.ExitStack() as resources:
            stack = Stack(home / name, seed, postgresql=postgresql, with_sagemaker=with_sagemaker)
            try:
                resources.enter_context(stack)
            except AssertionError as error:
                print(f"The {name} stack: {error}", flush=True)
                continue
            try:
                ended = stack.wait_end(dag_id, stack.trigger(dag_id, command="true"))
            except AssertionError as error:
                ended = str(error)
            if ended == "success":
                yield stack
                return
            lines = stack.last_lines(stack.triggered())
            print(f"The {name} stack does not work, before any fault: {ended}", *lines, sep="\n", flush=True)
    yield None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="only faults whose name holds these words")
    parser.add_argument("--third", type=int, choices=range(THIRDS), help="only a third, and what has failed before")
    parser.add_argument("--again", action="store_true", help="cause a fault that broke something once more, alone")
    parser.add_argument("--keep", type=Path, help="work in this new folder and keep it")
    parser.add_argument("--random", type=int, default=0, metavar="N", help="cause N random faults instead")
    parser.add_argument("--seed", type=int, default=None, help="of the random faults; default: by the clock")
    parser.add_argument("--postgresql", action="store_true", help="Airflow's and MLflow's databases on PostgreSQL")
    parser.add_argument("--table", choices=TABLES, default="all", help="which of the named faults")
    arguments = parser.parse_args()
    seed = int(time.time()) if arguments.seed is None else arguments.seed
    chosen = choose(TABLES["all"], arguments.third, FAILED_BEFORE)
    faults = [fault for fault in chosen if fault in TABLES[arguments.table] and arguments.only in fault.name]
    expected = 1 + (arguments.random or len(faults))  # with the look for secrets
    with_sagemaker = any(fault.needs_sagemaker for fault in faults) and not arguments.random
    verdicts = []
    with tempfile.TemporaryDirectory(prefix="mlflow-projects-faults-") as folder:
        home = arguments.keep or Path(folder) / "home"
        with working_stack(home, seed, postgresql=arguments.postgresql, with_sagemaker=with_sagemaker) as stack:
            if stack and arguments.random:
                verdicts = run_randomly(stack, arguments.random, seed)
            elif stack and faults:
                verdicts = run_all(stack, faults, again=arguments.again, record=FAILED_BEFORE)
            if verdicts:
                verdicts.append(secrets_kept(leaks(stack)))
                print(verdicts[-1], flush=True)
    return conclude(verdicts, expected)


if __name__ == "__main__":
    sys.exit(main())
