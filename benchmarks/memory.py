"""How much memory a process took at its most, for callbacks of the benchmark's DAGs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any


def note_peak(context: Any, result: Any = None) -> None:  # noqa: ARG001
    """Write the peak of this task process (MB) into a file of the DAG run's; to be a task's ``post_execute``."""
    file = _file(Path(os.environ["BENCH_WORK"]), context["ti"].dag_id, context["ti"].run_id)
    file.parent.mkdir(exist_ok=True)
    file.write_text(str(peak_mb()))


def peak_of(work: Path, dag_id: str, run_id: str) -> float:
    """Return the peak that a DAG run's one task noted, in MB.

    :param work: the folder of the whole benchmark
    """
    return float(_file(work, dag_id, run_id).read_text())


def peak_mb() -> float:
    """Return the most memory that this process ever had (VmHWM), in MB.

    Linux only: unlike ru_maxrss, it begins anew when a process forks.
    """
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def _file(work: Path, dag_id: str, run_id: str) -> Path:
    return work / "memory" / f"{dag_id}-{run_id}".replace(":", "_")
