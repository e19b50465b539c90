"""The way of a job's files and lines to and from S3 and CloudWatch Logs."""

from __future__ import annotations

import contextlib
import re
import tarfile
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sagemaker_local.options import LOG_GROUP, Context

_S3_URI = re.compile(r"(?:s3://|https://[^/]+/)([^/]+)/?(.*)", re.DOTALL)
_MAX_EVENT = 16 * 1024  # characters; Docker's own limit for a line, well below CloudWatch's
_MAX_EVENTS = 1000


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of an S3 URI."""
    found = _S3_URI.fullmatch(uri)
    if not found:
        raise ValueError(f"{uri!r} is no S3 URI")
    return found[1], found[2]


class Storage:
    """S3 as the instances of a region see it."""

    def __init__(self, context: Context, region: str) -> None:
        self._s3 = context.client("s3", region)
        self.errors = (self._s3.exceptions.ClientError,)

    def objects(self, uri: str) -> dict[str, str]:
        """Return the objects below a prefix: key → path below the channel's folder.

        A prefix that is an object itself gives its file name.
        """
        bucket, prefix = split_uri(uri)
        found = {}
        for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", ()):
                key = item["Key"]
                if not key.endswith("/"):
                    found[key] = key[len(prefix) :].lstrip("/") or key.rpartition("/")[2]
        return found

    def download(self, uri: str, folder: Path, share: tuple[int, int] = (0, 1)) -> dict[Path, tuple[int, int]]:
        """Download what is below a prefix; return the files with size and time, as :meth:`upload_changed` takes them.

        :param share: (which, of how many): only every n-th object
        """
        bucket, _ = split_uri(uri)
        done = {}
        for key, relative in sorted(self.objects(uri).items())[share[0] :: share[1]]:
            path = (folder / relative).resolve()
            if not path.is_relative_to(folder.resolve()):
                raise ValueError(f"the key {key!r} leads out of the channel's folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            self._s3.download_file(bucket, key, str(path))
            done[path] = _state(path)
        return done

    def upload(self, path: Path, uri: str) -> None:
        """Upload a file."""
        bucket, key = split_uri(uri)
        self._s3.upload_file(str(path), bucket, key)

    def upload_changed(self, folder: Path, uri: str, known: dict[Path, tuple[int, int]]) -> None:
        """Upload files that are new or changed since the last call.

        :param known: what was seen so far; brought up to date
        """
        for path in _files(folder):
            with contextlib.suppress(FileNotFoundError):  # the job may delete it meanwhile
                state = _state(path)
                if known.get(path.resolve()) != state:
                    self.upload(path, f"{uri.rstrip('/')}/{path.relative_to(folder).as_posix()}")
                    known[path.resolve()] = state

    def upload_results(self, folders: Iterable[Path], uri: str, compress: bool) -> str:
        """Upload the union of the instances' folders; the first instance's files win. Return the S3 URI.

        :param uri: without ``.tar.gz``
        """
        files: dict[str, Path] = {}
        for folder in folders:
            for path in _files(folder):
                files.setdefault(path.relative_to(folder).as_posix(), path)
        if not compress:
            for name, path in files.items():
                self.upload(path, f"{uri}/{name}")
            return f"{uri}/"
        archive = next(iter(folders)).parent / f"{uri.rpartition('/')[2]}.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            for name, path in sorted(files.items()):
                tar.add(path, arcname=name)
        self.upload(archive, f"{uri}.tar.gz")
        archive.unlink()
        return f"{uri}.tar.gz"


class LogStream:
    """Sends an instance's output to CloudWatch Logs as it comes."""

    # moto numbers events without a lock, and readers tell events by that number.
    _lock = threading.Lock()

    def __init__(self, context: Context, region: str, job: str, host: str) -> None:
        self._logs = context.client("logs", region)
        self._where = {"logGroupName": LOG_GROUP, "logStreamName": f"{job}/{host}-{int(time.time() * 1000)}"}
        self._rest = b""
        self._delay = context.knobs.log_delay
        with self._lock:
            for create, arguments in (
                (self._logs.create_log_group, {"logGroupName": LOG_GROUP}),
                (self._logs.create_log_stream, self._where),
            ):
                with contextlib.suppress(self._logs.exceptions.ResourceAlreadyExistsException):
                    create(**arguments)

    def feed(self, chunk: bytes) -> None:
        """Take output; whole lines are sent at once."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > _MAX_EVENT:
            lines, self._rest = [*lines, self._rest], b""
        self._send(lines)

    def end(self) -> None:
        """Send what is left of a last line without an end."""
        self._send([self._rest])
        self._rest = b""

    def _send(self, lines: list[bytes]) -> None:
        now = int(time.time() * 1000)
        events = []
        for line in lines:
            text = line.decode("utf-8", "replace").rstrip("\r")
            events += [  # CloudWatch takes no empty message
                {"timestamp": now, "message": text[start : start + _MAX_EVENT]}
                for start in range(0, len(text), _MAX_EVENT)
            ]
        if self._delay and events:
            late = threading.Timer(self._delay, self._put, [events])
            late.daemon = True
            late.start()
        else:
            self._put(events)

    def _put(self, events: list[dict[str, Any]]) -> None:
        for start in range(0, len(events), _MAX_EVENTS):
            with self._lock:
                self._logs.put_log_events(**self._where, logEvents=events[start : start + _MAX_EVENTS])


def describe_error(error: Exception) -> str:
    """Return AWS's own words of an error."""
    answer: Mapping[str, Any] = getattr(error, "response", {})
    found = answer.get("Error", {})
    return f"{found.get('Code')}: {found.get('Message')}" if found else str(error)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if is_inside(path, folder)) if folder.is_dir() else []


def is_inside(path: Path, folder: Path) -> bool:
    """Tell whether a path is a file of a job's folder; a job's link may name any file of this machine."""
    return path.is_file() and path.resolve().is_relative_to(folder.resolve())


def _state(path: Path) -> tuple[int, int]:
    information = path.stat()
    return information.st_size, information.st_mtime_ns
