"""Projects in zip files, local or downloaded, unpacked safely."""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.cache import Cache

MAX_UNPACKED_BYTES = 10 * 2**30
_CHUNK = 2**20
# What zipfile raises for damaged or encrypted files, and writing for members that stand in each other's way.
_UNUSABLE = (
    zipfile.BadZipFile,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    RuntimeError,
    ValueError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
)


@dataclass(frozen=True)
class Archive:
    """An unpacked zip file.

    :param sha256: of the zip file, in hexadecimal digits
    """

    root: Path
    sha256: str


@contextlib.contextmanager
def unpacked(uri: str, local: Path | None, cache: Cache) -> Iterator[Archive]:
    """Yield a zip file's files in a shared folder; it is to be read only, and stays during the block.

    :param uri: the file's http(s) URL, if it is not local
    :param local: the file's path, if it is local
    :raises ProjectError: no such file, not a zip file, or one that would write outside its folder
    """
    with contextlib.ExitStack() as stack:
        file = local or _download(uri, stack.enter_context(cache.workspace()) / "project.zip")
        digest = _sha256(uri, file)
        root = stack.enter_context(cache.entry("zips", digest, lambda folder: _unpack(uri, file, folder)))
        yield Archive(root=root, sha256=digest)


def _download(url: str, target: Path) -> Path:
    import httpx

    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=60) as answer, target.open("wb") as file:
            answer.raise_for_status()
            for chunk in answer.iter_bytes(_CHUNK):
                file.write(chunk)
    except httpx.HTTPStatusError as error:
        raise ProjectError(f"{url} cannot be downloaded: HTTP {error.response.status_code}.") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ProjectError(f"{url} cannot be downloaded: {error}.") from error
    return target


def _sha256(uri: str, file: Path) -> str:
    digest = hashlib.sha256()
    try:
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise ProjectError(f"The project {uri} cannot be read: {error.strerror}.") from error
    return digest.hexdigest()


def _unpack(uri: str, file: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            # A repository is no part of a project, and its settings are not to be trusted.
            members = [one for one in archive.infolist() if ".git" not in map(str.lower, _path(one).parts)]
            for member in members:
                _check_member(uri, member)
            total = sum(member.file_size for member in members)
            if total > MAX_UNPACKED_BYTES:
                raise ProjectError(f"{uri} unpacks to {total} bytes; at most {MAX_UNPACKED_BYTES} are taken.")
            folder.mkdir(parents=True)
            for member in members:
                _extract(archive, member, folder)
    except _UNUSABLE as error:
        raise ProjectError(f"{uri} is not a usable zip file: {error}.") from error


def _path(member: zipfile.ZipInfo) -> PurePosixPath:
    return PurePosixPath(member.filename.replace("\\", "/"))


def _check_member(uri: str, member: zipfile.ZipInfo) -> None:
    path = _path(member)
    if path.is_absolute() or ".." in path.parts or ":" in (path.parts or ("",))[0]:
        raise ProjectError(f"{uri} holds the file {member.filename!r}, which would land outside; not unpacked.")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ProjectError(f"{uri} holds {member.filename!r}, a link or device; not unpacked.")


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> None:
    target = folder / member.filename
    if member.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, _CHUNK)
    if mode := (member.external_attr >> 16) & 0o777:  # zipfile itself forgets that a script is executable
        target.chmod(mode | stat.S_IRUSR | stat.S_IWUSR)
