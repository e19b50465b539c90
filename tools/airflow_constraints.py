"""Keep, of the constraints that Airflow publishes, what concerns our package, for tests/system/test_constraints.py.

Usage: python tools/airflow_constraints.py 3.3.1 [3.12=FILE] [3.11~3.12] ...      (needs a package index)

For each supported Python the published file is downloaded, or a copy of it is taken (``3.12=FILE``). Where only that
of another Python can be had (``3.11~3.12``), its pins count as far as this one can have them; the first line says so.
"""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from pathlib import Path

from home import BIN, ROOT
from packaging.utils import canonicalize_name

FOLDER = ROOT / "tests" / "system" / "airflow_constraints"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
PUBLISHED = "https://raw.githubusercontent.com/apache/airflow/{}"
RESOLVE = [BIN / "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "-c", "-"]
# With what is installed where Airflow runs as a service.
OURS = ["pyproject.toml", "--extra", "amazon", "--extra", "full"]

Pins = list[tuple[str, str]]


def main() -> None:
    airflow, *given = sys.argv[1:]
    copies = dict(word.split("=", 1) for word in given if "=" in word)
    others = dict(word.split("~", 1) for word in given if "~" in word)
    for python in PYTHONS:
        other = others.get(python)
        name = f"constraints-{airflow}/constraints-{other or python}.txt"
        text = Path(copies[other or python]).read_text() if (other or python) in copies else download(name)
        pins, needed = resolved(airflow, python, re.findall(r"^([\w.-]+)(==\S+)$", text, re.MULTILINE), bool(other))
        kept = "".join(f"{package}{pin}\n" for package, pin in pins if canonicalize_name(package) in needed)
        header = f"# Airflow's {name}" + (f", as far as Python {python} can have it" if other else "")
        (FOLDER / f"{airflow}-python{python}.txt").write_text(f"{header}\n{kept}")


def download(name: str) -> str:
    with urllib.request.urlopen(PUBLISHED.format(name), timeout=60) as answer:
        return str(answer.read(), "utf-8")


def resolved(airflow: str, python: str, pins: Pins, may_drop: bool) -> tuple[Pins, set[str]]:
    """Return the pins, and the names of all that Airflow and our package need with them.

    :param may_drop: leave out pins that uv calls impossible for this Python
    """
    while True:
        limits = "".join(f"{package}{pin}\n" for package, pin in pins) + f"apache-airflow=={airflow}\n"
        command = [*RESOLVE, "--python-version", python, *OURS]
        done = subprocess.run(command, cwd=ROOT, input=limits, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return pins, {
                canonicalize_name(package) for package in re.findall(r"^([\w.-]+)==", done.stdout, re.MULTILINE)
            }
        impossible = {
            canonicalize_name(package) for package in re.findall(r"([\w.-]+)==\S+ depends on Python", done.stderr)
        }
        left = [(package, pin) for package, pin in pins if canonicalize_name(package) not in impossible]
        if not may_drop or left == pins:
            sys.exit(done.stderr)
        print(f"Python {python} cannot have the pins of: {', '.join(sorted(impossible))}", flush=True)
        pins = left


if __name__ == "__main__":
    main()
