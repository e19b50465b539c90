"""Row 5: from a git commit that is known to a tree that can run, without the network."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from benchmarks.row import Bench, Row, ensure, medians
from tests.support.gitserver import GitServer

FILES = 200
GOAL_SECONDS = 0.1
TASKS = 20
BARE = "source.git"
OURS, MLFLOW, COPY = "ours", "mlflow's own clone", "a local copy"

# Each in a process of its own, as a task is; what a task has loaded anyway before it asks is not counted.
SCRIPTS = {
    OURS: """
import sys, time
from pathlib import Path
from mlflow_projects.project.cache import Cache
from mlflow_projects.project.fetch import fetch
url, commit, cache, target = sys.argv[1:]
Path(target).mkdir(parents=True)
start = time.perf_counter()
fetch(url, commit, Cache(Path(cache)), Path(target))
print(time.perf_counter() - start)
""",
    MLFLOW: """
import sys, time
import mlflow.projects.utils as utils
url, commit, cache, target = sys.argv[1:]
start = time.perf_counter()
utils._fetch_git_repo(url, commit, target)
print(time.perf_counter() - start)
""",
    COPY: """
import shutil, sys, time
url, commit, cache, target = sys.argv[1:]
start = time.perf_counter()
shutil.copytree(cache, target)
print(time.perf_counter() - start)
""",
}


def measure(bench: Bench) -> Row:
    """Measure a warm cache with the repository's server gone, then how many fetches parallel tasks share."""
    folder = bench.folder("git")
    source = folder / "source"
    commit = _make_repository(source)
    environment = bench.environment()

    def run(way: str, url: str, cache: Path, number: int) -> float:
        target = folder / "trees" / f"{way}-{number}"
        argv = [sys.executable, "-c", SCRIPTS[way], url, commit, str(cache), str(target)]
        seconds = float(bench.output(argv, environment).split()[-1])
        files = sum(path.is_file() for path in target.rglob("*.py"))
        ensure(files == FILES, f"{way} made a tree of {files} files, not of {FILES}.")
        shutil.rmtree(target)
        return seconds

    tasks = bench.size(TASKS, 4)
    with GitServer(folder) as server:
        url = f"{server.url}/{BARE}"
        with ThreadPoolExecutor(tasks) as pool:
            first = list(pool.map(lambda number: run(OURS, url, folder / "cache", number), range(tasks)))
        fetches = server.fetches
        mlflow = bench.in_turns({MLFLOW: lambda: run(MLFLOW, url, source, 0)}, rounds=10)
    ways = {
        OURS: lambda: run(OURS, url, folder / "cache", 0),  # the server is gone
        COPY: lambda: run(COPY, url, source, 0),
    }
    figures = {**bench.in_turns(ways, rounds=10), **mlflow}
    seconds = medians(figures)
    return Row(
        number=5,
        name=f"known git commit to a runnable tree, {FILES} files",
        unit="s",
        ours=seconds[OURS],
        limit=seconds[COPY],
        goal=GOAL_SECONDS,
        peers={MLFLOW: seconds[MLFLOW]},
        conditions={f"{tasks} tasks share one fetch": fetches == 1},
        details={
            "network": "none: the server is gone when a known commit is asked for",
            "fetches of parallel tasks": fetches,
            "parallel tasks": tasks,
            "median of parallel first fetches": round(median(first), 3),
            "samples": figures,
        },
    )


def _make_repository(folder: Path) -> str:
    """Make a repository with a project of some hundred files; return its commit."""
    for number in range(FILES):
        file = folder / f"part_{number % 10}" / f"module_{number}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"# {number}\n" * 100)
    (folder / "MLproject").write_text('name: files\nentry_points:\n  main:\n    command: "python --version"\n')
    author = ["-c", "user.name=bench", "-c", "user.email=bench@example.com"]
    for command in (["init", "--quiet"], ["add", "."], [*author, "commit", "--quiet", "--message", "files"]):
        subprocess.run(["git", "-C", folder, *command], check=True)
    subprocess.run(["git", "clone", "--quiet", "--bare", folder, folder.with_name(BARE)], check=True)
    head = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return head.stdout.strip()
