"""A fault, what was seen after it, and how the one leads to the other; the same for every kind of stack."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from tests.faults.choice import names_in
from tests.faults.invariants import violations
from tests.faults.observed import Observed

AT_ONCE = 3
S = TypeVar("S", bound=Observed)


@dataclass(frozen=True)
class Fault(Generic[S]):
    """One way to go wrong.

    :param do: causes the fault and returns (DAG, DAG run); takes the stack
    :param ends: the state that the DAG run must reach; "" for any
    :param disturbs: True if it touches parts that other faults need, so that it must run alone
    :param unrecorded: True if a try may begin and end while no tracking server can be reached, so that it has no run
    :param lane: if it disturbs only faults of this name here; "" for all
    :param marked: True if a person calls a running step a success
    :param own_way: True if ``do`` takes what the stack's ``way()`` yields too, and breaks that only
    """

    name: str
    do: Callable[..., tuple[str, str]]
    ends: str
    disturbs: bool = False
    unrecorded: bool = False
    lane: str = ""
    own_way: bool = False
    needs_sagemaker: bool = False
    marked: bool = False


@dataclass(frozen=True)
class Verdict:
    """What was seen after a fault."""

    fault: str
    airflow: str
    mlflow: str
    processes: int
    seconds: float
    problems: Sequence[str]
    logs: Sequence[str] = ()

    def __str__(self) -> str:
        verdict = "holds" if not self.problems else f"BROKEN {'; '.join(self.problems)}"
        return (
            f"{self.fault:75} | Airflow: {self.airflow:8} | MLflow: {self.mlflow:40} | "
            f"{self.processes} left | {self.seconds:5.1f} s | {verdict}"
        )


def cause(stack: S, fault: Fault[S], *, when_up: bool = False) -> Verdict:
    """Cause a fault, wait for the end of its DAG run, and judge.

    :param when_up: wait until Airflow is up first: another fault may have killed parts of it
    """
    start = time.monotonic()
    airflow, statuses, left = "?", "?", 0
    stack.forget_triggered()
    try:
        if when_up:
            stack.wait(stack.is_up, "Airflow")
        with contextlib.ExitStack() as held:
            way = [held.enter_context(stack.way())] if fault.own_way else []
            dag_id, run_id = fault.do(stack, *way)
            airflow = stack.wait_end(dag_id, run_id)
            problems = violations(stack, dag_id, run_id, unrecorded=fault.unrecorded, marked=fault.marked)
        if fault.ends and airflow != fault.ends:
            problems.append(f"the DAG run should be {fault.ends}")
        counted = Counter(run.info.status for run in stack.runs(run_id))
        statuses = ", ".join(f"{number} {status}" for status, number in sorted(counted.items()))
        left = len(stack.processes(run_id))
    except Exception as error:
        traceback.print_exc()
        problems = [f"{type(error).__name__}: {error}"]
    finally:
        stack.mend(fault.lane)
    logs = stack.last_lines(stack.triggered()) if problems else []
    return Verdict(fault.name, airflow, statuses, left, time.monotonic() - start, problems, logs)


def run_all(
    stack: S, faults: Sequence[Fault[S]], *, again: bool = False, record: Path | None = None
) -> list[Verdict]:
    """Cause the faults that disturb nobody side by side, then the lanes side by side, then the others one by one.

    :param again: cause a fault that broke something once more, alone; both verdicts are printed, the second counts
    :param record: the file of those that have failed before; what it lacks now is printed
    """
    verdicts: list[Verdict] = []

    def show(verdict: Verdict) -> None:
        verdicts.append(verdict)
        print(verdict, *verdict.logs, sep="\n", flush=True)

    # Those with a way of their own mostly wait, the longest one for a minute and a half: they begin.
    harmless = sorted((fault for fault in faults if not fault.disturbs), key=lambda fault: not fault.own_way)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda fault: show(cause(stack, fault)), harmless))
    lanes: dict[str, list[Fault[S]]] = {}
    for fault in faults:
        if fault.disturbs:
            lanes.setdefault(fault.lane, []).append(fault)
    disturb_all = lanes.pop("", [])

    def one_by_one(chosen: Sequence[Fault[S]]) -> None:
        for fault in chosen:
            show(cause(stack, fault, when_up=True))

    with ThreadPoolExecutor() as pool:
        list(pool.map(one_by_one, lanes.values()))
    one_by_one(disturb_all)
    broken = {verdict.fault for verdict in verdicts if verdict.problems}
    if record and (new := sorted(broken - {*names_in(record)})):
        print(f"Seen broken; to be added to {record.parent.name}/{record.name}:", *new, sep="\n", flush=True)
    if again and broken:
        print(f"{len(broken)} broken; once more, one after the other:", flush=True)
        verdicts[:] = [verdict for verdict in verdicts if verdict.fault not in broken]
        one_by_one([fault for fault in faults if fault.name in broken])
    return verdicts


def secrets_kept(places: Sequence[str]) -> Verdict:
    """Return the verdict on where secrets were found after all faults."""
    return Verdict("no planted secret is shown", "-", "-", 0, 0, places)


def conclude(verdicts: Sequence[Verdict], expected: int) -> int:
    """Print how many hold as the last line; return the exit status.

    :param expected: how many there should be
    """
    holding = sum(not verdict.problems for verdict in verdicts)
    print(f"{holding} of {expected} hold", flush=True)
    return 0 if holding == expected else 1
