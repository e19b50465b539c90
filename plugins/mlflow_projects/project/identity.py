"""What a folder contains, as one hash: the same for the same content, wherever and whenever it was made.

The hash says nothing of time stamps, owners or the folder's own name. A folder, a git checkout and a zip
file with the same files have the same hash; so has the same tree at another commit.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project import local_repository

_CHUNK = 2**20
_MAX_LEVELS = 20  # of repositories within each other
# Python writes there while a project runs; nobody means it as content, tracked or not.
_NEVER = (b".git", b"__pycache__")


def tree_hash(root: Path, trusted_dirs: Sequence[Path] = ()) -> str:
    """Return the hash of a project's folder: names, contents, executable bits and the targets of links.

    Files that git ignores do not count, nor do ``.git``, ``__pycache__`` and empty folders. The rules of
    ``.gitignore`` hold in a folder outside of any repository too, if git is installed.

    :param trusted_dirs: as in :func:`mlflow_projects.project.local_repository.find`
    :raises ProjectError: a file cannot be read, or repositories lie too deeply within each other
    """
    return _tree_hash(root, trusted_dirs, 0)


def path_hash(path: Path) -> str:
    """Return the hash of a file, or of a folder with all that is in it, ignored by git or not.

    :raises ProjectError: a file cannot be read
    """
    if path.is_dir():
        return _hash_of(os.fsencode(path), _walked(os.fsencode(path), never=()))
    return _hash_of(os.fsencode(path.parent), [os.fsencode(path.name)], with_names=False)


def copy_tree(root: Path, to: Path) -> None:
    """Copy of a folder what :func:`tree_hash` counts, so that no file is used that does not count.

    Also ``.git``, of which a package may take its version. Pipes and sockets are left out.
    """
    names = {Path(os.fsdecode(name)) for name in _listed(root, ())}
    kept = {folder for name in names for folder in (name, *name.parents)}

    def left_out(base: str, entries: list[str]) -> list[str]:
        inner = Path(base).relative_to(root)
        is_whole = ".git" in inner.parts or not names.isdisjoint((inner, *inner.parents))  # a repository inside
        return [
            entry
            for entry in entries
            if not (is_whole or entry == ".git" or inner / entry in kept) or _is_special(Path(base, entry))
        ]

    shutil.copytree(root, to, symlinks=True, ignore=left_out)


def _is_special(path: Path) -> bool:
    mode = path.lstat().st_mode
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))


def _tree_hash(root: Path, trusted_dirs: Sequence[Path], level: int) -> str:
    if level > _MAX_LEVELS:
        raise ProjectError(f"{root} is a git repository within {level} others; at most {_MAX_LEVELS} are entered.")
    return _hash_of(os.fsencode(root), _listed(root, trusted_dirs), trusted_dirs, level)


def _hash_of(
    root: bytes,
    names: Iterable[bytes],
    trusted_dirs: Sequence[Path] = (),
    level: int = 0,
    *,
    with_names: bool = True,
) -> str:
    digest = hashlib.sha256()
    for name in sorted(set(names)):
        path = os.path.join(root, name)  # noqa: PTH118  (names may be no text)
        try:
            kind, content = _content(path, trusted_dirs, level)
        except FileNotFoundError:  # tracked, but deleted from the work tree
            continue
        except OSError as error:
            raise ProjectError(f"{os.fsdecode(path)} cannot be read: {error.strerror}.") from error
        for part in (name if with_names else b"", kind, content):
            # Each part after its length: no two lists of parts are written alike.
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _content(path: bytes, trusted_dirs: Sequence[Path], level: int) -> tuple[bytes, bytes]:
    """Return (kind, hash of the content) of a file or link."""
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return b"link", hashlib.sha256(os.readlink(path)).digest()  # noqa: PTH115
    if stat.S_ISDIR(mode):  # a repository inside of this one
        return b"folder", _tree_hash(Path(os.fsdecode(path)), trusted_dirs, level + 1).encode()
    if not stat.S_ISREG(mode):  # a pipe or socket: reading it could last for ever
        return b"special", b""
    digest = hashlib.sha256()
    with open(path, "rb") as file:  # noqa: PTH123
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return b"executable" if mode & stat.S_IXUSR else b"file", digest.digest()


def _listed(root: Path, trusted_dirs: Sequence[Path]) -> Iterator[bytes]:
    """Yield the names of the files that count, relative to the folder; those of folders only for repositories."""
    try:
        names = _listed_by_git(root, trusted_dirs)
    except OSError:  # git is not installed
        return _walked(os.fsencode(root), _NEVER)
    return (name.rstrip(b"/") for name in names if name and not set(name.split(b"/")) & set(_NEVER))


def _listed_by_git(root: Path, trusted_dirs: Sequence[Path]) -> list[bytes]:
    others = ["--others", "--exclude-standard"]
    repository = local_repository.find(root, trusted_dirs)
    if repository and repository.is_trusted:
        with repository.opened() as opened:
            # A folder that its repository ignores (a cache, say) is a project all the same: it counts by itself.
            if opened.ask(root, "check-ignore", "--quiet", "--no-index", ".") is None:
                names = opened.ask(root, "ls-files", "-z", "--cached", *others)
                if names is not None:
                    return names.split(b"\0")
    with local_repository.no_repository(root) as opened:
        names = opened.ask(root, "ls-files", "-z", *others)
    if names is None:
        raise ProjectError(f"git cannot list the files of {root}; look at what `git status` says there.")
    return names.split(b"\0")


def _walked(root: bytes, never: tuple[bytes, ...]) -> Iterator[bytes]:
    """Yield every file and link below a folder, relative to it, without git's help."""
    for base, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in never]
        links = [name for name in folders if os.path.islink(os.path.join(base, name))]  # noqa: PTH114, PTH118
        for name in (*files, *links):
            if name not in never:
                yield os.path.relpath(os.path.join(base, name), root)  # noqa: PTH118
