"""A fault, what was seen after it, and how the one leads to the other; the same for every kind of stack."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

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


@dataclass(frozen=True)
class Verdict:
    """What was seen after a fault."""

    fault: str
    airflow: str
    mlflow: str
    processes: int
    seconds: float
    problems: Sequence[str]

    def __str__(self) -> str:
        verdict = "holds" if not self.problems else f"BROKEN {'; '.join(self.problems)}"
        return (
            f"{self.fault:75} | Airflow: {self.airflow:8} | MLflow: {self.mlflow:40} | "
            f"{self.processes} left | {self.seconds:5.1f} s | {verdict}"
        )


def cause(stack: S, fault: Fault[S]) -> Verdict:
    """Cause a fault, wait for the end of its DAG run, and judge."""
    start = time.monotonic()
    airflow, statuses, left = "?", "?", 0
    try:
        with contextlib.ExitStack() as held:
            way = [held.enter_context(stack.way())] if fault.own_way else []
            dag_id, run_id = fault.do(stack, *way)
            airflow = stack.wait_end(dag_id, run_id, 180)
            problems = violations(stack, dag_id, run_id, unrecorded=fault.unrecorded)
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
    return Verdict(fault.name, airflow, statuses, left, time.monotonic() - start, problems)


def run_all(stack: S, faults: Sequence[Fault[S]], *, again: bool = False, with_logs: bool = False) -> list[Verdict]:
    """Cause the faults that disturb nobody side by side, then the lanes side by side, then the others one by one.

    :param again: cause a fault that broke something once more, alone; both verdicts are printed, the second counts
    :param with_logs: print the ends of all logs below a verdict that says BROKEN
    """
    verdicts: list[Verdict] = []

    def show(verdict: Verdict) -> None:
        verdicts.append(verdict)
        print(verdict, *(stack.last_lines() if verdict.problems and with_logs else []), sep="\n", flush=True)

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
            stack.wait(stack.is_up, 60, "Airflow")
            show(cause(stack, fault))

    with ThreadPoolExecutor() as pool:
        list(pool.map(one_by_one, lanes.values()))
    one_by_one(disturb_all)
    broken = {verdict.fault for verdict in verdicts if verdict.problems}
    if again and broken:
        print(f"{len(broken)} broken; once more, one after the other:", flush=True)
        verdicts[:] = [verdict for verdict in verdicts if verdict.fault not in broken]
        one_by_one([fault for fault in faults if fault.name in broken])
    return verdicts
