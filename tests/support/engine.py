"""A real Docker-compatible engine for tests, and a base image without a registry.

How to use it: take the fixture ``engine`` (tests/conftest.py) in any test. It sets ``DOCKER_HOST``, so that the
library, the ``docker`` SDK and the ``docker`` program all reach the engine; a task that the test starts inherits
it. Take ``base_image`` too where an image is needed: it returns the name of a Debian 12 image with python3,
python3-venv, python3-pip and ca-certificates, for ``docker_image``, or for ``--build-arg BASE_IMAGE=…``::

    def test_something(engine: Engine, base_image: str) -> None:
        engine.client().containers.run(base_image, ["true"], remove=True)
        assert engine.leftovers() == []

    def test_build(engine: Engine, base_image: str) -> None:
        engine.client().images.build(path=…, tag="localhost/mine:1", buildargs={"BASE_IMAGE": base_image})

With podman, each test process has an engine and a store of its own (so ``leftovers`` sees nothing of other
processes, and images that a test builds are gone with the process); only the base image is shared: it stays in
podman's own store across test runs. Images have no MLflow; a test that needs it mounts the test environment's
packages: ``volumes: ["<engine.PACKAGES>:/opt/packages:ro"]`` and ``PYTHONPATH=/opt/packages``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mlflow_projects.file_lock import file_lock
from tests.support.servers import free_port
from tests.support.waiting import wait_for_server

# A test that has it runs on podman, and in the night on Docker too.
on_both_engines = pytest.mark.parametrize(
    "engine_server", ["podman", pytest.param("docker", marks=pytest.mark.nightly)], indirect=True, scope="session"
)
BASE_IMAGE = "localhost/mlflow-projects-base:bookworm"
BASE_IMAGE_LOCK = Path(tempfile.gettempdir()) / "mlflow-projects-base-image.lock"
PACKAGES = sysconfig.get_paths()["purelib"]
_DEBIAN_PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
_SOCKETS = ("/var/run/docker.sock", "/run/podman/podman.sock")
# crun fails on a machine that has cgroups of both versions; the default limits may be above what is allowed here.
_CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
tmp_dir = "{folder}/tmp"
[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
"""
_REGISTRIES_CONF = """\
unqualified-search-registries = []
[[registry]]
location = "{registry}"
insecure = true
"""
_STORAGE_CONF = """\
[storage]
driver = "overlay"
graphroot = "{folder}/store"
runroot = "{folder}/run"
[storage.options]
additionalimagestores = ["{shared}"]
"""


@dataclass
class Engine:
    """A running engine.

    :param environment: the variables with which any client reaches it
    :param podman: variables for the program podman itself; {} if the engine is another one
    :param registry: an address where a test may run a registry without TLS
    """

    environment: dict[str, str]
    podman: dict[str, str] = field(default_factory=dict)
    registry: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")
    _before: frozenset[str] = frozenset()

    def client(self) -> Any:
        """Return a client of the docker SDK."""
        import docker

        return docker.DockerClient(base_url=self.environment["DOCKER_HOST"], timeout=600)

    def leftovers(self) -> list[str]:
        """Return the containers (also stopped ones) and volumes that were made since the engine began."""
        return sorted(_everything(self) - self._before)


def _everything(engine: Engine) -> frozenset[str]:
    with contextlib.closing(engine.client()) as client:
        containers = {f"container {found.name}" for found in client.containers.list(all=True, ignore_removed=True)}
        return frozenset(containers | {f"volume {found.name}" for found in client.volumes.list()})


@contextlib.contextmanager
def running_engine(kind: str = "podman") -> Iterator[Engine]:
    """Run podman's service or a dockerd on a private socket, or take the engine that answers; else skip the test."""
    if kind == "docker":
        if not (shutil.which("dockerd") and os.getuid() == 0):
            pytest.skip("no Docker engine: install docker.io (and be root)")
        with _running_docker() as engine:
            yield engine
        return
    if shutil.which("podman") and shutil.which("runc") and os.getuid() == 0:
        with _running_podman() as engine:
            yield engine
        return
    for host in (os.environ.get("DOCKER_HOST"), *(f"unix://{path}" for path in _SOCKETS if Path(path).exists())):
        if host and _answers(engine := Engine({"DOCKER_HOST": host})):
            engine._before = _everything(engine)
            yield engine
            return
    pytest.skip("no container engine: install podman and runc (and be root), or start Docker")


