"""The packed project: the same files, the same bytes; nothing from outside; flat memory."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from mlflow_projects.backends.sagemaker.package import pack
from mlflow_projects.exceptions import ProjectError

MB = 2**20
PLUGINS = Path(__file__).resolve().parents[4] / "plugins"
# Packs 300 MB and says by how much that raised the most memory that the process ever had (in KB).
FLAT = """
import resource, sys
from pathlib import Path
from mlflow_projects.backends.sagemaker.package import pack
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
package = pack(Path(sys.argv[1]), Path(sys.argv[2]), 2**30)
print(peak() - before, package.size)
"""


def write(root: Path, names: list[str] | None = None) -> Path:
    for name in names or ["MLproject", "train.py", "pkg/__init__.py", "pkg/données.txt", "pkg/deep/a.txt"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"content of {name}")
    return root


def members(path: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(path) as tar:
        return {member.name: member for member in tar}


def test_the_same_files_give_the_same_bytes_wherever_and_whenever(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a" / "project"), tmp_path / "another place"
    write(second, sorted((path.relative_to(first).as_posix() for path in first.rglob("*.*")), reverse=True))
    write(second, ["MLproject"])
    for number, path in enumerate([*second.rglob("*"), second]):
        os.utime(path, (number, 10**9 + number))
        if path.is_file():
            path.chmod(0o600)
        if os.geteuid() == 0:
            os.chown(path, 1234, 5678)
    packages = [pack(root, tmp_path / f"{root.name}.tar.gz", MB) for root in (first, second)]
    assert packages[0].sha256 == packages[1].sha256
    assert packages[0].path.read_bytes() == packages[1].path.read_bytes()
    assert (packages[0].files, packages[0].size) == (5, packages[0].path.stat().st_size)

    (second / "train.py").chmod(0o755)
    assert pack(second, tmp_path / "other.tar.gz", MB).sha256 != packages[0].sha256
    (second / "train.py").chmod(0o644)
    (second / "train.py").write_text("another content")
    assert pack(second, tmp_path / "other.tar.gz", MB).sha256 != packages[0].sha256


def test_history_and_caches_stay_behind_and_modes_come_along(tmp_path: Path) -> None:
    root = write(tmp_path / "project", ["run.sh", "MLproject", "sub/.gitignore", "empty/x"])
    write(root, [".git/config", "sub/__pycache__/m.pyc", ".venv/bin/python", "mlruns/0/meta.yaml", "sub/.DS_Store"])
    write(root, ["submodule/.git"])  # a file there
    (root / "empty" / "x").unlink()
    (root / "run.sh").chmod(0o744)
    (root / "a link").symlink_to("sub/.gitignore")
    (root / "sub" / "back").symlink_to("../sub")  # to a folder, in a circle
    (root / "sub" / "nowhere").symlink_to("missing.txt")
    found = members(pack(root, tmp_path / "p.tar.gz", MB).path)
    assert set(found) == {
        "MLproject", "run.sh", "a link", "sub", "sub/.gitignore", "sub/back", "sub/nowhere", "empty", "submodule",
    }  # fmt: skip
    assert (found["run.sh"].mode, found["MLproject"].mode) == (0o755, 0o644)
    assert (found["a link"].linkname, found["sub/back"].linkname) == ("sub/.gitignore", "../sub")
    assert all((entry.mtime, entry.uid, entry.uname) == (0, 0, "") for entry in found.values())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: path.symlink_to("../secret"), "leads out of the project"),
        (lambda path: path.symlink_to(path.with_name("MLproject")), "leads out of the project"),  # absolute
        (lambda path: path.symlink_to("/etc"), "leads out of the project"),
        (lambda path: path.symlink_to(path.name), "leads out of the project"),  # to itself
        (os.mkfifo, "neither a file nor a folder"),
    ],
    ids=["outward", "absolute", "a folder elsewhere", "a loop", "a pipe"],
)
def test_what_cannot_travel_is_refused(tmp_path: Path, make, sentence: str) -> None:
    root = write(tmp_path / "project")
    (tmp_path / "secret").write_text("s")
    make(root / "odd")
    with pytest.raises(ProjectError, match=f"odd .*{sentence}"):
        pack(root, tmp_path / "p.tar.gz", MB)


def test_the_limit_counts_the_files_before_compression(tmp_path: Path) -> None:
    root = write(tmp_path / "project", ["MLproject"])
    (root / "data").write_bytes(b"\0" * MB)
    with pytest.raises(ProjectError, match="more than 1 MB, which backend_config 'max_project_mb' allows"):
        pack(root, tmp_path / "p.tar.gz", MB)
    (root / "MLproject").unlink()
    assert pack(root, tmp_path / "p.tar.gz", MB).size < MB // 100


def test_memory_stays_flat(tmp_path: Path) -> None:
    root = write(tmp_path / "project", ["MLproject"])
    with (root / "big").open("wb") as file:
        file.truncate(300 * MB)
    done = subprocess.run(
        [sys.executable, "-c", FLAT, root, tmp_path / "p.tar.gz"],
        env={**os.environ, "PYTHONPATH": str(PLUGINS)},
        capture_output=True,
        text=True,
        check=True,
    )
    grown, size = map(int, done.stdout.split())
    assert grown < 8 * 1024, "KB"
    assert size < 2 * MB
