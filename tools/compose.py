"""Find a container engine and its compose program, and run them on docker-compose.yaml.

Usage: python tools/compose.py ARGUMENTS    (as of `docker compose`, for example: logs worker)

Environment:
  ENV_FILE               default .env
  COMPOSE_PROJECT_NAME   default mlflow-projects
  STACK_FILES            more compose files, with ":" between them
  DEBIAN_IMAGES=1        Debian's podman as root, with images made here (tests/stack/engine.py): nothing is pulled
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from env import ROOT, env_file, read

DEBIAN = os.environ.get("DEBIAN_IMAGES") == "1"
SETTINGS = ROOT / "build" / "stack" / "containers.conf"  # tests/stack/engine.py writes it


@functools.cache
def engine() -> str:
    """Return ``docker`` if it answers and has compose, else ``podman``.

    :raises SystemExit: if there is none
    """
    if (
        not DEBIAN
        and shutil.which("docker")
        and all(
            subprocess.run(["docker", *question], capture_output=True, check=False).returncode == 0
            for question in (["info"], ["compose", "version"])
        )
    ):
        return "docker"
    if not shutil.which("podman"):
        raise SystemExit("No container engine answers; install Docker with its compose plugin, or podman.")
    if importlib.util.find_spec("podman_compose") is None:
        raise SystemExit("podman is here, but not podman-compose; `make setup-dev` installs it.")
    return "podman"


def project() -> str:
    """Return the project's name, which begins the names of containers and volumes."""
    return os.environ.get("COMPOSE_PROJECT_NAME") or read(env_file()).get("COMPOSE_PROJECT_NAME", "mlflow-projects")


def profiles() -> set[str]:
    """Return the profiles that are on."""
    names = os.environ.get("COMPOSE_PROFILES") or read(env_file()).get("COMPOSE_PROFILES", "")
    return {name.strip() for name in names.split(",") if name.strip()}


def files() -> list[Path]:
    """Return the compose files, the main one first."""
    more = [name for name in os.environ.get("STACK_FILES", "").split(":") if name]
    if DEBIAN:
        more.insert(0, "tests/stack/podman.yaml")
    return [ROOT / name for name in ("docker-compose.yaml", *more)]


def environment() -> dict[str, str]:
    """Return the variables of the programs; the file with the secrets wins over what a shell has by chance."""
    own = {name: value for name, value in os.environ.items() if name not in read(env_file())}
    own["COMPOSE_PROJECT_NAME"] = project()
    own["COMPOSE_PROFILES"] = ",".join(sorted(profiles()))
    if DEBIAN:
        own["CONTAINERS_CONF"] = str(SETTINGS)
    return own


def compose_command(*arguments: str) -> list[str]:
    """Return the command line of the compose program."""
    program = ["docker", "compose"] if engine() == "docker" else [sys.executable, "-m", "podman_compose"]
    options = [option for file in files() for option in ("-f", str(file))]
    for name in sorted(profiles()):
        options += ["--profile", name]
    # Without the option, compose would take .env where ENV_FILE names a file that is not there.
    options += ["--env-file", str(env_file() if env_file().is_file() else os.devnull)]
    return [*program, *options, "-p", project(), *arguments]


def compose(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the compose program; ``options`` are those of ``subprocess.run``."""
    return run(compose_command(*arguments), **options)


def run_engine(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run docker or podman itself."""
    return run([engine(), *arguments], **options)


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"check": True, "text": True, "cwd": ROOT, "env": environment(), **options}
    return subprocess.run(command, **options)


def containers(service: str = "", *, ended: bool = True) -> list[str]:
    """Return the names of the stack's containers, or of one service's.

    :param ended: also those that do not run
    """
    labels = {"com.docker.compose.project": project(), **({"com.docker.compose.service": service} if service else {})}
    options = [option for name, value in labels.items() for option in ("--filter", f"label={name}={value}")]
    listed = run_engine("ps", *(["--all"] if ended else []), "--format", "{{.Names}}", *options, capture_output=True)
    return sorted(listed.stdout.split())


def main() -> None:
    sys.exit(compose(*sys.argv[1:], check=False).returncode)


if __name__ == "__main__":
    main()
