"""Download one large file: resumed where it stopped, checked, by one process at a time."""

import contextlib
import fcntl
import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from errors import DataError

CHUNK = 1024 * 1024
PROGRESS_SECONDS = 5.0
TIMEOUT = 60.0  # seconds without a byte
ATTEMPTS = 5


def download(url: str, file: Path, md5: str, pause: float = 2.0) -> None:
    """Bring a file here, unless it is here already; what an interrupted download left is continued.

    :param file: where it shall be; while it comes, it is beside that, with ``.part`` added to its name
    :param md5: published checksum, in hex
    :param pause: seconds before the second attempt; doubled for each further one
    :raises DataError: it cannot be had, or is another file
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    with _alone(file.with_name(f"{file.name}.lock")):
        if file.exists():
            if checksum(file) == md5:
                print(f"{file} is here already: no download.")
                return
            file.unlink()
        reason = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                print(f"{reason} Attempt {attempt + 1} of {ATTEMPTS} follows.")
                time.sleep(pause * 2 ** (attempt - 1))
            try:
                _fetch(url, part)
            except urllib.error.HTTPError as error:
                reason = f"The server answers {error.code} ({error.reason})."
                if 400 <= error.code < 500 and error.code not in (408, 416, 429):
                    break
                if error.code == 416:  # what we have is not the beginning of that file
                    part.unlink(missing_ok=True)
                continue
            except (OSError, http.client.HTTPException) as error:
                reason = f"The download stopped: {getattr(error, 'reason', None) or error}."
                continue
            found = checksum(part)
            if found == md5:
                part.replace(file)
                print(f"{file.name}: {file.stat().st_size:,} bytes, checksum right.")
                return
            part.unlink()
            reason = f"The checksum is wrong (MD5 {found}, not {md5}); what came is thrown away."
    raise DataError(
        f"{url} cannot be downloaded: {reason} Download the file on another machine and pass its path as 'data', "
        "or use data=fashion-mnist or data=sample, which need no network."
    )


def checksum(file: Path) -> str:
    """Return a file's MD5 in hex."""
    digest = hashlib.md5(usedforsecurity=False)
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _fetch(url: str, part: Path) -> None:
    """Append to ``part`` what is missing.

    :raises OSError: the connection failed or ended early (urllib's own errors are OSErrors)
    """
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        resumed = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        done = have if resumed else 0
        total = done + int(answer.headers.get("Content-Length") or 0)
        print(f"Downloading {url}: {total:,} bytes" + (f", resumed at {done:,}." if resumed else "."))
        said = time.monotonic()
        with part.open("ab" if resumed else "wb") as sink:
            while chunk := answer.read(CHUNK):
                sink.write(chunk)
                done += len(chunk)
                if time.monotonic() - said > PROGRESS_SECONDS:
                    said = time.monotonic()
                    print(f"  {done:,} of {total:,} bytes ({done / max(total, 1):.0%})")
    if done < total:
        raise ConnectionError(f"the connection ended after {done:,} of {total:,} bytes")


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Let other processes with the same lock file wait; the kernel ends the lock with its process."""
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
