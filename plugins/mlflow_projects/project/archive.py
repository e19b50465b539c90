"""Projects in zip files, local or downloaded, unpacked safely."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import lzma
import re
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.cache import Cache

MAX_UNPACKED_BYTES = 10 * 2**30
MAX_RATIO = 200  # of what is more than the following
_SURELY_FINE_BYTES = 100 * 2**20
MAX_MEMBERS = 200_000
MAX_DIRECTORY_BYTES = 32 * 2**20  # of the list of members
MAX_NAME_BYTES = 255  # Linux, for each part
MAX_PATH_BYTES = 3_000  # Linux takes 4,096 with the folder in which it is unpacked
MAX_FOLDERS = 100
_LEAST_ENTRY_BYTES = 46  # of a member in the list
_ENTRY = b"PK\1\2"  # how each begins
MAX_SECONDS = 3600.0  # of a download
_CHUNK = 2**20
_SMALL_CHUNK = 64
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
    struct.error,
    OverflowError,
    MemoryError,
)
_ERRNOS = (None, errno.EINVAL, errno.ENAMETOOLONG, errno.ELOOP)  # None: bzip2's own


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

    deadline = time.monotonic() + MAX_SECONDS
    # What a server packed would be unpacked without a limit, layer by layer.
    headers = {"Accept-Encoding": "identity"}
    try:
        with (
            httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=60) as answer,
            target.open("wb") as file,
        ):
            answer.raise_for_status()
            encoding = answer.headers.get("Content-Encoding", "identity").strip()
            if encoding.lower() not in ("", "identity"):
                raise ProjectError(
                    f"{url} is sent with Content-Encoding: {encoding[:50]}, though it was not asked for; let the "
                    "server send the zip file as it is."
                )
            size = 0
            for chunk in answer.iter_raw():  # as they come: who waits for whole ones may miss the deadline
                if time.monotonic() > deadline:
                    raise ProjectError(f"{url} is not downloaded after {MAX_SECONDS:g} seconds; use a faster server.")
                size += len(chunk)
                if size > MAX_UNPACKED_BYTES:
                    raise ProjectError(f"{url} has more than {MAX_UNPACKED_BYTES} bytes; not downloaded.")
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
        with _BoundedFile(file) as stream, zipfile.ZipFile(stream) as archive:
            # A repository is no part of a project, and its settings are not to be trusted.
            members = [one for one in archive.infolist() if ".git" not in map(str.lower, _path(one).parts)]
            for member in members:
                _check_member(uri, member)
            _check_all(uri, members, file.stat().st_size)
            folder.mkdir(parents=True)
            for member in members:
                _extract(stream, archive, member, folder)
    except _UNUSABLE as error:
        raise ProjectError(f"{uri} is not a usable zip file: {error}.") from error
    except OSError as error:
        if error.errno not in _ERRNOS:
            raise
        raise ProjectError(f"{uri} is not a usable zip file: {error.strerror or error}.") from error


class _BoundedFile(io.FileIO):
    """A zip file of which nobody reads much at once: its list of members is read as a whole.

    :param most: how many bytes it gives at once, though more are asked for
    """

    most: int | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        size = -1 if size is None else size
        if size > MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"its list of members has {size} bytes; at most {MAX_DIRECTORY_BYTES} are read")
        content = super().read(size if self.most is None else min(size, self.most))
        # Of a list that may hold too many, before zipfile makes an object of each.
        if size >= MAX_MEMBERS * _LEAST_ENTRY_BYTES and (count := content.count(_ENTRY)) > MAX_MEMBERS:
            raise zipfile.BadZipFile(f"it holds {count} members; at most {MAX_MEMBERS} are unpacked")
        return content


def _path(member: zipfile.ZipInfo) -> PurePosixPath:
    return PurePosixPath(member.filename.replace("\\", "/"))


def _check_member(uri: str, member: zipfile.ZipInfo) -> None:
    path, name = _path(member), member.filename
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:($|[\\/])", name):
        raise ProjectError(f"{uri} holds the file {name[:100]!r}, which would land outside; not unpacked.")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ProjectError(f"{uri} holds {name[:100]!r}, a link or device; not unpacked.")
    problem = None
    if "\0" in member.orig_filename or (not path.parts and not name.endswith("/")):
        problem = "a file with no name, or a NUL character in it"
    elif len(name.encode()) > MAX_PATH_BYTES or any(len(part.encode()) > MAX_NAME_BYTES for part in name.split("/")):
        most = f"{MAX_NAME_BYTES} bytes for each part, and {MAX_PATH_BYTES} in all"
        problem = f"the name {name[:50]!r}…, which is too long (at most {most})"
    elif len(path.parts) > MAX_FOLDERS:
        problem = f"{name[:50]!r}…, within more than {MAX_FOLDERS} folders"
    elif member.flag_bits & 1:
        problem = f"{name[:100]!r}, which is encrypted"
    if problem:
        raise ProjectError(f"{uri} is not a usable zip file: it holds {problem}.")


def _check_all(uri: str, members: Sequence[zipfile.ZipInfo], packed: int) -> None:
    """Check what members are together: their size, and that none stands in another's way."""
    problem = None
    total = sum(member.file_size for member in members)
    if total > MAX_UNPACKED_BYTES:
        raise ProjectError(f"{uri} unpacks to {total} bytes; at most {MAX_UNPACKED_BYTES} are taken.")
    if total > max(_SURELY_FINE_BYTES, packed * MAX_RATIO):
        raise ProjectError(f"{uri} unpacks to {total} bytes, more than {MAX_RATIO} times its own size; not unpacked.")
    files: set[PurePosixPath] = set()
    folders: set[PurePosixPath] = set()
    for member in members:
        path = PurePosixPath(member.filename)
        if not member.is_dir():
            if path in files:
                problem = f"the file {member.filename[:100]!r} twice"
            files.add(path)
        for above in (path, *path.parents) if member.is_dir() else path.parents:
            if above in folders:
                break
            folders.add(above)
    if both := files & folders:
        problem = f"{str(min(both))[:100]!r} as a file and as a folder"
    if problem:
        raise ProjectError(f"{uri} is not a usable zip file: it holds {problem}.")


def _extract(stream: _BoundedFile, archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> None:
    target = folder / member.filename
    if member.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("wb") as sink:
        if member.compress_type in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
            # zipfile unpacks at once all that it reads of these: 4 KiB of bzip2 may become gigabytes.
            stream.most = _SMALL_CHUNK
        try:
            while chunk := source.read(_CHUNK):
                sink.write(chunk)
        finally:
            stream.most = None
    if mode := (member.external_attr >> 16) & 0o777:  # zipfile itself forgets that a script is executable
        target.chmod(
            (mode | stat.S_IRUSR | stat.S_IWUSR) & ~(stat.S_IWGRP | stat.S_IWOTH)
        )  # others may read the cache
