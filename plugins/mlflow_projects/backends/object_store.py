"""Small files on an object store: S3 through Airflow's AWS connection, all else through fsspec."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Protocol

from mlflow_projects.backends.aws import Clients, aws_errors, error_code
from mlflow_projects.exceptions import ProjectError, StepFailedError

# TaskIdentity.key: what is not named so, is not ours to remove.
CHECKPOINT_KEY = re.compile(r"[a-zA-Z0-9-]*-[0-9a-f]{16}")
_S3_BATCH = 1000  # objects of one DeleteObjects request


class ObjectStore(Protocol):
    """Objects below one address, by name.

    Each call raises StepFailedError if the store cannot be asked now.
    """

    def put(self, name: str, content: Path | bytes) -> None:
        """Make an object, or replace it."""

    def get(self, name: str, file: Path) -> None:
        """Copy an object to a file."""

    def read(self, name: str) -> bytes | None:
        """Return an object's content, None if there is no such object."""

    def changes(self, prefix: str = "") -> dict[str, float]:
        """Return when each object was changed last, in seconds since 1970, by name."""

    def remove(self, names: Collection[str]) -> None:
        """Remove objects; missing ones are fine."""


def object_store(uri: str, aws_conn_id: str | None) -> ObjectStore:
    """Return the store at an address such as ``s3://bucket/prefix``.

    :raises ProjectError: the package for this kind of store is missing
    """
    if uri.startswith("s3://"):
        return _S3(uri, aws_conn_id)
    import fsspec  # type: ignore[import-untyped]

    try:
        filesystem, root = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise ProjectError(f"{uri} cannot be used on this worker: {error}.") from error
    return _Fsspec(uri, filesystem, root.rstrip("/"))


def remove_old_checkpoints(store: ObjectStore, days: float, log: Callable[[str], None]) -> None:
    """Remove checkpoints of tasks that never succeeded; that it cannot be done is no reason to fail."""
    try:
        newest: dict[str, float] = {}
        found = store.changes()
        for name, changed in found.items():
            key = name.partition("/")[0]
            newest[key] = max(changed, newest.get(key, 0.0))
        for key, changed in newest.items():
            if CHECKPOINT_KEY.fullmatch(key) and time.time() - changed > days * 86_400:
                log(f"Removing the checkpoint {key}, unchanged for more than {days:g} days.")
                store.remove([name for name in found if name.startswith(f"{key}/")])
    except StepFailedError as error:
        log(f"Old checkpoints cannot be looked for: {error}")


@contextlib.contextmanager
def _explained(uri: str, *errors: type[Exception]) -> Iterator[None]:
    try:
        yield
    except errors as error:
        raise StepFailedError(f"{uri} cannot be used now: {error}") from error


class _S3:
    def __init__(self, uri: str, aws_conn_id: str | None) -> None:
        self._uri = uri.rstrip("/")
        self._bucket, _, self._prefix = self._uri.removeprefix("s3://").partition("/")
        self._clients = Clients(aws_conn_id)

    def _asked(self) -> contextlib.AbstractContextManager[None]:
        from boto3.exceptions import Boto3Error

        return _explained(self._uri, Boto3Error, *aws_errors())

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}".lstrip("/")

    def put(self, name: str, content: Path | bytes) -> None:
        with self._asked():
            if isinstance(content, bytes):
                self._clients["s3"].put_object(Bucket=self._bucket, Key=self._key(name), Body=content)
            else:
                self._clients["s3"].upload_file(str(content), self._bucket, self._key(name))

    def get(self, name: str, file: Path) -> None:
        with self._asked():
            self._clients["s3"].download_file(self._bucket, self._key(name), str(file))

    def read(self, name: str) -> bytes | None:
        with self._asked():
            try:
                answer = self._clients["s3"].get_object(Bucket=self._bucket, Key=self._key(name))
                return bytes(answer["Body"].read())
            except aws_errors() as error:
                if error_code(error) in ("NoSuchKey", "404"):
                    return None
                raise

    def changes(self, prefix: str = "") -> dict[str, float]:
        start = self._key("")
        with self._asked():
            pages = self._clients["s3"].get_paginator("list_objects_v2")
            return {
                found["Key"][len(start) :]: found["LastModified"].timestamp()
                for page in pages.paginate(Bucket=self._bucket, Prefix=self._key(prefix))
                for found in page.get("Contents", ())
            }

    def remove(self, names: Collection[str]) -> None:
        keys = [{"Key": self._key(name)} for name in names]
        with self._asked():
            for first in range(0, len(keys), _S3_BATCH):
                batch = {"Objects": keys[first : first + _S3_BATCH], "Quiet": True}
                answer = self._clients["s3"].delete_objects(Bucket=self._bucket, Delete=batch)
                for error in answer.get("Errors", ())[:1]:
                    raise StepFailedError(f"{self._uri} cannot be cleared: {error.get('Code')} {error.get('Key')}")


class _Fsspec:
    def __init__(self, uri: str, filesystem: Any, root: str) -> None:
        self._uri, self._filesystem, self._root = uri, filesystem, root

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def put(self, name: str, content: Path | bytes) -> None:
        with _explained(self._uri, OSError):
            self._filesystem.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)
            if isinstance(content, bytes):
                self._filesystem.pipe_file(self._path(name), content)
            else:
                self._filesystem.put_file(str(content), self._path(name))

    def get(self, name: str, file: Path) -> None:
        with _explained(self._uri, OSError):
            self._filesystem.get_file(self._path(name), str(file))

    def read(self, name: str) -> bytes | None:
        with _explained(self._uri, OSError):
            try:
                return bytes(self._filesystem.cat_file(self._path(name)))
            except FileNotFoundError:
                return None

    def changes(self, prefix: str = "") -> dict[str, float]:
        with _explained(self._uri, OSError):
            names = self._filesystem.find(self._root) if self._filesystem.exists(self._root) else []
            shown = {name: name[len(self._root) :].lstrip("/") for name in names}
            found = {}
            for name, short in shown.items():
                with contextlib.suppress(FileNotFoundError):  # somebody removed it, or gave it its name, meanwhile
                    if short.startswith(prefix):
                        found[short] = self._filesystem.modified(name).timestamp()
            return found

    def remove(self, names: Collection[str]) -> None:
        with _explained(self._uri, OSError):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    self._filesystem.rm_file(self._path(name))