@contextlib.contextmanager
def _running_podman() -> Iterator[Engine]:
    folder = Path(tempfile.mkdtemp(prefix="mlflow-projects-engine-"))  # short: a socket's path has 107 characters
    shared = subprocess.run(
        ["podman", "info", "--format", "{{.Store.GraphRoot}}"],
        check=True,
        capture_output=True,
        text=True,
        timeout=600,
    ).stdout.strip()
    (folder / "containers.conf").write_text(_CONTAINERS_CONF.format(folder=folder))
    (folder / "storage.conf").write_text(_STORAGE_CONF.format(folder=folder, shared=shared))
    own = {
        f"CONTAINERS_{name}": f"{folder}/{file}.conf"
        for name, file in (("CONF", "containers"), ("STORAGE_CONF", "storage"), ("REGISTRIES_CONF", "registries"))
    }
    engine = Engine({"DOCKER_HOST": f"unix://{folder}/engine.sock"}, podman=own)
    (folder / "registries.conf").write_text(_REGISTRIES_CONF.format(registry=engine.registry))
    with (folder / "service.log").open("wb") as log:
        process = subprocess.Popen(
            ["podman", "system", "service", "--time=0", engine.environment["DOCKER_HOST"]],
            env={**os.environ, **own},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for_server(lambda: _answers(engine), process, "podman's service", folder / "service.log")
        yield engine
    finally:
        subprocess.run(
            ["podman", "rm", "--all", "--force", "--volumes", "--time=0"],
            env={**os.environ, **own}, capture_output=True, check=False, timeout=600,
        )  # fmt: skip
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        _unmount_below(folder)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _running_docker() -> Iterator[Engine]:
    """Run Docker's own engine, on a bridge of its own and without firewall rules, so that it is in nobody's way.

    Ports that a container publishes are reached through Docker's proxy, which needs no rules.
    """
    import docker

    folder = Path(tempfile.mkdtemp(prefix="mlflow-projects-docker-"))
    engine = Engine({"DOCKER_HOST": f"unix://{folder}/engine.sock"})
    bridge = f"mlprojects{os.getpid() % 100_000}"
    _ip("link", "add", bridge, "type", "bridge")
    _ip("address", "add", f"10.213.{os.getpid() % 250}.1/24", "dev", bridge)
    _ip("link", "set", bridge, "up")
    command = [
        "dockerd", "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid",
        "--host", engine.environment["DOCKER_HOST"], f"--bridge={bridge}", "--iptables=false", "--ip6tables=false",
        "--ip-masq=false", "--ip-forward=false", "--default-ulimit", "nofile=1024:1024",
    ]  # fmt: skip
    with (folder / "service.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for_server(lambda: _answers(engine), process, "Docker's engine", folder / "service.log")
        yield engine
        with contextlib.closing(engine.client()) as client:
            for container in client.containers.list(all=True, ignore_removed=True):
                with contextlib.suppress(docker.errors.APIError):  # one that removes itself
                    container.remove(force=True)
    finally:
        process.terminate()  # it ends its containerd too
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        subprocess.run(["ip", "link", "delete", bridge], capture_output=True, check=False)
        _unmount_below(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _unmount_below(folder: Path) -> None:
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((path for path in mounted if path.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "--lazy", mount], capture_output=True, check=False)


@contextlib.contextmanager
def running_registry(engine: Engine, folder: Path, name: str) -> Iterator[str]:
    """Serve one image at the engine's registry address; yield what it is called there.

    :param folder: what ``podman push IMAGE dir:FOLDER`` wrote
    """

    class Registry(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            file = folder / ("manifest.json" if "/manifests/" in self.path else self.path.rpartition(":")[2])
            known = self.path == "/v2/" or (self.path.startswith(f"/v2/{name}/") and file.is_file())
            content = b"{}" if known else b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'
            if known and file.is_file():
                content = file.read_bytes()
            self.send_response(200 if known else 404)
            if known and file.name == "manifest.json":
                self.send_header("Content-Type", json.loads(content)["mediaType"])
                self.send_header("Docker-Content-Digest", f"sha256:{hashlib.sha256(content).hexdigest()}")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    host, _, port = engine.registry.partition(":")
    server = ThreadingHTTPServer((host, int(port)), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"{engine.registry}/{name}:1"
    finally:
        server.shutdown()
        server.server_close()


def _answers(engine: Engine) -> bool:
    import docker
    import requests

    try:
        with contextlib.closing(engine.client()) as client:
            return bool(client.ping())
    except (docker.errors.DockerException, requests.RequestException, OSError):
        return False


def ensure_base_image(engine: Engine) -> str:
    """Make the base image if this machine does not have it (about 2 minutes, with network); return its name."""
    with file_lock(BASE_IMAGE_LOCK):
        if not _has_base_image(engine):
            if not shutil.which("debootstrap") or os.getuid() != 0:
                pytest.skip(f"the image {BASE_IMAGE} is missing, and to make it takes debootstrap, as root")
            _make_base_image(engine)
    return BASE_IMAGE


def _has_base_image(engine: Engine) -> bool:
    import docker

    try:
        with contextlib.closing(engine.client()) as client:
            client.images.get(BASE_IMAGE)
    except docker.errors.ImageNotFound:
        return False
    return True


def _make_base_image(engine: Engine) -> None:
    if not engine.podman and shutil.which("podman") and _copied_from_podman(engine):
        return
    with base_image_archive() as archive:
        if engine.podman:  # into the machine's own store, not into the test process's
            subprocess.run(["podman", "import", archive, BASE_IMAGE], check=True, capture_output=True, timeout=1800)
            return
        repository, _, tag = BASE_IMAGE.rpartition(":")
        with contextlib.closing(engine.client()) as client:
            client.api.import_image_from_file(str(archive), repository=repository, tag=tag)


def _copied_from_podman(engine: Engine) -> bool:
    """Copy the base image from podman's own store; tell whether it is there."""
    save = ["podman", "save", "--format", "docker-archive", BASE_IMAGE]
    with tempfile.TemporaryFile() as archive, contextlib.closing(engine.client()) as client:
        if subprocess.run(save, stdout=archive, stderr=subprocess.DEVNULL, check=False, timeout=1800).returncode:
            return False
        archive.seek(0)
        client.images.load(archive)
    return True


@contextlib.contextmanager
def base_image_archive() -> Iterator[Path]:
    """Make the tree of the base image with debootstrap; yield its archive."""
    with tempfile.TemporaryDirectory(prefix="mlflow-projects-base-") as name:
        tree, archive = Path(name) / "tree", Path(name) / "tree.tar"
        include = f"--include={_DEBIAN_PACKAGES}"
        for command in (
            ["debootstrap", "--variant=minbase", include, "bookworm", str(tree)],
            ["tar", "--one-file-system", "-C", str(tree), "-cf", str(archive), "."],
        ):  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        yield archive
