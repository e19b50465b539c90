"""Start and stop the stack of docker-compose.yaml.

Usage: python tools/stack.py build | up [--workers N] [--no-build] [SERVICE ...] | down [--volumes]

Starts in waves and asks for the health itself, because podman before 4.6 ignores the conditions of `depends_on`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import yaml
from compose import DEBIAN, ROOT, compose, containers, engine, env_file, profiles, project, read, run_engine
from env import ensure

_CAPTURED: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
PATIENCE = float(os.environ.get("STACK_PATIENCE", "600"))  # seconds for a wave


def every_service() -> dict[str, Any]:
    """Return the services of docker-compose.yaml."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
    return found


def services(names: list[str]) -> dict[str, Any]:
    """Return the services that are on.

    :param names: only these, and what they need; [] for all
    """
    on = profiles()
    found = {
        name: service
        for name, service in every_service().items()
        if not service.get("profiles") or on & {*service["profiles"]}
    }
    if unknown := {*names} - {*found}:
        raise SystemExit(f"Not a service, or one of a profile that is off: {', '.join(sorted(unknown))}.")
    wanted, more = set[str](), {*names} or {*found}
    while more:
        wanted |= more
        more = {need for name in more for need in found[name].get("depends_on", {}) if need in found} - wanted
    return {name: found[name] for name in found if name in wanted}


def waves(found: dict[str, Any]) -> Iterator[list[str]]:
    """Yield groups of services: each needs only what is in earlier groups, or is not on."""
    done: set[str] = set()
    while len(done) < len(found):
        ready = [
            name for name in found if name not in done and done >= found.keys() & {*found[name].get("depends_on", {})}
        ]
        if not ready:
            raise SystemExit(f"These services wait for each other: {', '.join(sorted({*found} - done))}.")
        yield ready
        done |= {*ready}


def up(workers: int, names: list[str], *, build: bool = True) -> None:
    """Start the services, or all, and wait until they are healthy."""
    if added := ensure(env_file()):
        print(f"{env_file()} has {len(added)} new value(s), secrets among them.")
    if build:
        build_image()
    found = services(names)
    os.environ["PARALLELISM"] = str(workers * int(read(env_file()).get("WORKER_CONCURRENCY", "4")))
    for wave in waves(found):
        print(f"Starting {', '.join(wave)} ...", flush=True)
        scale = ["--scale", f"worker={workers}"] if "worker" in wave else []
        # podman-compose's status tells nothing; its words count only if a container is missing then.
        said = compose("up", "--detach", "--no-deps", "--no-build", *scale, *wave, check=False, **_CAPTURED).stdout
        if missing := [name for name in wave if not containers(name)]:
            raise SystemExit(f"{said[-4000:]}\n{', '.join(missing)} could not be started; see above.")
        for name in wave:
            if "disable" in found[name]["healthcheck"]:
                wait_for_success(name)
            else:
                wait_for_health(name, workers if name == "worker" else 1)
            if name == "postgres":
                check_password()
    show()


def build_image() -> None:
    """Build the image of Airflow and MLflow; where nothing can be pulled, also those that the others stand on."""
    if DEBIAN:
        subprocess.run([sys.executable, "-m", "tests.stack.engine"], cwd=ROOT, check=True)
    print("Building the image (minutes, the first time) ...", flush=True)
    done = compose("build", "init", check=False, **_CAPTURED)
    if done.returncode:
        raise SystemExit(f"{done.stdout[-4000:]}\nThe image could not be built; see above.")


def wait_for_health(service: str, number: int = 1) -> None:
    """Wait until as many containers of the service are healthy.

    :raises SystemExit: with their logs, if that takes too long
    """
    deadline = time.monotonic() + PATIENCE
    while len(found := containers(service, ended=False)) < number or not all(map(is_healthy, found)):
        if time.monotonic() > deadline:
            compose("logs", "--tail", "50", service, check=False)
            raise SystemExit(f"{service} is not healthy after {PATIENCE:.0f} s; its last lines are above.")
        time.sleep(1)


