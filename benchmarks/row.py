"""What a row of the benchmark is, and what every row measures with: folders, servers, Airflow, time in turns."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from benchmarks.airflow_process import AirflowProcess
from tests.support.servers import running_mlflow_server

ROOT = Path(__file__).resolve().parents[1]
DAGS = Path(__file__).resolve().parent / "dags"
PROJECTS = Path(__file__).resolve().parent / "projects"
ECHO = ROOT / "sample_projects" / "echo"
NEW_DATABASE = "new.db"  # Airflow's migrated database before anything is in it
T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One measured line of the table.

    :param number: of the row in the table of docs/benchmarks.md, and the key in build/bench.json
    :param unit: "s", "ms", "MB", "ratio", "requests", "MB/s", "calls/min"
    :param ours: the one figure that the goal is about
    :param limit: what nothing can beat: the bare command, 0, a pipe
    :param goal: ``ours`` must be at most this (at least, with ``at_least``)
    :param peers: the figures of what people use instead, by its name
    :param conditions: further parts of the goal, and whether they hold
    :param details: everything else worth keeping
    """

    number: int
    name: str
    unit: str
    ours: float
    limit: float
    goal: float
    peers: dict[str, float]
    at_least: bool = False
    conditions: dict[str, bool] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        """Tell whether the goal is met, with all its conditions."""
        reached = self.ours >= self.goal if self.at_least else self.ours <= self.goal
        return reached and all(self.conditions.values())


class InvalidRunError(RuntimeError):
    """Something failed, so the figures would mean nothing."""


@dataclass
class Bench:
    """What a row measures with; everything started ends with the ``with`` block.

    :param work: a folder for all files of the run
    :param quick: small sizes and few rounds, to see that a row works; the figures are worth nothing
    """

    work: Path
    quick: bool = False
    _resources: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Bench:
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def size(self, full: T, quick: T) -> T:
        """Return the size that this run measures with."""
        return quick if self.quick else full

    def folder(self, name: str) -> Path:
        """Return a new empty folder."""
        folder = self.work / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def environment(self, **more: str) -> dict[str, str]:
        """Return the same environment for every way, whatever the shell of the person who measures holds."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            # Without PYTHONDONTWRITEBYTECODE: whoever compiles mlflow at each start measures the compiler.
            if not name.startswith(("AIRFLOW_", "MLFLOW_", "BENCH_", "PYTHON", "AWS_"))
        }
        return {
            **inherited,
            "AIRFLOW_HOME": str(self.work / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "BENCH_WORK": str(self.work),
            "MLFLOW_DISABLE_TELEMETRY": "true",  # else MLflow asks the internet at each start
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'plugins'}",
            "PYTHONUNBUFFERED": "1",  # our operator sets it for the entry point
            "PYTHONWARNINGS": "ignore",
            "SHLVL": "2",  # else a bash below a server without a terminal reads the start file of who measures
            **more,
        }

    @functools.cached_property
    def tracking_uri(self) -> str:
        """The tracking server that rows share, on SQLite; started at the first look."""
        return self._resources.enter_context(self.tracking_server("mlflow"))

    def tracking_server(self, name: str, database: str = "") -> AbstractContextManager[str]:
        """Run another tracking server during the block; the block gets its URI.

        :param name: of its folder
        :param database: SQLAlchemy URI; default: SQLite in the folder
        """
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        return running_mlflow_server(self.folder(name), database=database, environment=quiet)

    @functools.cached_property
    def airflow_home(self) -> Path:
        """Airflow's home with a migrated SQLite database; made at the first look."""
        home = self.folder("airflow")
        self.command([sys.executable, "-m", "airflow", "db", "migrate"], self.environment())
        shutil.copy(home / "airflow.db", home / NEW_DATABASE)
        return home

    def airflow(self, **variables: str) -> AirflowProcess:
        """Return a process, to be entered, that runs DAGs of benchmarks/dags with ``dag.test()``, again and again.

        :param variables: for the process; without MLFLOW_TRACKING_URI it gets the shared server
        """
        if "MLFLOW_TRACKING_URI" not in variables:
            variables["MLFLOW_TRACKING_URI"] = self.tracking_uri
        return AirflowProcess(self.environment(**variables), self.airflow_home / "bench.log")

    def in_turns(
        self, ways: Mapping[str, Callable[[], float]], rounds: int = 5, discard: int = 1
    ) -> dict[str, list[float]]:
        """Run every way once a round and return the figures by way.

        :param discard: rounds that fill caches first, and do not count
        """
        figures: dict[str, list[float]] = {way: [] for way in ways}
        rounds, discard = self.size((rounds, discard), (1, 0))
        for number in range(1 - discard, rounds + 1):
            for way, run in ways.items():
                figure = run()
                print(f"  round {number}/{rounds}  {figure:9.3f}  {way}", file=sys.stderr, flush=True)
                if number > 0:
                    figures[way].append(figure)
        return figures

    def command(self, argv: Sequence[str], environment: Mapping[str, str], cwd: Path = ROOT) -> float:
        """Run a command and return its wall time in seconds.

        :raises InvalidRunError: it failed
        """
        return self.timed(lambda: self.output(argv, environment, cwd))

    def output(self, argv: Sequence[str], environment: Mapping[str, str], cwd: Path = ROOT) -> str:
        """Run a command and return what it printed.

        :raises InvalidRunError: it failed
        """
        done = subprocess.run(argv, env=dict(environment), cwd=cwd, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InvalidRunError(f"{' '.join(argv)[:300]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    @staticmethod
    def timed(work: Callable[[], object]) -> float:
        """Return the seconds that some work takes."""
        start = time.perf_counter()
        work()
        return time.perf_counter() - start


def medians(figures: Mapping[str, Sequence[float]], digits: int = 3) -> dict[str, float]:
    """Return the median by way."""
    return {way: round(median(samples), digits) for way, samples in figures.items()}


def ensure(holds: object, what: str) -> None:
    """Make the run invalid, with a sentence, if something is not so."""
    if not holds:
        raise InvalidRunError(what)


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory),
        "system": platform.system(),
    }


def versions() -> dict[str, str]:
    """Return the versions that count."""
    packages = {name: version(name) for name in ("apache-airflow", "mlflow")}
    return {"python": platform.python_version(), **packages}
