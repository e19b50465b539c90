"""Images and settings for the stack on a machine that cannot pull images: Debian's podman, as root.

``python -m tests.stack.engine`` makes what tests/stack/podman.yaml names, from the base image of
tests/support/engine.py, and prints where podman's settings are. tools/compose.py runs it if ``DEBIAN_IMAGES=1``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mlflow_projects.file_lock import file_lock
from tests.support.engine import BASE_IMAGE, BASE_IMAGE_LOCK, base_image_archive

ROOT = Path(__file__).resolve().parents[2]
IMAGES = Path(__file__).parent / "images"
SETTINGS = ROOT / "build" / "stack" / "containers.conf"
_LABEL = "mlflow-projects.made-from"
# crun fails on a machine that has cgroups of both versions; the default limits may be above what is allowed here.
_CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
"""


def main() -> None:
    """Make what is missing."""
    SETTINGS.parent.mkdir(parents=True, exist_ok=True)
    SETTINGS.write_text(_CONTAINERS_CONF)
    os.environ["CONTAINERS_CONF"] = str(SETTINGS)
    with file_lock(BASE_IMAGE_LOCK):
        if not _exists(BASE_IMAGE):
            print(f"Making {BASE_IMAGE} with debootstrap (2 minutes) ...", flush=True)
            with base_image_archive() as archive:
                subprocess.run(["podman", "import", "--quiet", archive, BASE_IMAGE], check=True)
        for folder in sorted(path for path in IMAGES.iterdir() if path.is_dir()):
            _ensure(folder)


def _ensure(folder: Path) -> None:
    image = f"localhost/mlflow-projects-stack-{folder.name}:bookworm"
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(folder.iterdir()))).hexdigest()
    if _made_from(image) == digest:
        return
    print(f"Building {image} ...", flush=True)
    with tempfile.TemporaryDirectory(prefix="mlflow-projects-stack-") as name:
        context = Path(name) / "context"
        shutil.copytree(folder, context)
        if folder.name == "python":
            _add_pip_settings(context)
        if folder.name == "s3":
            shutil.copy(Path(sys.executable).parent / "weed", context)
        subprocess.run(
            ["podman", "build", "--quiet", "--label", f"{_LABEL}={digest}", "--tag", image, context], check=True
        )


def _add_pip_settings(context: Path) -> None:
    """Let pip and uv find in a container what they find on this machine."""
    shutil.copytree("/etc/ssl/certs", context / "certificates", symlinks=False)
    wheels = os.environ.get("PIP_FIND_LINKS", "")
    if wheels and Path(wheels).is_dir():
        shutil.copytree(wheels, context / "wheels")
    (context / "wheels").mkdir(exist_ok=True)
    (context / "wheels" / ".keep").touch()


def _exists(image: str) -> bool:
    return subprocess.run(["podman", "image", "exists", image], check=False).returncode == 0


def _made_from(image: str) -> str:
    command = ["podman", "image", "inspect", "--format", f'{{{{index .Labels "{_LABEL}"}}}}', image]
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
