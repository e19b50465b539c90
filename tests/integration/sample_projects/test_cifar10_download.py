"""The download of CIFAR against a real HTTP server that ends connections, changes files and refuses."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.cifar10 import import_from

CONTENT = os.urandom(3_000_000)
MD5 = hashlib.md5(CONTENT).hexdigest()
module = import_from("preprocess", "download")


class Archive:
    """A server of one file.

    :ivar cut: the next answers end after so many bytes
    :ivar statuses: what the next requests are refused with
    :ivar ranges: header Range of each request
    """

    def __init__(self) -> None:
        self.content = CONTENT
        self.cut: list[int] = []
        self.statuses: list[int] = []
        self.ranges: list[str | None] = []
        self.knows_ranges = True
        archive = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                archive.ranges.append(self.headers.get("Range"))
                if archive.statuses:
                    self.send_error(archive.statuses.pop(0))
                    return
                first = int((re.findall(r"bytes=(\d+)-", self.headers.get("Range") or "") or [0])[0])
                if first and archive.knows_ranges:
                    self.send_response(206)
                    self.send_header(
                        "Content-Range", f"bytes {first}-{len(archive.content) - 1}/{len(archive.content)}"
                    )
                    body = archive.content[first:]
                else:
                    self.send_response(200)
                    body = archive.content
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: archive.cut.pop(0)] if archive.cut else body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/cifar.tar.gz"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def archive() -> Iterator[Archive]:
    server = Archive()
    yield server
    server.close()


def fetch(archive: Archive, file: Path) -> None:
    module.download(archive.url, file, MD5, pause=0.01)
    assert file.read_bytes() == CONTENT
    assert not file.with_name(f"{file.name}.part").exists()


def test_a_download_goes_on_where_the_connection_ended(archive: Archive, tmp_path: Path, capsys: Any) -> None:
    archive.cut, archive.statuses = [1_000_000, 500_000], []
    fetch(archive, tmp_path / "new" / "cifar.tar.gz")
    assert archive.ranges == [None, "bytes=1000000-", "bytes=1500000-"]
    assert "3,000,000 bytes, resumed at 1,500,000." in capsys.readouterr().out
    fetch(archive, tmp_path / "new" / "cifar.tar.gz")
    assert len(archive.ranges) == 3
    assert "no download" in capsys.readouterr().out


def test_what_an_earlier_process_left_is_continued(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "cifar.tar.gz.part").write_bytes(CONTENT[:2_000_000])
    fetch(archive, tmp_path / "cifar.tar.gz")
    assert archive.ranges == ["bytes=2000000-"]


def test_a_server_without_ranges_sends_all_of_it_again(archive: Archive, tmp_path: Path) -> None:
    archive.knows_ranges, archive.cut = False, [1_000_000]
    fetch(archive, tmp_path / "cifar.tar.gz")


@pytest.mark.parametrize("status", [500, 503, 429, 416])
def test_a_passing_refusal_is_asked_again(archive: Archive, tmp_path: Path, status: int) -> None:
    archive.statuses = [status]
    fetch(archive, tmp_path / "cifar.tar.gz")


def test_a_wrong_part_is_thrown_away(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "cifar.tar.gz.part").write_bytes(b"x" * 1_000_000)
    fetch(archive, tmp_path / "cifar.tar.gz")
    assert archive.ranges == ["bytes=1000000-", None]


@pytest.mark.parametrize(("status", "words"), [(404, "answers 404"), (None, "checksum is wrong")])
def test_what_cannot_be_had_is_one_sentence(archive: Archive, tmp_path: Path, status: int | None, words: str) -> None:
    archive.statuses = [status] if status else []
    archive.content = b"another file"
    with pytest.raises(module.DataError, match=words) as caught:
        module.download(archive.url, tmp_path / "cifar.tar.gz", MD5, pause=0.01)
    assert "data=fashion-mnist or data=sample" in str(caught.value)
    assert len(archive.ranges) == (1 if status else module.ATTEMPTS)
    assert not (tmp_path / "cifar.tar.gz").exists()


def test_two_that_need_the_file_at_once_download_it_once(archive: Archive, tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: fetch(archive, tmp_path / "cifar.tar.gz"), range(3)))
    assert len(archive.ranges) == 1
