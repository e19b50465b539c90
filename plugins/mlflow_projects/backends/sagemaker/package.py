"""A project as one archive: the same files give the same bytes, so that S3 keeps one copy of each version."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mlflow_projects.exceptions import ProjectError

FILE_NAME = "project.tar.gz"
# Never part of a project: history, caches, and what Python or MLflow leave behind.
_LEFT_OUT = frozenset({".git", "__pycache__", ".venv", ".ipynb_checkpoints", "mlruns", ".DS_Store"})
_BLOCK = 2**20


@dataclass(frozen=True)
class Package:
    """A packed project.

    :param sha256: of the archive, in hexadecimal digits
    :param size: bytes of the archive
    :param files: how many files are in it
    """

    path: Path
    sha256: str
    size: int
    files: int


def pack(root: Path, target: Path, max_bytes: int) -> Package:
    """Write a project's files into a tar.gz file; memory stays flat whatever their size.

    ``.git`` and other folders that are no part of a project are left out. Owners, times and order are fixed.

    :param max_bytes: of the files together, before compression
    :raises ProjectError: the project is too big, or holds a link that leads outside or a device
    """
    total = files = 0
    with target.open("wb") as raw:
        hashing = _Hashing(raw)
        with (
            gzip.GzipFile(filename="", mode="wb", fileobj=hashing, mtime=0, compresslevel=5) as compressed,
            tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for path in _members(root):
                member = _member(root, path)
                total += member.size
                files += not member.isdir()
                if total > max_bytes:
                    raise ProjectError(
                        f"The project {root} holds more than {max_bytes // 2**20} MB, which backend_config "
                        "'max_project_mb' allows; keep data out of the project (a data channel or an artifact URI), "
                        "or raise the limit."
                    )
                if member.isreg():
                    with _opened(path) as file:
                        archive.addfile(member, file)
                else:
                    archive.addfile(member)
    return Package(path=target, sha256=hashing.digest.hexdigest(), size=target.stat().st_size, files=files)


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise ProjectError(f"{path} cannot be read: {error.strerror}.") from error


class _Hashing:
    """A file to write to that knows the digest of what went through."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _members(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        linked = [name for name in folders if (Path(folder) / name).is_symlink()]
        folders[:] = sorted(name for name in folders if name not in _LEFT_OUT and name not in linked)
        for name in sorted([*folders, *linked, *files]):
            if name not in _LEFT_OUT:
                yield Path(folder) / name


def _member(root: Path, path: Path) -> tarfile.TarInfo:
    information = path.lstat()
    member = tarfile.TarInfo(path.relative_to(root).as_posix())
    member.mode = 0o755 if information.st_mode & stat.S_IXUSR else 0o644
    if stat.S_ISLNK(information.st_mode):
        if _leads_out(root, path):
            raise ProjectError(
                f"{path} is a link that leads out of the project; put a copy of the file in its place."
            )
        member.type, member.linkname = tarfile.SYMTYPE, path.readlink().as_posix()
    elif stat.S_ISDIR(information.st_mode):
        member.type = tarfile.DIRTYPE
    elif stat.S_ISREG(information.st_mode):
        member.size = information.st_size
    else:
        raise ProjectError(f"{path} is neither a file nor a folder; a SageMaker job cannot take it.")
    return member


def _leads_out(root: Path, link: Path) -> bool:
    """Tell whether a link leads out of the project, or in a circle; where it leads may be missing."""
    try:
        target = link.resolve(strict=True)
    except (FileNotFoundError, NotADirectoryError):
        target = link.resolve()
    except (OSError, RuntimeError):
        return True
    return link.readlink().is_absolute() or not target.is_relative_to(root.resolve())
