"""Change the library line by line and count how many of the changes `make check`'s tests notice (mutmut).

Usage: python tools/mutants.py [--shown] [--sample N] [FILE ...]
       files below plugins/mlflow_projects; default: those of MODULES

mutmut wants the package below ``src/``, so it works in a copy: build/mutants. A second run of it goes on where the
first was stopped. ``mutmut show NAME`` in that folder shows one change.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from home import BIN, ROOT

# What must never be wrong without a test that says so.
MODULES = (
    "attempt/life.py",
    "attempt/reuse.py",
    "operators/earlier_tries.py",
    "operators/reuse_rules.py",
    "operators/run_group.py",
    "operators/runs.py",
    "operators/templates.py",
    "listeners/dag_run.py",
    "listeners/task_instance.py",
    "hooks/closing.py",
    "hooks/closing_queue.py",
    "hooks/masking.py",
    "triggers/closing.py",
    "tracking/record.py",
    "tracking/janitor.py",
    "tracking/reuse_key.py",
    "tracking/tree.py",
    "tracking/closing.py",
    "tracking/ended_dag_run.py",
    "backends/registry.py",
    "backends/local/command.py",
    "backends/local/output.py",
    "backends/local/withheld_variables.py",
    "project/command.py",
    "project/shell_syntax.py",
    "project/shell_safety.py",
    "project/shell_misreading.py",
    "project/interpreters.py",
    "project/shell_and_python.py",
    "project/quoting.py",
    "project/identity.py",
    "ui/reading.py",
)
# Of tests/unit.
ROOMS = ("attempt", "backends", "hooks", "listeners", "operators", "project", "tracking", "triggers", "ui")
BESIDE = (
    "dags",
    "docs",
    "plugins",
    "sample_projects",
    "custom_images",
    "benchmarks",
    "tools",
    "sagemaker_local",
    "docker-compose.yaml",
)
GOAL = 80  # per cent
WORK = Path(ROOT) / "build" / "mutants"
CONFIG = """
[tool.mutmut]
source_paths = ["src"]
only_mutate = [{only}]
pytest_add_cli_args = ["-p", "no:cacheprovider", "-p", "no:randomly", "-q"]
pytest_add_cli_args_test_selection = [{tests}]
# What a log line says to a reader is not asserted word by word.
do_not_mutate_patterns = ['self\\.log(\\.\\w+)?\\(', '\\blog\\(']
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shown", action="store_true", help="print each change that no test noticed")
    parser.add_argument("--sample", type=int, help="try at most this many changes of a module, drawn at random")
    parser.add_argument("--tests", nargs="*", help="test files or folders instead of all that concern these modules")
    parser.add_argument("files", nargs="*", default=MODULES)
    arguments = parser.parse_args()
    files = [file.removeprefix("plugins/mlflow_projects/") for file in arguments.files]
    if missing := [file for file in files if not (Path(ROOT) / "plugins" / "mlflow_projects" / file).is_file()]:
        parser.error(f"no such file below plugins/mlflow_projects: {', '.join(missing)}")
    prepare(files, arguments.tests)
    environment = {**os.environ, "PYTHONPATH": str(WORK / "mutants" / "src"), "NO_COLOR": "1"}
    run = [str(Path(BIN) / "mutmut"), "run", "--max-children", str(os.cpu_count() or 2)]
    drawn: dict[str, int | None] = {}
    with (WORK / "log").open("w") as log:
        if arguments.sample:  # a name of none: all changes are made, and none is tried
            subprocess.call([*run, "none"], cwd=WORK, env=environment, stdout=log, stderr=log)
            drawn = sample(files, arguments.sample)
            run += [name for name, result in drawn.items() if result is None] or ["none"]
        status = subprocess.call(run, cwd=WORK, env=environment, stdout=log, stderr=log)
    listed = subprocess.run(
        [run[0], "results", "--all", "true"], cwd=WORK, env=environment, capture_output=True, text=True
    )
    results = dict(line.strip().rsplit(": ", 1) for line in listed.stdout.splitlines() if ": " in line)
    every = len(results)
    results = {
        name: result for name, result in results.items() if result != "not checked" and (not drawn or name in drawn)
    }
    if not results:
        print((WORK / "log").read_text()[-4000:])
        return status or 1
    print(f"{len(results)} of {every} changes were tried.")
    return report(results, files, arguments.shown, environment)


def prepare(files: list[str], selection: list[str] | None) -> None:
    """Lay out a copy of the library and its tests as mutmut wants it; keeps what it has found out before."""
    source, tests = WORK / "src" / "mlflow_projects", WORK / "tests"
    for kept, original in ((source, "plugins/mlflow_projects"), (tests, "tests")):
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(Path(ROOT) / original, kept, ignore=shutil.ignore_patterns("__pycache__"))
    # Python would never look into a folder of PYTHONPATH that was not there when it started.
    (WORK / "mutants" / "src").mkdir(parents=True, exist_ok=True)
    for file in files:  # mutmut takes what it once copied unchanged, for changes of another module, as done
        copied = WORK / "mutants" / "src" / "mlflow_projects" / file
        if copied.exists() and "mutmut" not in copied.read_text():
            copied.unlink()
    for folder in (WORK, WORK / "mutants"):
        folder.mkdir(exist_ok=True)
        for name in BESIDE:  # not copied: the tests only read them
            if not (folder / name).exists():
                (folder / name).symlink_to(Path(ROOT) / name)
    rooms = [f"tests/unit/{name}" for name in ROOMS]
    quoted = {
        "only": ", ".join(f'"src/mlflow_projects/{file}"' for file in files),
        "tests": ", ".join(f'"{test}"' for test in selection or rooms),
    }
    project = (Path(ROOT) / "pyproject.toml").read_text()
    pytest_part = project[project.index("[tool.pytest.ini_options]") :]
    (WORK / "pyproject.toml").write_text(pytest_part + CONFIG.format(**quoted))


def sample(files: list[str], size: int) -> dict[str, int | None]:
    """Return names of changes, as many of each file as wanted, with their results so far; always the same names."""
    chosen = {}
    for file in files:
        found = json.loads((WORK / "mutants" / "src" / "mlflow_projects" / f"{file}.meta").read_text())
        results = found["exit_code_by_key"]
        for name in random.Random(file).sample(sorted(results), min(size, len(results))):
            chosen[name] = results[name]
    return chosen


def report(results: dict[str, str], files: list[str], shown: bool, environment: dict[str, str]) -> int:
    table: dict[str, Counter[str]] = {}
    left: dict[str, list[str]] = {}
    for name, result in results.items():
        module = name.rpartition(".")[0]
        table.setdefault(module, Counter())[result] += 1
        if result not in ("killed", "timeout", "caught by type check"):
            left.setdefault(module, []).append(name)
    below = []
    print(f"{'module':48} {'changes':>7} {'noticed':>7}   of them")
    for module, counts in sorted(table.items()):
        every = sum(counts.values())
        noticed = every - len(left.get(module, []))
        below += [module] if noticed * 100 < GOAL * every else []
        print(f"{module:48} {every:7} {noticed:7}   {100 * noticed / every:.0f} %")
    every = sum(sum(counts.values()) for counts in table.values())
    noticed = every - sum(map(len, left.values()))
    print(f"{noticed} of {every} changes noticed, {100 * noticed / every:.0f} % (goal: {GOAL} % of each module)")
    if shown:
        for name in (name for names in left.values() for name in names):
            print(f"\n{name}: {results[name]}", flush=True)
            subprocess.run([str(Path(BIN) / "mutmut"), "show", name], cwd=WORK, env=environment)
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
