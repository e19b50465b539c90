"""The circles of checks behind `make lint`, `check`, `test` and `test-all`; each holds the one before.

Usage: python tools/circles.py lint|check|test|test-all [--load N] [--processes N] [-- ARGUMENT OF PYTEST ...]

Ends with a table of the parts and the whole, in seconds; the limits hold for two cores that do nothing else.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from home import BIN, ROOT

LIMITS = {"lint": 60, "check": 90, "test": 360, "test-all": 1500}
SELECTED: dict[str, list[list[str]]] = {
    "lint": [],
    "check": [["tests/unit"]],
    "test": [["tests/unit", "tests/security", "tests/integration"]],
    "test-all": [["tests/unit", "tests/security", "tests/integration"], ["tests/system", "tests/faults"]],
}
LINTS = (
    ["ruff", "check", "."],
    ["ruff", "format", "--check", "."],
    ["lint-imports", "--no-logo"],
    ["mypy"],
)
_NO_TESTS = 5  # pytest's: nothing of a circle's last part was selected by -k or --last-failed


@dataclass
class Part:
    name: str
    seconds: float
    passed: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("circle", choices=LIMITS)
    parser.add_argument("--load", type=int, default=0, help="keep so many processes busy meanwhile")
    parser.add_argument("--processes", type=int, help="of pytest; one a core, and one more where tests wait much")
    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    arguments, more = parser.parse_args(given[:end]), given[end + 1 :]
    processes = arguments.processes or (os.cpu_count() or 2) + (arguments.circle != "check")
    began = time.monotonic()
    parts: list[Part] = []
    with ExitStack() as stack:
        for _ in range(arguments.load):
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(busy.kill)
        lint = Lint()
        stack.callback(lint.stop)
        for selection in SELECTED[arguments.circle]:
            command = [sys.executable, "-m", "pytest", "-n", str(processes), "--dist", "loadfile",
                       "--no-loadscope-reorder", *selection, *more]  # fmt: skip
            start = time.monotonic()
            status = subprocess.call(command, cwd=ROOT)
            passed = status == 0 or (status == _NO_TESTS and bool(more))
            parts.append(Part(" ".join(selection), time.monotonic() - start, passed))
        parts.append(lint.result())
    seconds = time.monotonic() - began
    print()
    for part in parts:
        print(f"{part.name:32} {part.seconds:6.0f} s   {'passed' if part.passed else 'FAILED'}")
    passed = all(part.passed for part in parts)
    beside = f" beside {arguments.load} busy processes" if arguments.load else ""
    limit = LIMITS[arguments.circle]
    print(f"make {arguments.circle}: {'passed' if passed else 'FAILED'} in {seconds:.0f} s{beside} (limit {limit} s)")
    return 0 if passed else 1


class Lint:
    """Style, types and import contracts, beside the first tests; what they print comes at the end."""

    def __init__(self) -> None:
        script = "status=0\n" + "".join(f"{Path(BIN) / lint[0]} {' '.join(lint[1:])} || status=1\n" for lint in LINTS)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(("plugins", ".")), "NO_COLOR": "1"}
        start = time.monotonic()
        self._process = subprocess.Popen(
            ["sh", "-c", f"{script}exit $status"], cwd=ROOT, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

        def follow() -> tuple[str, float]:
            output, _ = self._process.communicate()
            return output, time.monotonic() - start

        self._pool = ThreadPoolExecutor(1)
        self._followed = self._pool.submit(follow)

    def result(self) -> Part:
        output, seconds = self._followed.result()
        print(output)
        return Part("style, types, import contracts", seconds, self._process.returncode == 0)

    def stop(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
        self._pool.shutdown()


if __name__ == "__main__":
    sys.exit(main())
