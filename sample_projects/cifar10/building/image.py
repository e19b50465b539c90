"""Build the server's image through whichever Docker-compatible engine answers (Docker, Podman)."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import docker
import requests

TIMEOUT = 900  # seconds for one request to the engine
_ABOUT_PYTHON = (
    "import json, platform as p; print(json.dumps([p.python_version(), p.machine(), p.libc_ver()[1] or '2.17']))"
)


class UnavailableError(Exception):
    """No engine answers, or it cannot get the base image; the sentence says which."""


@contextlib.contextmanager
def engine() -> Iterator[tuple[docker.DockerClient, str]]:
    """Yield a client of the first engine that answers, and the engine's address.

    Only ``DOCKER_HOST`` is tried if it is set, else the usual sockets.

    :raises UnavailableError: none answers
    """
    addresses = _addresses()
    for address in addresses:
        with contextlib.suppress(docker.errors.DockerException, requests.RequestException, OSError):
            client = docker.DockerClient(base_url=address, timeout=TIMEOUT)
            client.ping()
            break
    else:
        raise UnavailableError(f"No container engine answers (tried {', '.join(addresses)}).")
    with contextlib.closing(client):
        yield client, address


def _addresses() -> list[str]:
    if named := os.environ.get("DOCKER_HOST"):
        return [named]
    own = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    sockets = ("/var/run/docker.sock", f"{own}/docker.sock", "/run/podman/podman.sock", f"{own}/podman/podman.sock")
    return [f"unix://{path}" for path in sockets]


def require(client: docker.DockerClient, name: str) -> None:
    """Get the base image if the engine does not have it.

    :raises UnavailableError: it cannot be got
    """
    try:
        client.images.get(name)
        return
    except docker.errors.ImageNotFound:
        print(f"The engine gets the base image {name} ...", flush=True)
    try:
        client.images.pull(name)
    except docker.errors.DockerException as error:
        raise UnavailableError(f"The engine cannot get the base image {name}: {_one_line(error)}.") from None


def build(
    client: docker.DockerClient, dockerfile: Path, server: Path, name: str, settings: Mapping[str, str]
) -> dict[str, str]:
    """Build an image; return its name and id.

    :param server: the folder that becomes ``server/`` of the context; its ``requirements.txt`` is what is installed
    :param settings: what the Dockerfile's ``ARG`` lines get, ``BASE_IMAGE`` among them
    :raises SystemExit: the build fails
    """
    base = settings["BASE_IMAGE"]
    with tempfile.TemporaryDirectory() as temporary:
        wheels = Path(temporary) / "wheels"
        download_wheels(server / "requirements.txt", wheels, *_python_of(client, base))
        context = _context(dockerfile, server, wheels)
    print(f"Building the image {name} from {base} ...", flush=True)
    with context:
        steps = client.api.build(
            fileobj=context, custom_context=True, tag=name, buildargs=dict(settings),
            rm=True, forcerm=True, decode=True, timeout=TIMEOUT,
        )  # fmt: skip
        for step in steps:
            print(step.get("stream", ""), end="", flush=True)
            if "error" in step:
                sys.exit(f"The image {name} cannot be built: {_one_line(step['error'])}")
    return {"name": name, "id": client.images.get(name).id}


def _python_of(client: docker.DockerClient, base: str) -> tuple[str, str, str]:
    """Return the version of the base image's Python, its machine and its glibc."""
    try:
        answer = client.containers.run(base, ["-c", _ABOUT_PYTHON], entrypoint="python3", remove=True)
    except docker.errors.DockerException as error:
        sys.exit(f"The base image {base} has no python3 that runs: {_one_line(error)}")
    version, machine, glibc = json.loads(answer)
    return version, machine, glibc


def download_wheels(requirements: Path, folder: Path, python: str, machine: str, glibc: str) -> None:
    """Download wheels for the Python of the base image, with the pip settings of this machine.

    So the build needs no network, and no credential of a package index comes near the image or its history.

    :raises SystemExit: pip fails
    """
    newest = int(glibc.split(".")[1])
    platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in range(newest, 4, -1)]
    platforms += [f"--platform={name}_{machine}" for name in ("manylinux2014", "manylinux2010", "manylinux1")]
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
        f"--python-version={python}", *platforms, f"--dest={folder}", f"--requirement={requirements}",
    ]  # fmt: skip
    print(f"Downloading the server's packages for Python {python} on {machine} ...", flush=True)
    if subprocess.run(command, check=False).returncode:
        sys.exit("The server's packages cannot be downloaded; pip's message is above.")


def _context(dockerfile: Path, server: Path, wheels: Path) -> io.BufferedRandom:
    """Return the build context as a tar file; without times and owners, so that the engine's cache knows it again."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.mtime = member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    file = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.add(dockerfile, "Dockerfile", filter=plain)
        tar.add(server / "requirements.txt", "requirements.txt", filter=plain)
        tar.add(server, "server", filter=plain)
        tar.add(wheels, "wheels", filter=plain)
    file.seek(0)
    return file


def _one_line(error: object) -> str:
    return " ".join(str(error).split()).rstrip(".")
