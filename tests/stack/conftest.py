"""The stack of docker-compose.yaml, running, with the DAGs of tests/stack/dags."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.stack.client import StackClient

sys.path.insert(0, str(ROOT / "tools"))
from env import env_file, read

ENV_FILE = env_file()


def sagemaker_defaults() -> str:
    """Return the line that docs/stack.md gives for the profile ``sagemaker``."""
    [line] = re.findall(r"^SAGEMAKER_DEFAULTS=(.*)$", (ROOT / "docs/stack.md").read_text(), re.MULTILINE)
    return str(line)


# What is imported or started from here on (tools/compose.py) works on the stack with the tests' DAGs.
os.environ["STACK_FILES"] = ":".join(filter(None, (os.environ.get("STACK_FILES"), "tests/stack/dags.yaml")))
os.environ.setdefault("COMPOSE_PROFILES", "git,sagemaker")
os.environ.setdefault("SAGEMAKER_DEFAULTS", sagemaker_defaults())


def stack(*arguments: str, **variables: str) -> str:
    """Run tools/stack.py; return what it says."""
    done = subprocess.run(
        [sys.executable, "tools/stack.py", *arguments],
        cwd=ROOT, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=3000,
        env={**os.environ, **variables},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def compose(*arguments: str, check: bool = True, **variables: str) -> str:
    """Run tools/compose.py; return what it prints to stdout."""
    done = subprocess.run(
        [sys.executable, "tools/compose.py", *arguments],
        cwd=ROOT, check=False, capture_output=True, text=True, timeout=600,
        env={**os.environ, **variables},
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="session")
def client() -> StackClient:
    """Return a client of the stack, which is started first; one that runs keeps its image."""
    running = ["--no-build"] if compose("ps", "--quiet", check=False).strip() else []
    stack("up", "--workers", os.environ.get("WORKERS", "2"), *running)
    return StackClient(read(ENV_FILE))