def is_healthy(container: str) -> bool:
    """Ask the engine; podman runs the check now, as it has no timer of its own without systemd."""
    if engine() == "podman":
        return run_engine("healthcheck", "run", container, check=False, capture_output=True).returncode == 0
    state = run_engine("inspect", "--format", "{{.State.Health.Status}}", container, check=False, capture_output=True)
    return state.stdout.strip() == "healthy"


def check_password() -> None:
    """Log in to PostgreSQL, which knows the passwords that its volume was made with.

    :raises SystemExit: if ``.env`` has others: nothing else would start, for a reason deep in a log
    """
    # Over the container's own address: its loopback may need no password.
    login = 'PGPASSWORD=$MLFLOW_DB_PASSWORD psql --host "$(hostname)" --username mlflow --command "SELECT 1" mlflow'
    [name] = containers("postgres")
    if run_engine("exec", name, "sh", "-c", login, check=False, capture_output=True).returncode:
        raise SystemExit(
            f"The volume {project()}_postgres was made with other passwords than those of {env_file()}: "
            "put the .env of that time back, or remove all data with: make stack-down VOLUMES=1"
        )


def wait_for_success(service: str) -> None:
    """Wait until a service that runs once has ended.

    :raises SystemExit: with its log, if it failed
    """
    [name] = containers(service)
    code = run_engine("wait", name, capture_output=True, timeout=PATIENCE).stdout.strip()
    if code != "0":
        compose("logs", "--tail", "100", service, check=False)
        raise SystemExit(f"{service} failed with status {code}; its last lines are above.")


def show() -> None:
    """Say where everything is."""
    env = read(env_file())
    print(
        f"Airflow  http://localhost:{env['AIRFLOW_PORT']}  user {env['AIRFLOW_ADMIN_USER']}\n"
        f"MLflow   http://localhost:{env['MLFLOW_PORT']}  user {env['MLFLOW_ADMIN_USER']}\n"
        f"S3       http://localhost:{env['S3_PORT']}  access key {env['S3_ACCESS_KEY']}\n"
        + (f"Git      http://localhost:{env['GIT_PORT']}/NAME.git  user {env['GIT_USER']}\n" * ("git" in profiles()))
        + f"The passwords are in {env_file()}."
    )


def down(volumes: bool) -> None:
    """Stop and remove the containers; keep the volumes unless told otherwise."""
    # Also those of a profile that was turned off meanwhile.
    os.environ["COMPOSE_PROFILES"] = ",".join(
        p for service in every_service().values() for p in service.get("profiles", [])
    )
    if engine() == "podman" and (running := containers(ended=False)):
        # podman-compose stops one after the other.
        run_engine("stop", "--time", "10", *running, check=False, capture_output=True)
    ensure(env_file())  # a newer docker-compose.yaml may want more than the stack was started with
    said = compose("down", *(["--volumes"] if volumes else []), check=False, **_CAPTURED).stdout
    if left := containers():
        raise SystemExit(f"{said[-4000:]}\nStill there: {', '.join(left)}; see above.")
    if volumes:  # podman-compose leaves that of a scaled service
        label = f"label=com.docker.compose.project={project()}"
        found = run_engine("volume", "ls", "--quiet", "--filter", label, capture_output=True).stdout.split()
        if found:
            run_engine("volume", "rm", *found, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("build")
    start = actions.add_parser("up")
    start.add_argument("--workers", type=int, default=2)
    start.add_argument("--no-build", action="store_true", help="take the image that is there")
    start.add_argument("services", nargs="*", metavar="SERVICE", help="only these, and what they need")
    actions.add_parser("down").add_argument("--volumes", action="store_true")
    arguments = parser.parse_args()
    if arguments.action == "build":
        ensure(env_file())
        build_image()
    elif arguments.action == "up":
        up(arguments.workers, arguments.services, build=not arguments.no_build)
    else:
        down(arguments.volumes)


if __name__ == "__main__":
    main()
