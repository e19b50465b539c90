"""Folders that are made once, shared by all tasks of a machine, and bounded in size.

A git mirror, a checkout of one commit, an unpacked archive or a Python environment is costly to make
and never changes afterwards. Each is an *entry*: made by whichever process comes first, under a file
lock (which the kernel releases when a process dies, however it dies), and only trusted once its marker
is written. A half-made entry is thrown away and made again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.file_lock import file_lock

ABOUT = ".about"  # a file in an entry: what it is, in a line for people
DEFAULT_MAX_BYTES = 20 * 10**9
_KEEP_UNUSED_SECONDS = 3600.0


@dataclass(frozen=True)
class Entry:
    """An entry as a person is shown it.

    :param last_use: seconds since 1970
    :param about: what its maker wrote into its ``.about`` file
    """

    folder: Path
    bytes: int
    last_use: float
    about: str


@dataclass(frozen=True)
class Cache:
    """The folder of all entries.

    :param root: made when missing
    :param max_bytes: when all entries together are larger, those unused for longest go first
    :param group_reads: whether the root is for the group of its folder too; see :func:`private_folder`
    """

    root: Path
    max_bytes: int = DEFAULT_MAX_BYTES
    group_reads: bool = False

    @contextlib.contextmanager
    def entry(
        self, kind: str, key: str, make: Callable[[Path], None], is_whole: Callable[[Path], bool] | None = None
    ) -> Iterator[Path]:
        """Yield an entry's folder, made if it is not there yet; nobody removes it during the block.

        :param kind: the kind of entry, a folder's name
        :param key: what the entry is made from, safe as a file name
        :param make: fills the (absent) folder; whatever it raises leaves no entry behind
        :param is_whole: whether an entry that was made may be used still; else it is made again
        :raises ProjectError: the cache folder cannot be written, or what was made is not whole
        """
        folder, lock, marker = self._paths(kind, key)
        while True:
            with file_lock(lock, shared=True):
                if marker.exists() and (is_whole is None or is_whole(folder)):
                    os.utime(marker)
                    yield folder
                    return
            self._make(kind, key, make, is_whole)

    def _make(
        self, kind: str, key: str, make: Callable[[Path], None], is_whole: Callable[[Path], bool] | None
    ) -> None:
        folder, lock, marker = self._paths(kind, key)
        with file_lock(lock):
            if marker.exists() and (is_whole is None or is_whole(folder)):
                return
            marker.unlink(missing_ok=True)
            remove(folder)
            try:
                make(folder)
                if is_whole is not None and not is_whole(folder):
                    raise ProjectError(f"{folder} was made, but something of it is missing, such as its Python.")
            except BaseException:
                remove(folder)
                raise
            self.measure(kind, key)
        self.trim()

    def measure(self, kind: str, key: str) -> None:
        """Note an entry's size in bytes; also for its maker to call after it made the entry grow."""
        folder, _, marker = self._paths(kind, key)
        marker.write_text(str(_size(folder)), encoding="ascii")

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """Yield a private empty folder that goes away with the block (or, after a kill, with a later one)."""
        base = self._kind_folder("workspaces")
        for left_over in base.glob("*.lock"):
            # A minute's grace, because a new workspace's lock file exists a moment before it is locked.
            with contextlib.suppress(OSError):
                if time.time() - left_over.stat().st_mtime > 60:
                    self._remove_unlocked(left_over, left_over.with_suffix(""))
        folder = Path(tempfile.mkdtemp(dir=base))
        with file_lock(folder.with_suffix(".lock")):
            try:
                yield folder
            finally:
                remove(folder)
                folder.with_suffix(".lock").unlink(missing_ok=True)

    def entries(self, kind: str = "*") -> list[Entry]:
        """Return what is in the cache, of one kind or of all."""
        found = []
        for marker in self.root.glob(f"{kind}/*.ready"):
            with contextlib.suppress(FileNotFoundError):  # another process trims as well
                size, folder = int(marker.read_text(encoding="ascii") or 0), marker.with_suffix("")
                about = folder / ABOUT
                text = about.read_text(encoding="utf-8", errors="replace").strip() if about.is_file() else ""
                found.append(Entry(folder, size, marker.stat().st_mtime, text))
        return found

    def trim(self) -> None:
        """Remove entries, those unused for longest first, until the rest fits into ``max_bytes``."""
        entries = sorted(self.entries(), key=lambda entry: entry.last_use)
        total = sum(entry.bytes for entry in entries)
        for entry in entries:
            if total <= self.max_bytes or time.time() - entry.last_use < _KEEP_UNUSED_SECONDS:
                return
            total -= entry.bytes if self._remove(entry.folder) else 0

    def prune(self, kind: str, unused: float) -> list[Path]:
        """Remove entries of a kind that nobody used for so many seconds; return their folders.

        Also what a killed maker left, which nobody can use.
        """
        old = [entry.folder for entry in self.entries(kind) if time.time() - entry.last_use >= unused]
        old += self._half_made(kind)
        return [folder for folder in old if self._remove(folder)]

    def _half_made(self, kind: str) -> list[Path]:
        """Return folders of entries without a marker; those at which somebody works are locked."""
        folders = (lock.with_suffix("") for lock in self.root.glob(f"{kind}/*.lock"))
        return [folder for folder in folders if folder.is_dir() and not folder.with_suffix(".ready").exists()]

    def _remove(self, folder: Path) -> bool:
        """Remove an entry unless somebody uses it or it cannot be removed; tell whether it is gone."""
        try:
            self._remove_unlocked(folder.with_suffix(".lock"), folder, folder.with_suffix(".ready"))
        except OSError:
            return False
        return True

    @staticmethod
    def _remove_unlocked(lock: Path, folder: Path, marker: Path | None = None) -> None:
        """Remove what a lock guards, or raise BlockingIOError while somebody holds the lock."""
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if marker:
                marker.unlink(missing_ok=True)
            remove(folder)
            if not marker:
                lock.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def _paths(self, kind: str, key: str) -> tuple[Path, Path, Path]:
        base = self._kind_folder(kind)
        return base / key, base / f"{key}.lock", base / f"{key}.ready"

    def _kind_folder(self, kind: str) -> Path:
        folder = self.root / kind
        try:
            private_folder(self.root, self.group_reads)
            folder.mkdir(exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError(13, "Permission denied", str(folder))
        except OSError as error:
            raise ProjectError(
                f"The cache folder {folder} cannot be written ({error.strerror}); make it writable for the "
                "Airflow worker, or name another one in [mlflow_projects] cache_dir of Airflow's configuration."
            ) from error
        return folder


def private_folder(folder: Path, group_reads: bool = False) -> None:
    """Make a folder that other users of the machine cannot look into; close one of our name that they can.

    Whom an administrator let write there (``chmod g+ws`` for tasks with ``run_as_user``) stays in; and a folder of
    another name, which may hold more than our things, stays as it is.

    :param group_reads: let its group look into it
    :raises OSError: it cannot be made
    """
    folder.mkdir(mode=0o750 if group_reads else 0o700, parents=True, exist_ok=True)
    state = folder.stat()
    closed = mode = stat.S_IMODE(state.st_mode)
    if not (mode & stat.S_IWGRP or group_reads):
        closed &= ~stat.S_IRWXG
    if not mode & stat.S_IWOTH:
        closed &= ~stat.S_IRWXO
    if closed != mode and folder.name.startswith("mlflow_projects") and state.st_uid == os.geteuid():
        folder.chmod(closed)


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it, read-only files included; a missing one is fine."""

    def allow_and_retry(function: Callable[[str], object], path: str, _error: object) -> None:
        with contextlib.suppress(FileNotFoundError):
            Path(path).parent.chmod(0o700)
            Path(path).chmod(0o700)
            function(path)

    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder, onerror=allow_and_retry)


def _size(folder: Path) -> int:
    """Return the bytes of all files; those of a hard link are shared by all its names."""
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # another process may be at work in a shared one
                state = (Path(base) / name).lstat()
                total += state.st_size // state.st_nlink
    return total
