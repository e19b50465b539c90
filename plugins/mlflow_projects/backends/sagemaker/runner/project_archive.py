"""The project's archive: never written outside of its folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from pathlib import Path

from .errors import BAD_ARCHIVE, RunnerError

MAX_BYTES, MAX_MEMBERS = 50 * 2**30, 1_000_000  # of the unpacked project


def unpack(archive: Path, sha256: str, folder: Path) -> int:
    """Unpack the project into a folder; return how many members it has.

    Links are made last and looked at together, so that nothing is ever written through one and no two of them
    add up to a way out.
    """
    try:
        digest = hashlib.sha256()
        with archive.open("rb") as stream:
            while True:
                block = stream.read(2**20)
                if not block:
                    break
                digest.update(block)
        if sha256 and digest.hexdigest() != sha256:
            raise _bad(f"its SHA-256 is {digest.hexdigest()}, not {sha256}: it was changed or cut on its way")
        folder.mkdir(parents=True)
        links: dict[Path, str] = {}
        members = size = 0
        with tarfile.open(str(archive), "r:gz") as tar:
            for member in tar:
                members, size = members + 1, size + max(member.size, 0)
                if members > MAX_MEMBERS or size > MAX_BYTES:
                    raise _bad(f"it holds more than {MAX_MEMBERS} files or {MAX_BYTES} bytes")
                _extract(tar, member, folder, links)
        for path, target in links.items():
            path.symlink_to(target)
        root = folder.resolve()
        for path in links:
            if root != path.resolve() and root not in path.resolve().parents:
                raise _bad(f"the link {str(path.relative_to(folder))!r} leads out of it")
        return members
    except (OSError, EOFError, ValueError, RuntimeError, tarfile.TarError) as error:
        raise _bad(str(error)) from None


def _bad(reason: str) -> RunnerError:
    return RunnerError(BAD_ARCHIVE, f"The project's archive cannot be used: {reason}.")


def _place(folder: Path, name: str) -> Path:
    """Return where a member of the archive goes."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise _bad(f"its member {name!r} would land outside")
    return folder.joinpath(*parts)


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, links: dict[Path, str]) -> None:
    path = _place(folder, member.name)
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if member.issym():
        links[path] = member.linkname
    elif member.islnk():
        os.link(str(_place(folder, member.linkname)), str(path))
    elif member.isfile():
        source = tar.extractfile(member)
        assert source is not None
        with source, path.open("wb") as sink:
            shutil.copyfileobj(source, sink, 2**20)
        path.chmod(member.mode & 0o777 | 0o600)
    else:
        raise _bad(f"its member {member.name!r} is neither a file, a folder nor a link")
