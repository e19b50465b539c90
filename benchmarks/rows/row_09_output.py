"""Row 9: how fast a step's output reaches the task's log, and what that costs in memory."""

from __future__ import annotations

from pathlib import Path

from benchmarks.memory import noted
from benchmarks.row import Bench, Row, ensure, medians
from benchmarks.scheduler import Scheduler, running_scheduler

LINE = (
    b'{"step": %07d, "loss": 0.123456, "accuracy": 0.987654, "learning rate": 0.000100, "seconds": 0.123456, '
    b'"validation loss": 0.234567, "validation accuracy": 0.976543, "what else": "is worth a place in a line"}\n'
)
OURS, BASH, PIPE = "output_ours", "output_bash", "pipe"
FLAT_MB = 10.0


def measure(bench: Bench) -> Row:
    """Print a big file below a real scheduler: by a step, by BashOperator, and into a pipe."""
    megabytes = bench.size(200, 5)
    folder = bench.folder("output")
    small, big = _write(folder / "small.txt", 1), _write(folder / "big.txt", megabytes)
    with running_scheduler(bench, {OURS, BASH}) as scheduler:
        peaks = {way: [_print(scheduler, way, small)[1]] for way in (OURS, BASH)}

        def print_big(way: str) -> float:
            seconds, peak = _print(scheduler, way, big)
            peaks[way].append(peak)
            return megabytes / seconds

        figures = bench.in_turns(
            {
                OURS: lambda: print_big(OURS),
                BASH: lambda: print_big(BASH),
                PIPE: lambda: megabytes / bench.command(["bash", "-c", f"cat '{big}' | cat >/dev/null"], {}),
            },
            rounds=1,
            discard=0,
        )
    speed = medians(figures, 2)
    growth = {way: round(max(of_big) - of_small, 1) for way, (of_small, *of_big) in peaks.items()}
    return Row(
        number=9,
        name=f"output, {megabytes} MB of lines into the task's log",
        unit="MB/s",
        ours=speed[OURS],
        limit=speed[PIPE],
        goal=round(speed[BASH] / 2, 2),
        peers={"BashOperator(cat)": speed[BASH]},
        at_least=True,
        conditions={"memory flat": growth[OURS] <= FLAT_MB},
        details={"MB more memory than for 1 MB of lines": growth, "bytes a line": len(LINE % 0)},
    )


def _print(scheduler: Scheduler, dag_id: str, file: Path) -> tuple[float, float]:
    """Return the seconds of the task and its peak (MB), once its log is seen to hold all lines."""
    done = scheduler.run(dag_id, file=str(file))
    lines = file.stat().st_size // len(LINE % 0)
    (log,) = scheduler.home.glob(f"logs/dag_id={dag_id}/run_id={done['run_id']}/**/*.log")
    with log.open("rb") as stream:
        found = sum(b"learning rate" in line for line in stream)
    ensure(found == lines, f"{found} of {lines} lines are in {log}.")
    log.unlink()
    return sum(done["tasks"].values()), noted(scheduler.home.parent, dag_id, done["run_id"])["peak"]


def _write(file: Path, megabytes: int) -> Path:
    with file.open("wb") as stream:
        for number in range(megabytes * 10**6 // len(LINE % 0)):
            stream.write(LINE % number)
    return file
