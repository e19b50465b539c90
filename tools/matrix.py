"""Run the demo and the tests on every Python that we claim, each in a copy of this checkout with a .venv of its own.

Usage: python tools/matrix.py [VERSION ...] [--parts demo check unit integration] [--lowest]

A version that is not there is a line "not found", and with REQUIRE_ALL=1 a failure. Uncommitted changes count. The
copies stay in build/matrix, so the next time is faster; what a part prints is in a log beside them. With ``--lowest``
the lowest versions that pyproject.toml allows stand in for the lock.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "build" / "matrix"
UV = str(Path(sys.executable).parent / "uv")
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
PARTS = ("demo", "check", "unit", "integration")
# The extras whose bounds are tried, and what else the tests need of Airflow's providers, as in requirements.in.
EXTRAS = ("amazon", "sagemaker-local")
MORE = ("apache-airflow-providers-amazon[aiobotocore]", "apache-airflow-providers-git")
# Debian has Pythons that cannot make a venv.
ASK = "import ensurepip, sys, venv; print(sys.implementation.name, '%d.%d' % sys.version_info[:2])"
LAST_LINES = 40
# The copies are not to share the demo's home, nor to take the variables of the make that started us for theirs.
NOT_THEIRS = ("DEMO_HOME", "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "VIRTUAL_ENV")
Command = Sequence[str]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", metavar="VERSION")
    parser.add_argument("--parts", nargs="+", choices=PARTS)
    parser.add_argument("--lowest", action="store_true")
    args = parser.parse_args()
    if unknown := {*args.versions} - {*VERSIONS}:
        parser.error(f"{', '.join(sorted(unknown))} is none of {', '.join(VERSIONS)}")
    if args.lowest and {*(args.parts or ())} & {"demo", "check"}:
        parser.error("--lowest runs unit and integration only: the other parts install the lock")
    parts = args.parts or (["unit", "integration"] if args.lowest else ["demo", "unit", "integration"])
    commit = snapshot()
    rows: list[tuple[str, dict[str, str], float]] = []
    for version in args.versions or ((VERSIONS[0], VERSIONS[-1]) if args.lowest else VERSIONS):
        start = time.monotonic()
        cells = {}
        if python := find(version):
            print(f"== Python {version}: {python}", flush=True)
            cells = (run_lowest if args.lowest else run_locked)(commit, version, python, parts)
        rows.append((version, cells, time.monotonic() - start))
    print(f"\n{table(parts, rows)}")
    missing = os.environ.get("REQUIRE_ALL") == "1" and not all(cells for _, cells, _ in rows)
    return int(missing or any(cell.startswith("FAILED") for _, cells, _ in rows for cell in cells.values()))


def find(version: str) -> str | None:
    """Return the path of a CPython of this version that can make a venv; None if there is none."""
    return next((python for python in candidates(version) if answer(python) == f"cpython {version}"), None)


def candidates(version: str) -> Iterator[str]:
    """Yield what may be one: from PATH, pyenv's versions (the newest first) and uv's list."""
    path = os.environ.get("PATH", os.defpath)
    for folder in path.split(os.pathsep):
        if python := shutil.which(f"python{version}", path=folder):
            yield python
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    releases = [found for found in pyenv.glob(f"{version}.*") if found.name.removeprefix(f"{version}.").isdigit()]
    for found in sorted(releases, key=lambda found: Version(found.name), reverse=True):
        yield str(found / "bin" / "python")
    listing = [UV, "python", "list", "--only-installed", "--output-format", "json", version]
    done = subprocess.run(listing, capture_output=True, text=True, check=False)
    for python in json.loads(done.stdout) if done.returncode == 0 else []:
        yield python["path"]


def answer(python: str) -> str:
    """Return which Python it is; "" if it does not run, as pyenv's shim for a version that is not selected."""
    try:
        return subprocess.run([python, "-c", ASK], capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def run_locked(commit: str, version: str, python: str, parts: Iterable[str]) -> dict[str, str]:
    """Run the parts with what the lock says; return what each came to."""
    copy = checked_out(commit, version)
    if answer(str(copy / ".venv" / "bin" / "python")) != f"cpython {version}":
        shutil.rmtree(copy / ".venv", ignore_errors=True)
    make = ["make", "--no-print-directory", f"PYTHON={python}"]
    targets = {part: [*make, part] for part in ("demo", "check")}
    return run(copy, [[*make, "setup-dev"]], {part: targets.get(part) or pytest(part) for part in parts})


def run_lowest(commit: str, version: str, python: str, parts: Iterable[str]) -> dict[str, str]:
    """Run the parts with the lowest versions that pyproject.toml allows; return what each came to."""
    copy = checked_out(commit, f"{version}-lowest")
    return run(copy, lowest_setup(copy, version, python), {part: pytest(part) for part in parts})


def lowest_setup(copy: Path, version: str, python: str) -> Iterator[Command]:
    """Yield the commands that resolve and install; each is to have succeeded before the next is asked for."""
    build = copy / "build"
    build.mkdir(exist_ok=True)
    ours, chosen, more, everything = (
        build / name for name in ("ours.txt", "chosen.txt", "more.in", "everything.txt")
    )
    extras = [word for extra in EXTRAS for word in ("--extra", extra)]
    resolve = [UV, "pip", "compile", "--quiet", "--upgrade", "--no-header", "--no-annotate", "--python", python]
    resolve += ["pyproject.toml", *extras]
    # With what else the tests need: what it cannot go with is not installable here.
    more.write_text("\n".join(MORE))
    yield [*resolve, str(more), "--resolution", "lowest-direct", "-o", str(ours)]
    found = list(lowest(requires("mlflow-projects-on-airflow") or [], ours.read_text(), version))
    for needed, bound, version_found in found:
        if Version(bound) != Version(version_found):
            print(f"   {needed}>={bound} in pyproject.toml: the lowest that can be installed is {version_found}")
    # What they need in turn, and what develops and tests, is the newest that goes with them.
    chosen.write_text("".join(f"{needed}=={version_found}\n" for needed, _, version_found in found))
    yield [*resolve, str(more), "--group", "dev", "-c", str(chosen), "-o", str(everything)]
    yield [python, "-m", "venv", "--clear", ".venv"]
    install = [UV, "pip", "install", "--quiet", "--python", ".venv/bin/python"]
    yield [*install, "-r", str(everything)]
    yield [*install, "--no-deps", "--editable", "."]


def pytest(part: str) -> Command:
    processes, more = os.environ.get("PROCESSES") or "3", shlex.split(os.environ.get("PYTEST_ARGS", ""))
    return [".venv/bin/python", "-m", "pytest", f"tests/{part}", "-n", processes, "--dist", "loadfile", *more]


def snapshot() -> str:
    """Return a commit, on no branch, of all files here that git does not ignore, as they are now."""
    PLACE.mkdir(parents=True, exist_ok=True)
    index = PLACE / "index"
    index.unlink(missing_ok=True)
    git(ROOT, "add", "--all", GIT_INDEX_FILE=str(index))
    tree = git(ROOT, "write-tree", GIT_INDEX_FILE=str(index))
    identity = ["-c", "user.name=matrix", "-c", "user.email=matrix@localhost"]
    return git(ROOT, *identity, "commit-tree", tree, "-m", "Matrix")


def checked_out(commit: str, name: str) -> Path:
    """Return a repository of its own that holds this commit, and what earlier runs have made in it."""
    copy = PLACE / name
    git(ROOT, "init", "--quiet", str(copy))
    git(copy, "fetch", "--quiet", "--depth=1", str(ROOT), commit)
    git(copy, "checkout", "--quiet", "--force", "-B", "main", "FETCH_HEAD")
    git(copy, "clean", "--quiet", "--force", "-d")
    return copy


def git(folder: Path, *arguments: str, **more: str) -> str:
    env = {**os.environ, **more}
    command = ["git", *arguments]
    return subprocess.run(command, cwd=folder, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def run(copy: Path, setup: Iterable[Command], parts: Mapping[str, Command]) -> dict[str, str]:
    """Run all parts in a copy if its set-up succeeds; return "passed", "FAILED" or what pytest counted."""
    log = log_of(copy, "setup")
    log.unlink(missing_ok=True)
    if not all(succeeds(copy, "setup", command) for command in setup):
        return dict.fromkeys(parts, "FAILED (setup)")
    cells = {}
    for part, command in parts.items():
        log_of(copy, part).unlink(missing_ok=True)
        passed = succeeds(copy, part, command)
        counted = re.findall(
            r"^=+ (\d+ .+) in [\d.]+s.* =+$", log_of(copy, part).read_text(errors="replace"), re.MULTILINE
        )
        cells[part] = " ".join([*([] if passed else ["FAILED"]), *counted[-1:]]) or "passed"
        print(f"   {part}: {cells[part]}", flush=True)
    return cells


def log_of(copy: Path, part: str) -> Path:
    return copy.with_name(f"{copy.name}.{part}.log")


def succeeds(copy: Path, part: str, command: Command) -> bool:
    """Run a command in a copy, its output appended to the part's log; show the end of that if it fails."""
    env = {name: value for name, value in os.environ.items() if name not in NOT_THEIRS}
    log = log_of(copy, part)
    with log.open("a") as file:
        print(f"   {part}: {shlex.join(command)}", file=file, flush=True)
        done = subprocess.run(command, cwd=copy, env=env, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        last = log.read_text(errors="replace").splitlines()[-LAST_LINES:]
        print(*last, f"   {part} failed; all of it: {os.path.relpath(log)}", sep="\n", flush=True)
    return done.returncode == 0


def lowest(requirements: Iterable[str], resolved: str, version: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, lower bound and lowest version of all that the package needs itself.

    :param requirements: as in the package's metadata
    :param resolved: the lowest versions, a line ``name==version`` each
    :param version: the Python version, for the markers
    """
    found = dict(re.findall(r"^([\w.-]+)(?:\[.*?\])?==([^\s;]+)", resolved, re.MULTILINE))
    environments = [{"extra": extra, "python_version": version} for extra in ("", *EXTRAS)]
    for needed in map(Requirement, requirements):
        if not needed.marker or any(map(needed.marker.evaluate, environments)):
            (bound,) = (bound.version for bound in needed.specifier if bound.operator == ">=")
            yield needed.name, bound, found[canonicalize_name(needed.name)]


def table(parts: Sequence[str], rows: Iterable[tuple[str, Mapping[str, str], float]]) -> str:
    """Return the table: a version is a row, a part is a column."""
    lines = [["version", *parts, "seconds"]]
    for version, cells, seconds in rows:
        lines.append([version, *map(cells.get, parts), f"{seconds:.0f}"] if cells else [version, "not found"])
    widths = [max(len(line[column]) for line in lines if column < len(line)) for column in range(len(lines[0]))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)).rstrip() for line in lines
    )


if __name__ == "__main__":
    sys.exit(main())
