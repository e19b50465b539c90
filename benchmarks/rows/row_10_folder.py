"""Row 10: a project folder with gigabytes of data: used in place by a local step, streamed by packing."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from benchmarks.row import Bench, Row, ensure, medians

FLAT_MB = 10.0
SMALL, BIG = "small", "big"
_BLOCK = 16 * 2**20
_PACK = """
import json, sys, time
from pathlib import Path
from benchmarks.memory import peak_mb
from mlflow_projects.backends.sagemaker.package import pack
start = time.perf_counter()
package = pack(Path(sys.argv[1]), Path(sys.argv[2]), 10 * 2**30)
print(json.dumps({"seconds": time.perf_counter() - start, "peak_mb": peak_mb(), "size": package.size}))
"""


def measure(bench: Bench) -> Row:
    """Run a step in a small and in a big folder, then pack both for a training job."""
    sizes = bench.size({SMALL: 16, BIG: 2048}, {SMALL: 16, BIG: 160})
    folder = bench.folder("big_folder")
    for name, megabytes in sizes.items():
        _make_project(folder / name, megabytes)
    with bench.airflow() as warm:
        written = {}

        def step(name: str) -> float:
            before = _used(bench.airflow_home)
            seconds = warm.seconds(f"big_folder.folder_{name}")
            written[name] = (_used(bench.airflow_home) - before) / 2**20
            return seconds

        ways = {name: (lambda name=name: step(name)) for name in sizes}
        seconds = medians(bench.in_turns(ways, rounds=3))
    packed = {}
    for name, megabytes in sizes.items():
        target = folder / f"{name}.tar.gz"
        command = [sys.executable, "-c", _PACK, str(folder / name), str(target)]
        packed[name] = json.loads(bench.output(command, bench.environment()))
        ensure(packed[name]["size"] > 0.9 * megabytes * 2**20, "The data of the project can be compressed.")
        target.unlink()
    shutil.rmtree(folder)
    return Row(
        number=10,
        name=f"packing {sizes[BIG]} MB of project, memory over {sizes[SMALL]} MB",
        unit="MB",
        ours=round(packed[BIG]["peak_mb"] - packed[SMALL]["peak_mb"], 1),
        limit=0.0,
        goal=FLAT_MB,
        peers={"the archive in memory": float(sizes[BIG] - sizes[SMALL])},
        conditions={"local folders are not copied": written[BIG] < sizes[BIG] / 10},
        details={
            "seconds of a local step": seconds,
            "MB that a local step left on the disk": {name: round(size, 1) for name, size in written.items()},
            "packed": packed,
            "MB/s packed": round(sizes[BIG] / packed[BIG]["seconds"], 1),
        },
    )


def _make_project(folder: Path, megabytes: int) -> None:
    folder.mkdir()
    (folder / "MLproject").write_text('name: big\nentry_points:\n  main:\n    command: "test -s data/part-0"\n')
    block = os.urandom(_BLOCK)  # gzip looks back 32 KB only: the repetition does not help it
    (folder / "data").mkdir()
    for number in range(megabytes * 2**20 // _BLOCK):
        (folder / "data" / f"part-{number}").write_bytes(block)


def _used(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
