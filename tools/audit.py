"""Ask OSV whether a package of the locks has a known weakness; needs the network.

Usage: build/release-env/bin/python tools/audit.py [--url URL] [OPTIONS OF pip-audit]      (make audit)
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import requests  # noqa: TID253

ROOT = Path(__file__).resolve().parents[1]
LOCKS = [*sorted(ROOT.glob("requirements*.txt")), ROOT / "custom_images/airflow/requirements.txt"]
# Not the package index, which pip-audit asks by default: OSV has its advisories and GitHub's.
URL = "https://api.osv.dev/v1/query"
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)", re.MULTILINE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", default=URL, help=f"of the vulnerability service, default: {URL}")
    options, more = parser.parse_known_args()
    question = {"package": {"name": "pip", "ecosystem": "PyPI"}, "version": "23.0"}
    try:
        requests.post(options.url, json=question, timeout=15).raise_for_status()
    except requests.RequestException as error:
        print(f"The vulnerability service {options.url} cannot be asked, so nothing was audited: {reason(error)}",
              file=sys.stderr)  # fmt: skip
        return 2
    rounds = pins()
    print(f"Asking {options.url} about {sum(map(len, rounds))} pins of {len(LOCKS)} locks ...", flush=True)
    status = 0
    for pinned in rounds:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "requirements.txt")
            file.write_text("\n".join(pinned))
            command = [
                sys.executable, "-m", "pip_audit", "--requirement", file, "--disable-pip", "--no-deps",
                "--vulnerability-service", "osv", "--osv-url", options.url, "--progress-spinner", "off", *more,
            ]  # fmt: skip
            status = subprocess.call(command) or status
    return status


def pins() -> list[list[str]]:
    """Return every pin of the locks, for whichever Python: in as many lists as a package has versions.

    pip-audit leaves out what is for another Python, and takes no two versions of a package at once.
    """
    versions: dict[str, set[str]] = defaultdict(set)
    for lock in LOCKS:
        for name, version in _PIN.findall(lock.read_text(encoding="utf-8")):
            versions[name].add(version)
    most = max(map(len, versions.values()))
    return [
        [f"{name}=={sorted(found)[number]}" for name, found in sorted(versions.items()) if number < len(found)]
        for number in range(most)
    ]


def reason(error: Exception) -> str:
    """Return the innermost cause, in one line."""
    while error.args and isinstance(error.args[0], Exception):
        error = getattr(error.args[0], "reason", None) or error.args[0]
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
