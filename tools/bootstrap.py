"""Make .venv and install the pinned lock into it; do nothing when that was done before.

Usage: python3 tools/bootstrap.py [--dev]
       python3 tools/bootstrap.py --docs     (an environment of its own, build/docs-env, for the site alone)
       python3 tools/bootstrap.py --release  (another, build/release-env, for `make release` and `make audit`)

Runs under whatever python3 the machine has, so it is written for old ones and says what is missing.
"""

from __future__ import print_function

import hashlib
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# An environment of its own, for one purpose alone: "docs" or "release".
ALONE = next((name for name in ("docs", "release") if "--" + name in sys.argv[1:]), None)
FOLDER = os.path.join("build", ALONE + "-env") if ALONE else ".venv"
VENV = os.path.join(ROOT, FOLDER)
PYTHON = os.path.join(VENV, "bin", "python")
OLDEST, NEWEST = (3, 10), (3, 13)


def main():
    dev = "--dev" in sys.argv[1:]
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        return fail(
            "Python %d.%d to %d.%d is needed, but %s is %d.%d; install one and run: make PYTHON=python3.12 ..."
            % (OLDEST + NEWEST + (sys.executable,) + sys.version_info[:2])
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return fail("Python's venv module is missing; install it with: sudo apt-get install python3-venv")
    locks = ["requirements.txt"] + (["requirements-dev.txt"] if dev else [])
    if ALONE:
        locks = ["requirements-%s.txt" % ALONE]
    stamp = os.path.join(VENV, ".installed" + ("-dev" if dev else ""))
    wanted = fingerprint(locks + ([] if ALONE else ["pyproject.toml"]))
    if os.path.exists(stamp) and open(stamp).read() == wanted:
        return 0
    if not os.path.exists(os.path.join(VENV, "bin", "pip")):
        print("Creating the virtual environment %s ..." % FOLDER)
        run([sys.executable, "-m", "venv", "--clear", VENV])
    packages = {"docs": 40, "release": 60}.get(ALONE, 250)
    print("Installing the pinned requirements into %s (about %d packages; once) ..." % (FOLDER, packages))
    sys.stdout.flush()
    run([PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", pinned("uv")])
    uv = [os.path.join(VENV, "bin", "uv"), "pip", "install", "--quiet", "--python", PYTHON]
    run(uv + ["--compile-bytecode"] + [argument for lock in locks for argument in ("-r", lock)])
    if not ALONE:
        run(uv + ["--no-deps", "--editable", "."])
    with open(stamp, "w") as file:
        file.write(wanted)
    return 0


def pinned(name):
    """Return the lock's own pin, so that the installer is no newer than what was tested."""
    with open(os.path.join(ROOT, "requirements.txt")) as file:
        return next(line.split()[0] for line in file if line.startswith(name + "=="))


def fingerprint(names):
    digest = hashlib.sha256()
    for name in names:
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def run(command):
    code = subprocess.call(command, cwd=ROOT)
    if code:
        sys.exit(fail("This step failed: %s" % " ".join(command)))


def fail(sentence):
    sys.stderr.write(sentence + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
