"""Start the server that building left, as a container or as a process, and always take it down again.

Leaving the ``with`` block ends the server, also after SIGTERM (evaluate.py turns it into an exception). Where nothing
of this program can run any more (SIGKILL, a lost machine), the server ends by itself after ``IDLE_SECONDS`` without a
request, and the engine removes its container; a later evaluate removes at once what an ended run left.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from client import Client

IDLE_SECONDS = 60
OPTIONS = [f"--idle-seconds={IDLE_SECONDS}"]
STOP_SECONDS = 5
LABEL = "mlflow_projects.evaluate_run"


@dataclass
class Server:
    """A started server.

    :param ports: returns the gRPC and the HTTP port on this machine; None while they are not known
    :param alive: returns whether it still runs
    :param output: its last lines
    """

    ports: Callable[[], tuple[int, int] | None]
    alive: Callable[[], bool]
    output: collections.deque[str] = field(default_factory=lambda: collections.deque(maxlen=50))

    def follow(self, chunks: Iterable[bytes]) -> threading.Thread:
        """Collect output in the background, so that the last lines are known whatever happens."""

        def collect() -> None:
            rest = b""
            with contextlib.suppress(docker.errors.DockerException, requests.RequestException, OSError, ValueError):
                for chunk in chunks:
                    *lines, rest = (rest + chunk).split(b"\n")
                    self.output.extend(line.decode(errors="replace") for line in lines)
            if rest:
                self.output.append(rest.decode(errors="replace"))

        thread = threading.Thread(target=collect, daemon=True)
        thread.start()
        return thread


def wait_until_ready(server: Server, proto: Path, seconds: float) -> Client:
    """Return a client of the server as soon as that says it serves.

    :param seconds: the longest time to wait
    :raises SystemExit: it ended, or is not ready in time; the message has its last lines
    """
    deadline = time.monotonic() + seconds
    client = None
    while time.monotonic() < deadline:
        if not server.alive():
            sys.exit(f"The server ended before it was ready. Its last lines:\n{_last_lines(server)}")
        if client is None and (ports := server.ports()):
            client = Client(proto, f"127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}")
        if client and client.ready():
            return client
        time.sleep(0.1)
    sys.exit(f"The server is not ready after {seconds:g} s. Its last lines:\n{_last_lines(server)}")


def _last_lines(server: Server) -> str:
    time.sleep(0.5)  # for what is still on its way
    return "\n".join(server.output) or "(none)"


@contextlib.contextmanager
def process(folder: Path) -> Iterator[Server]:
    """Run the server of a packed folder as a process on free ports of this machine."""
    # The server gets no credential of this program; "python3" is the Python that runs this program.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    command = ["sh", "entrypoint.sh", "--host=127.0.0.1", "--grpc-port=0", "--http-port=0", *OPTIONS]
    running = subprocess.Popen(
        command,
        cwd=folder,
        env={"PATH": path, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert running.stdout is not None
    server = Server(lambda: _told(server), lambda: running.poll() is None)
    reader = server.follow(iter(lambda: running.stdout.read1(65536), b""))
    try:
        yield server
    finally:
        running.terminate()
        try:
            running.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
        reader.join(timeout=STOP_SECONDS)


def _told(server: Server) -> tuple[int, int] | None:
    """Return the ports that the server's line of JSON tells."""
    for line in list(server.output):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            told = json.loads(line)
            return told["grpc_port"], told["http_port"]
    return None


@contextlib.contextmanager
def container(image: str, name: str, run_id: str, ports: dict[str, int], engine: str | None) -> Iterator[Server]:
    """Run the server's image as a container whose ports are published on free ports of this machine only.

    :param run_id: of this evaluate; a label of the container
    :param ports: {"grpc": …, "http": …} inside the container
    :param engine: the engine's address; ``DOCKER_HOST`` comes first
    :raises SystemExit: the engine refuses
    """
    with _client(engine) as client:
        remove_left_behind(client)
        published = {f"{port}/tcp": ("127.0.0.1", None) for port in ports.values()}
        try:
            made = client.containers.create(
                image, OPTIONS, name=name, labels={LABEL: run_id}, ports=published,
                auto_remove=True, read_only=True, cap_drop=["ALL"], security_opt=["no-new-privileges"],
            )  # fmt: skip
            # Attached before it starts: the output of a server that ends at once is gone with its container.
            attached = made.attach(stream=True, logs=True)
            server = Server(lambda: _published(made, ports), lambda: _runs(made))
            server.follow(attached)
            made.start()
            yield server
            with contextlib.suppress(docker.errors.DockerException):
                made.stop(timeout=STOP_SECONDS)
        except docker.errors.DockerException as error:
            sys.exit(f"The container {name} of the image {image} cannot be run: {_one_line(error)}.")
        finally:
            # By its label: a signal may come while the engine makes it, before this program knows it.
            for found in _containers(client, f"{LABEL}={run_id}"):
                remove(found)


@contextlib.contextmanager
def _client(engine: str | None) -> Iterator[docker.DockerClient]:
    address = os.environ.get("DOCKER_HOST") or engine or "unix:///var/run/docker.sock"
    try:
        client = docker.DockerClient(base_url=address, timeout=60)
        client.ping()
    except (docker.errors.DockerException, requests.RequestException, OSError):
        sys.exit(f"No container engine answers at {address}; start it, or set DOCKER_HOST.")
    with contextlib.closing(client):
        yield client


def remove_left_behind(client: docker.DockerClient) -> None:
    """Remove the containers of evaluate runs that have ended (of killed ones, that is)."""
    for found in _containers(client, LABEL):
        # A run of another tracking server is not ours to judge; its server ends by itself.
        with contextlib.suppress(MlflowException):
            if MlflowClient().get_run(found.attrs["Labels"][LABEL]).info.status != "RUNNING":
                print(f"Removing the container {found.attrs['Names'][0]} that a killed run left behind.", flush=True)
                remove(found)


def _containers(client: docker.DockerClient, label: str) -> list[Any]:
    # Sparse: without a second look at each one, which may be gone by then.
    return list(client.containers.list(all=True, filters={"label": label}, sparse=True))


def remove(made: Any) -> None:
    """Remove a container, running or not; if it is gone already, that is fine."""
    with contextlib.suppress(docker.errors.APIError):
        made.remove(force=True, v=True)


def _runs(made: Any) -> bool:
    try:
        made.reload()
    except docker.errors.APIError:  # it is gone; Podman may say so with status 500
        return False
    return made.status in ("created", "initialized", "running")


def _published(made: Any, ports: dict[str, int]) -> tuple[int, int] | None:
    found = [made.ports.get(f"{ports[kind]}/tcp") for kind in ("grpc", "http")]
    return (int(found[0][0]["HostPort"]), int(found[1][0]["HostPort"])) if all(found) else None


def _one_line(error: object) -> str:
    return " ".join(str(error).split()).rstrip(".")
