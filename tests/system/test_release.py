"""`make release`: the same bytes from another folder, and all that it promises; `make audit`."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.servers import free_port

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

# Stands for podman: an image with two packages.
ENGINE = r"""#!/bin/sh
case "$1" in
  image) echo sha256:0a1b ;;
  run) printf 'os\tdebian\t12\ndeb\tgit\t1:2.39-1\tamd64\npypi\tapache_airflow-3.3.2.dist-info\n' ;;
esac
"""
BUILD = """
import os, pathlib, sys
import release
os.umask(0o077)
source, out, epoch, sbom = map(pathlib.Path, sys.argv[1:])
release.build(source, out, str(epoch))
release.sbom_of_lock(source, out / sbom, str(epoch))
"""
VALIDATE = """
import pathlib, sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(pathlib.Path(sys.argv[1]).read_text())
assert error is None, error
"""


@dataclass(frozen=True)
class Release:
    """What ``make release`` made and said."""

    python: Path
    out: Path
    output: str

    def file(self, pattern: str) -> Path:
        (found,) = self.out.glob(pattern)
        return found


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    base = tmp_path_factory.mktemp("release")
    for name, text in {"podman": ENGINE, "docker": "#!/bin/sh\nexit 1\n"}.items():
        (base / name).write_text(text)
        (base / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{base}{os.pathsep}{os.environ['PATH']}"}
    command = ["make", "release", f"PYTHON={sys.executable}", f"OUT={base / 'dist'}"]
    (base / "dist").mkdir()
    (base / "dist" / "mlflow_projects_on_airflow-0.0.0.tar.gz").touch()  # of an earlier release
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return Release(ROOT / "build" / "release-env" / "bin" / "python", base / "dist", done.stdout)


def test_another_folder_with_other_times_and_modes_gives_the_same_bytes(release: Release, tmp_path: Path) -> None:
    source = tmp_path / "another name"
    tar = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        archive.extractall(source)
    for path in source.rglob("*"):
        path.chmod(0o700 if path.is_dir() else path.stat().st_mode & 0o700)
        os.utime(path, (1, 1_000_000_000))
    epoch = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=True)
    sbom = release.file("*.lock.cdx.json").name
    command = [release.python, "-c", BUILD, source, tmp_path / "out", epoch.stdout.strip(), sbom]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT / "tools")}, check=True)
    for again in (tmp_path / "out").iterdir():
        assert again.read_bytes() == (release.out / again.name).read_bytes(), again.name
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_a_release_is_complete(release: Release) -> None:
    name = release.file("*.whl").name.removesuffix("-py3-none-any.whl")
    parts = ["-py3-none-any.whl", ".image.cdx.json", ".lock.cdx.json", ".tar.gz"]
    assert sorted(file.name for file in release.out.iterdir()) == ["SHA256SUMS", *(name + part for part in parts)]
    assert (release.out / "SHA256SUMS").read_text().splitlines() == [
        f"{hashlib.sha256((release.out / (name + part)).read_bytes()).hexdigest()}  {name}{part}" for part in parts
    ]
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=release.out, check=True)
    assert (release.out / "SHA256SUMS").read_text() in release.output
    assert "Nothing was uploaded." in release.output
    assert "trusted publisher" in release.output
    # That of the lock was validated by cyclonedx-py.
    subprocess.run([release.python, "-c", VALIDATE, release.file("*.image.cdx.json")], check=True)


def test_the_sboms_name_every_pin_with_its_hashes_and_every_package_of_the_image(release: Release) -> None:
    lock = (ROOT / "requirements.txt").read_text()
    made = json.loads(release.file("*.lock.cdx.json").read_text())
    assert sorted(f"{part['name']}=={part['version']}" for part in made["components"]) == sorted(
        re.findall(r"^([^\s#]+==[^\s;]+)", lock, re.MULTILINE)
    )
    hashes = [entry["content"] for part in made["components"] for entry in part["externalReferences"][0]["hashes"]]
    assert sorted(hashes) == sorted(re.findall(r"--hash=sha256:(\w+)", lock))
    assert made["metadata"]["component"]["name"] == "mlflow-projects-on-airflow"

    image = json.loads(release.file("*.image.cdx.json").read_text())
    assert image["metadata"]["component"]["version"] == "sha256:0a1b"
    assert [part["purl"] for part in image["components"]] == [
        "pkg:pypi/apache-airflow@3.3.2",
        "pkg:deb/debian/git@1:2.39-1?arch=amd64&distro=debian-12",
    ]


def test_without_an_engine_a_line_says_what_is_not_made(release: Release, tmp_path: Path) -> None:
    code = "import pathlib, sys, release; print(release.sbom_of_image(pathlib.Path(sys.argv[1]), '0'), end='')"
    done = subprocess.run(
        [release.python, "-c", code, tmp_path / "image.json"],
        env={"PATH": str(tmp_path), "PYTHONPATH": str(ROOT / "tools")}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    (line,) = done.stdout.splitlines()
    assert line.startswith("No SBOM of the image: neither docker nor podman has mlflow-projects/airflow:latest; ")
    assert not (tmp_path / "image.json").exists()


class Service(http.server.BaseHTTPRequestHandler):
    """Answers as OSV does: ``zipp`` is known to be weak."""

    asked: set[str]

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = question["package"]["name"]
        self.asked.add(f"{name}=={question['version']}")
        found = [{"id": "OSV-MADE-UP", "summary": "too weak", "affected": []}] if name == "zipp" else []
        answer = json.dumps({"vulns": found} if found else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[str]:
    Service.asked = set()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/query"
        server.shutdown()


def audit(release: Release, url: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(home), "HOME": str(home)}
    command = [release.python, "tools/audit.py", "--url", url]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_an_audit_asks_about_every_pin_of_every_lock(release: Release, service: str, tmp_path: Path) -> None:
    done = audit(release, service, tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"^zipp +\S+ +OSV-MADE-UP", done.stdout, re.MULTILINE), done.stdout
    locks = [*ROOT.glob("requirements*.txt"), ROOT / "custom_images" / "airflow" / "requirements.txt"]
    pins = {pin for lock in locks for pin in re.findall(r"^([\w.-]+==[^\s;]+)", lock.read_text(), re.MULTILINE)}
    assert len(locks) == 5
    assert pins <= Service.asked


def test_an_audit_without_the_network_says_so_in_a_line(release: Release, tmp_path: Path) -> None:
    closed = f"http://127.0.0.1:{free_port()}/v1/query"
    done = audit(release, closed, tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"The vulnerability service {closed} cannot be asked, so nothing was audited: ")
