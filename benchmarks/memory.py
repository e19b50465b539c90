"""How much memory a process took at its most, for callbacks of the benchmark's DAGs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any


def note_peak(context: Any, result: Any = None) -> None:  # noqa: ARG001
    """Write the peak of this task process (MB) into a file of the DAG run's; to be a task's ``post_execute``."""
    ti = context["ti"]
    folder = Path(os.environ["BENCH_WORK"]) / "memory"
    folder.mkdir(exist_ok=True)
    (folder / f"{ti.dag_id}-{ti.run_id}-{ti.task_id}".replace(":", "_")).write_text(str(peak_mb()))


def peak_mb() -> float:
    """Return the most memory that this process ever had (VmHWM), in MB.

    Linux only: unlike ru_maxrss, it begins anew when a process forks.
    """
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")
