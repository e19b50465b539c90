"""A zip file that is none, or is meant to do harm, is one sentence and leaves nothing (issue 22, row 6)."""

from __future__ import annotations

import bz2
import gzip
import io
import random
import stat
import struct
import tracemalloc
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project import archive
from mlflow_projects.project.cache import Cache
from tests.support.hostile import hostile_server

Member = tuple[str, bytes]


def packed(members: Sequence[Member], method: int = zipfile.ZIP_DEFLATED, mode: int = 0) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as zipped:
        for name, content in members:
            member = zipfile.ZipInfo("x")
            member.filename = name  # as it is; ZipInfo itself would mend it
            member.compress_type = method
            member.external_attr = mode << 16
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a name twice
                zipped.writestr(member, content)
    return made.getvalue()


def changed(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    assert len(old) == len(new)
    return data.replace(old, new)


def end_of(data: bytes, at: int, form: str, *values: int) -> bytes:
    """Return a zip file with another value in the record at its end."""
    made = bytearray(data)
    struct.pack_into(form, made, data.rindex(b"PK\5\6") + at, *values)
    return bytes(made)


ONE = packed([("MLproject", b"name: x")])
FIFTY = packed([(f"f{n}", b"") for n in range(50)])
HOSTILE: dict[str, tuple[bytes, str]] = {
    "an empty name": (changed(packed([("Q", b"x")]), b"Q", b"\0"), "a file with no name"),
    "no name at all": (packed([("", b"x")]), "a file with no name|not a usable zip file"),
    "a dot": (packed([(".", b"x")]), "a file with no name"),
    "a NUL": (changed(packed([("aQb", b"x")]), b"aQb", b"a\0b"), "a NUL character"),
    "a part of 256 bytes": (packed([("a" * 256, b"x")]), "which is too long .at most 255 bytes for each part"),
    "a part of 128 letters of two bytes": (packed([("é" * 128, b"x")]), "which is too long"),
    "5,000 bytes": (packed([("/".join(["abcdefgh"] * 600), b"x")]), "which is too long .* 3000 in all"),
    "200 folders": (packed([("a/" * 200 + "b", b"x")]), "within more than 100 folders"),
    "a file and a folder": (packed([("a", b"x"), ("a/b", b"y")]), "'a' as a file and as a folder"),
    "a folder and a file": (packed([("a/b/", b""), ("a/b", b"y")]), "'a/b' as a file and as a folder"),
    "twice": (packed([("a", b"x"), ("a", b"y")]), "the file 'a' twice"),
    "above": (packed([("../a", b"x")]), "would land outside"),
    "above, as Windows writes it": (packed([("..\\a", b"x")]), "would land outside"),
    "at the top": (packed([("/etc/x", b"x")]), "would land outside"),
    "a drive": (packed([("C:\\x", b"x")]), "would land outside"),
    "a drive by itself": (packed([("C:", b"x")]), "would land outside"),
    "a link": (packed([("a", b"/etc/passwd")], mode=stat.S_IFLNK | 0o777), "a link or device"),
    "a device": (packed([("a", b"")], mode=stat.S_IFCHR | 0o666), "a link or device"),
    "a pipe": (packed([("a", b"")], mode=stat.S_IFIFO | 0o666), "a link or device"),
    "encrypted": (changed(ONE, b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\1\0"), "is encrypted"),
    "a list that is not there": (end_of(ONE, 16, "<L", 2**31), "not a usable zip file"),
    "a list of 3 GiB": (end_of(ONE, 12, "<L", 3 * 2**30), "not a usable zip file"),
    "a list that is cut": (end_of(ONE, 12, "<L", 20), "not a usable zip file"),
    "a list of other bytes": (changed(ONE, b"PK\1\2", b"PK\1\3"), "not a usable zip file"),
    "a member that is elsewhere": (changed(ONE, b"PK\3\4", b"PK\3\5"), "not a usable zip file"),
    "cut": (ONE[:-30], "not a usable zip file"),
    "nothing": (b"", "not a usable zip file"),
    "zeros": (bytes(10**6), "not a usable zip file"),
}


def unpack(data: bytes, tmp_path: Path) -> list[str]:
    file = tmp_path / "p.zip"
    file.write_bytes(data)
    with archive.unpacked("p.zip", file, Cache(tmp_path / "cache")) as unpacked:
        return sorted(str(path.relative_to(unpacked.root)) for path in unpacked.root.rglob("*") if path.is_file())


def left_in(tmp_path: Path) -> list[Path]:
    return [one for one in (tmp_path / "cache").glob("zips/*") if one.suffix != ".lock"]


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_one_sentence_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    data, words = HOSTILE[name]
    with pytest.raises(ProjectError, match=words) as caught:
        unpack(data, tmp_path)
    assert str(caught.value).startswith("p.zip ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert left_in(tmp_path) == []


def test_what_people_pack_is_unpacked(tmp_path: Path) -> None:
    names = ["MLproject", "a b/ü.py", "con", "x" * 255, "/".join(["a"] * 90), "b/c:d"]
    names += ["README.md:Zone.Identifier", "file::memory:"]
    data = packed([("a b/", b""), ("a b/", b""), *((name, b"x") for name in names)])
    assert unpack(data, tmp_path) == sorted(names)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_each_way_to_pack_is_unpacked(method: int, tmp_path: Path) -> None:
    content = random.Random(1).randbytes(300_000)
    file = tmp_path / "p.zip"
    file.write_bytes(packed([("a", content), ("b", content)], method))
    with archive.unpacked("p.zip", file, Cache(tmp_path / "cache")) as unpacked:
        assert (unpacked.root / "a").read_bytes() == (unpacked.root / "b").read_bytes() == content


def test_limits_of_members_of_their_list_and_of_the_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = packed([(f"f{n}", bytes(1000)) for n in range(50)])
    for name, limit, words in (
        ("MAX_MEMBERS", 49, "holds 50 members; at most 49 are unpacked"),
        ("MAX_DIRECTORY_BYTES", 1000, "its list of members has 2440 bytes; at most 1000 are read"),
        ("_SURELY_FINE_BYTES", 40_000, "unpacks to 50000 bytes, more than 5 times its own size; not unpacked"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(archive, "MAX_RATIO", 5)
            patch.setattr(archive, name, limit)
            with pytest.raises(ProjectError, match=words):
                unpack(data, tmp_path)
        assert left_in(tmp_path) == []
    assert len(unpack(data, tmp_path)) == 50


def test_bzip2_makes_no_more_memory_than_a_block_of_it(tmp_path: Path) -> None:
    """4 KiB of bzip2, the least that zipfile reads, may become gigabytes; the size that the list says is no limit."""
    block = bz2.compress(bytes(40_000_000))  # one of bzip2's largest blocks
    content = block * (3000 // len(block))
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as zipped:
        zipped.writestr("a", content)
    data = bytearray(made.getvalue())
    for signature, at in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        start = data.index(signature)
        struct.pack_into("<H", data, start + at, zipfile.ZIP_BZIP2)
        struct.pack_into("<L", data, start + at + 14, 100)  # the size that it is said to unpack to
    tracemalloc.start()
    try:
        with pytest.raises(ProjectError, match="not a usable zip file"):
            unpack(bytes(data), tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 10 * 40_000_000 < len(content) // len(block) * 40_000_000
    finally:
        tracemalloc.stop()


def download(headers: str, body: bytes, tmp_path: Path) -> str:
    """Download what a server sends with such headers, each with its end of line."""
    whole = f"HTTP/1.1 200 OK\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body
    with hostile_server(lambda connection: connection.sendall(whole)) as uri:
        with archive.unpacked(f"{uri}/p.zip", None, Cache(tmp_path / "cache")) as unpacked:
            return (unpacked.root / "MLproject").read_text()


def test_a_download_is_taken_as_it_is_and_never_unpacked_by_the_way(tmp_path: Path) -> None:
    assert download("Content-Encoding: identity\r\n", ONE, tmp_path) == "name: x"
    for encoding, body in (("gzip, gzip", gzip.compress(gzip.compress(ONE))), ("gzip", gzip.compress(ONE))):
        with pytest.raises(ProjectError, match=f"is sent with Content-Encoding: {encoding}, though"):
            download(f"Content-Encoding: {encoding}\r\n", body, tmp_path)


def test_a_download_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_SECONDS", -1.0)
    with pytest.raises(ProjectError, match="is not downloaded after -1 seconds"):
        download("", ONE, tmp_path)


def test_too_many_members_are_seen_before_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBERS", 49)
    monkeypatch.setattr(zipfile, "ZipInfo", lambda *_: pytest.fail("a member is read"))
    with pytest.raises(ProjectError, match="holds 50 members; at most 49"):
        unpack(FIFTY, tmp_path)
