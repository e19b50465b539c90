"""A folder per task instance that survives its attempts, and goes when one succeeds.

A command finds it in ``MLFLOW_PROJECTS_CHECKPOINT_DIR``, writes there what it would need to go on, and
looks there when it starts. The folder lies on this machine (or on a shared file system); or its content
is kept on an object store, from where another machine takes it up.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from mlflow_projects.backends.object_store import CHECKPOINT_KEY, ObjectStore, object_store, remove_old_checkpoints
from mlflow_projects.exceptions import ProjectError, StepFailedError
from mlflow_projects.project.cache import private_folder, remove
from mlflow_projects.tracking.answers import json_object

VARIABLE = "MLFLOW_PROJECTS_CHECKPOINT_DIR"
DEFAULT_DAYS = 14.0
_MANIFEST = "manifest.json"
_OBJECT = re.compile("data/[0-9a-f]{32}")
_UPLOAD_EVERY_SECONDS = 30.0
_RESTLESS_ROUNDS = 10
_MAX_FOLDERS = 100  # within each other; Python itself fails at a thousand
# {path below the folder: (size in bytes, time of its last change in ns)}
Snapshot = dict[str, tuple[int, int]]
Log = Callable[[str], None]


@dataclass(frozen=True)
class CheckpointSettings:
    """Where checkpoints are.

    :param location: a folder, or the address of an object store (``s3://bucket/prefix``)
    :param days: after how many days without a change a checkpoint of a task that never succeeded is removed
    :param upload_every: seconds between two looks for changes to upload
    :param group_reads: whether a folder is for its group too
    """

    location: str
    days: float = DEFAULT_DAYS
    upload_every: float = _UPLOAD_EVERY_SECONDS
    group_reads: bool = False


class Checkpoint(Protocol):
    """The checkpoint of one task instance, while an attempt uses it."""

    folder: Path

    def clear(self) -> None:
        """Remove it: the step succeeded."""


@contextlib.contextmanager
def kept_checkpoint(
    settings: CheckpointSettings, key: str, workspace: Path, aws_conn_id: str | None, log: Log
) -> Iterator[Checkpoint]:
    """Yield a task instance's checkpoint, with what earlier attempts left in it.

    :param key: names the task instance, the same for all its attempts
    :param workspace: a private folder of the attempt
    :raises ProjectError: the location cannot be used
    :raises StepFailedError: the location cannot be used now
    """
    if "://" not in settings.location:
        yield from _kept_here(Path(settings.location).expanduser().absolute(), key, settings, log)
        return
    store = object_store(settings.location, aws_conn_id)
    checkpoint = _Uploaded(workspace / "checkpoint", store, key, log)
    checkpoint.fetch()
    if checkpoint.is_new:
        remove_old_checkpoints(store, settings.days, log)
    over = threading.Event()

    def upload() -> None:
        while not over.wait(settings.upload_every):
            checkpoint.try_upload()

    uploading = threading.Thread(target=upload, name="checkpoint-upload", daemon=True)
    uploading.start()
    try:
        yield checkpoint
    finally:
        over.set()
        uploading.join()
        checkpoint.try_upload()  # what a failed command left; nothing after a success


def _kept_here(base: Path, key: str, settings: CheckpointSettings, log: Log) -> Iterator[Checkpoint]:
    checkpoint = _Here(base / key)
    try:
        private_folder(base, settings.group_reads)
        if not checkpoint.folder.is_dir():
            _remove_old_folders(base, settings.days, log)
            checkpoint.folder.mkdir(exist_ok=True)
        left = len(_snapshot(checkpoint.folder))
    except OSError as error:
        raise ProjectError(
            f"The checkpoint folder {base} cannot be used ({error.strerror}); make it writable for the Airflow "
            "worker, or name another one in [mlflow_projects] checkpoint_dir of Airflow's configuration."
        ) from error
    if left:
        log(f"An earlier attempt left {left} checkpoint file(s) in {checkpoint.folder}.")
    try:
        yield checkpoint
    finally:
        with contextlib.suppress(OSError):  # not empty, or gone after a success
            checkpoint.folder.rmdir()


@dataclass
class _Here:
    folder: Path

    def clear(self) -> None:
        remove(self.folder)


def _remove_old_folders(base: Path, days: float, log: Log) -> None:
    for folder in base.iterdir():
        if not CHECKPOINT_KEY.fullmatch(folder.name):
            continue
        try:
            state = folder.lstat()
            newest = max([state.st_mtime, *(ns / 1e9 for _, ns in _snapshot(folder).values())])
            if stat.S_ISDIR(state.st_mode) and time.time() - newest > days * 86_400:
                log(f"Removing the checkpoint {folder}, unchanged for more than {days:g} days.")
                remove(folder)
        except (OSError, RecursionError) as error:  # another task's, which must not stop this one
            log(f"The checkpoint {folder} cannot be removed ({getattr(error, 'strerror', error)}).")


@dataclass
class _Uploaded:
    """A folder whose content is kept on an object store.

    Each changed file goes to a new object; then a manifest that names all objects is replaced, in one
    step; then the objects that it no longer names go. So a reader sees an old or a new checkpoint, never half of
    one. A round in which files change meanwhile does not count.
    """

    folder: Path
    store: ObjectStore
    key: str
    log: Log
    is_new: bool = False
    _objects: dict[str, str] = field(default_factory=dict)  # of the manifest: {path below the folder: object}
    _known: Snapshot = field(default_factory=dict)  # what the manifest stands for
    _restless: int = 0
    _cleared: bool = False
    _busy: threading.Lock = field(default_factory=threading.Lock)

    def fetch(self) -> None:
        """Bring the last whole checkpoint here."""
        self.folder.mkdir()
        manifest = self.store.read(f"{self.key}/{_MANIFEST}")
        self.is_new = manifest is None
        files = self._read(manifest) if manifest else {}
        for name, (content, changed) in files.items():
            file = self.folder / name
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                self.store.get(f"{self.key}/{content}", file)
                os.utime(file, ns=(changed, changed))
            except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:  # "a" and "a/b"
                raise self._damaged() from error
            self._objects[name] = content
        self._known = _snapshot(self.folder)
        if files:
            self.log(f"Fetched {len(files)} checkpoint file(s) of an earlier attempt.")

    def _read(self, manifest: bytes) -> dict[str, tuple[str, int]]:
        """Return (object, time of the last change in ns) of each file that a manifest names.

        :raises ProjectError: it is not as :meth:`_upload` writes it
        """
        files, found = (json_object(manifest) or {}).get("files"), {}
        if not isinstance(files, dict):
            raise self._damaged()
        for name, entry in files.items():
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise ProjectError(
                    f"The checkpoint {self.key} names the file {name!r}, outside its folder; remove it."
                )
            known = entry if isinstance(entry, dict) else {}
            content, changed = known.get("object"), known.get("changed")
            if not (_is_name(name) and isinstance(content, str) and _OBJECT.fullmatch(content)):
                raise self._damaged()
            if not isinstance(changed, int) or abs(changed) >= 2**63:
                raise self._damaged()
            found[name] = content, changed
        return found

    def _damaged(self) -> ProjectError:
        return ProjectError(f"The checkpoint {self.key} is none of ours, or damaged ({_MANIFEST}); remove it.")

    def clear(self) -> None:
        self._cleared = True
        with self._busy:
            self.store.remove([f"{self.key}/{_MANIFEST}"])  # first: what is left then is no checkpoint
            self.store.remove(list(self.store.changes(f"{self.key}/")))

    def try_upload(self) -> None:
        """Upload what changed; trouble is told, and the next round may mend it."""
        try:
            with self._busy:
                whole = self._cleared or self._upload()
        except (StepFailedError, OSError) as error:
            self.log(f"The checkpoint is not uploaded: {error}")
            return
        self._restless = 0 if whole else self._restless + 1
        if self._restless == _RESTLESS_ROUNDS:
            self.log("The checkpoint folder changes all the time, so it is not uploaded; write logs elsewhere.")

    def _upload(self) -> bool:
        """Tell whether the store now holds what the folder holds."""
        before = _snapshot(self.folder)
        if before == self._known:
            return True
        changed = [name for name, state in before.items() if self._known.get(name) != state]
        made: dict[str, str] = {}
        try:
            for name in changed:
                made[name] = f"data/{uuid.uuid4().hex}"
                self.store.put(f"{self.key}/{made[name]}", self.folder / name)
            whole = _snapshot(self.folder) == before
        except BaseException:
            self._discard(made.values())
            raise
        if not whole:
            self._discard(made.values())
            return False
        objects = {name: made.get(name) or self._objects[name] for name in before}
        files = {name: {"object": objects[name], "size": size, "changed": ns} for name, (size, ns) in before.items()}
        self.store.put(f"{self.key}/{_MANIFEST}", json.dumps({"version": 1, "files": files}).encode())
        unused = set(self._objects.values()) - set(objects.values())
        self._objects, self._known = objects, before
        self._discard(unused)
        return True

    def _discard(self, objects: Iterable[str]) -> None:
        with contextlib.suppress(StepFailedError):
            self.store.remove([f"{self.key}/{name}" for name in objects])


def _is_name(name: str) -> bool:
    """Tell whether a file may have such a name."""
    try:
        parts = PurePosixPath(name).parts
        return b"\0" not in os.fsencode(name) and 0 < max((len(os.fsencode(part)) for part in parts), default=0) < 256
    except ValueError:  # half of a character
        return False


def _snapshot(folder: Path) -> Snapshot:
    """Return the files of a folder, a link to one of them ("latest") included.

    A link to elsewhere is none: a command in a container would get a file of the worker by it.
    """
    found: Snapshot = {}
    top = folder.resolve()
    for base, below, names in os.walk(folder):
        if len(Path(base).relative_to(folder).parts) >= _MAX_FOLDERS:
            below.clear()
        for name in names:
            path = Path(base) / name
            # Renamed or removed at this moment, or a circle of links, which is a RuntimeError before Python 3.13.
            with contextlib.suppress(OSError, RuntimeError):
                real = path.resolve(strict=True) if path.is_symlink() else path
                state = real.lstat()
                if stat.S_ISREG(state.st_mode) and (real is path or real.is_relative_to(top)):
                    found[path.relative_to(folder).as_posix()] = (state.st_size, state.st_mtime_ns)
    return found
