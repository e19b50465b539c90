"""How much memory a process took at its most, for callbacks of the benchmark's DAGs."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any


def note_peak(context: Any, result: Any = None) -> None:  # noqa: ARG001
    """Write what memory this task process takes into a file of the DAG run's; to be a task's ``post_execute``."""
    file = _file(Path(os.environ["BENCH_WORK"]), context["ti"].dag_id, context["ti"].run_id)
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"peak": peak_mb(), "private": private_mb()}))


def noted(work: Path, dag_id: str, run_id: str) -> dict[str, float]:
    """Return what a DAG run's one task noted: ``peak`` and ``private``, in MB.

    :param work: the folder of the whole benchmark
    """
    return dict(json.loads(_file(work, dag_id, run_id).read_text()))


def peak_mb() -> float:
    """Return the most memory that this process ever had (VmHWM), in MB.

    Linux only: unlike ru_maxrss, it begins anew when a process forks.
    """
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def private_mb() -> float:
    """Return the memory that this process shares with no other at this moment, in MB. Linux only."""
    sizes = re.findall(r"Private_\w+:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text())
    return sum(map(int, sizes)) / 1024


def _file(work: Path, dag_id: str, run_id: str) -> Path:
    return work / "memory" / f"{dag_id}-{run_id}".replace(":", "_")
