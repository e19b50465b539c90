from __future__ import annotations

import functools
import hashlib
import http.server
import stat
import subprocess
import threading
import zipfile
from pathlib import Path

import pytest

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project import archive
from mlflow_projects.project.fetch import fetch

TEXT = "name: zipped\nentry_points: {main: {command: ./run.sh}}\n"


def write_zip(path: Path, members: dict[str | zipfile.ZipInfo, str | bytes] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in (members or {"MLproject": TEXT}).items():
            zipped.writestr(name, content)
    return path


def special(name: str, mode: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.create_system = 3
    member.external_attr = mode << 16
    return member


@pytest.fixture
def served(tmp_path):
    """Serve a folder over http; yields (folder, URL, list of requested paths)."""
    folder = tmp_path / "served"
    folder.mkdir()
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, *_):
            asked.append(self.path)

        def log_error(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def nothing_left(cache) -> bool:
    """Tell whether the cache holds no unpacked files, not even half of them."""
    return not [entry for entry in cache.root.glob("zips/*") if entry.suffix != ".lock"]


@pytest.mark.parametrize("form", ["path", "file URI", "quoted", "upper case"])
def test_a_zip_file_is_a_project(form, tmp_path, cache, workspace):
    name = "my project.ZIP" if form == "upper case" else "my project.zip"
    file = write_zip(tmp_path / name, {"MLproject": TEXT, "sub/data/x.txt": "deep"})
    uri = {"file URI": file.as_uri(), "quoted": f"'{file}'"}.get(form, str(file))
    fetched = fetch(uri, None, cache, workspace)
    assert fetched.project.name == "zipped"
    assert (fetched.project.root / "sub/data/x.txt").read_text() == "deep"
    assert fetched.project.root == workspace / "project"
    assert fetched.source.name == uri.strip("'")
    assert fetched.source.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert fetched.source.commit is None


def test_a_script_stays_executable_and_no_file_gets_special_bits(tmp_path, cache, workspace):
    members = {
        "MLproject": TEXT,
        special("run.sh", stat.S_IFREG | 0o755): "#!/bin/sh\necho ran\n",
        special("setuid", stat.S_IFREG | 0o6755): "",
        special("locked", stat.S_IFREG | 0o000): "",
        special("readonly", stat.S_IFREG | 0o444): "",
        special("shared", stat.S_IFREG | 0o666): "",
    }
    root = fetch(str(write_zip(tmp_path / "p.zip", members)), None, cache, workspace).project.root
    assert subprocess.run([root / "run.sh"], capture_output=True, text=True, check=True).stdout == "ran\n"
    assert not (root / "setuid").stat().st_mode & (stat.S_ISUID | stat.S_ISGID)
    assert (root / "locked").stat().st_mode & stat.S_IRUSR
    (root / "readonly").write_text("the copy belongs to the attempt")
    assert not (root / "shared").stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH), "others may read the cache"


def test_a_subdirectory_of_a_zip_file(tmp_path, cache, workspace):
    file = write_zip(tmp_path / "p.zip", {"top/inner/MLproject": TEXT, "top/other.txt": ""})
    fetched = fetch(f"{file}#top/inner", None, cache, workspace)
    assert fetched.project.name == "zipped"
    assert fetched.source.name == f"{file}#top/inner"
    with pytest.raises(ProjectError, match="the project has no folder 'none'"):
        fetch(f"{file}#none", None, cache, workspace.with_name("other"))


@pytest.mark.parametrize(
    "name",
    ["../evil", "a/../../evil", "/tmp/evil", "..\\evil", "a\\..\\..\\evil", "\\evil", "C:\\evil", "C:/evil", ".."],
)
def test_a_member_that_would_land_outside_is_refused(name, tmp_path, cache, workspace):
    file = write_zip(tmp_path / "p.zip", {"MLproject": TEXT, zipfile.ZipInfo(name): "x"})
    with pytest.raises(ProjectError, match="which would land outside; not unpacked"):
        fetch(str(file), None, cache, workspace)
    assert nothing_left(cache)
    assert [found for found in tmp_path.rglob("*") if "evil" in found.name] == []


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_a_link_or_device_is_refused(kind, tmp_path, cache, workspace):
    file = write_zip(tmp_path / "p.zip", {"MLproject": TEXT, special("link", kind | 0o777): "/etc/passwd"})
    with pytest.raises(ProjectError, match="holds 'link', a link or device; not unpacked"):
        fetch(str(file), None, cache, workspace)
    assert nothing_left(cache)


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def corrupt_content(data: bytes) -> bytes:
    start = data.index(b"MLproject") + len("MLproject")
    return data[:start] + b"\xff" * 8 + data[start + 8 :]


def wrong_checksum(data: bytes) -> bytes:
    at = data.index(b"PK\1\2") + 16
    return data[:at] + b"\0\0\0\0" + data[at + 4 :]


def encrypted(data: bytes) -> bytes:
    local, central = bytearray(data), data.index(b"PK\1\2")
    local[6] |= 1
    local[central + 8] |= 1
    return bytes(local)


def unknown_compression(data: bytes) -> bytes:
    local, central = bytearray(data), data.index(b"PK\1\2")
    local[8] = local[central + 10] = 97
    return bytes(local)


@pytest.mark.parametrize(
    "spoil",
    [truncated, corrupt_content, wrong_checksum, encrypted, unknown_compression, lambda _: b"", lambda _: b"no zip"],
)
def test_a_damaged_file_is_said_to_be_unusable(spoil, tmp_path, cache, workspace):
    file = write_zip(tmp_path / "p.zip")
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(ProjectError, match=f"{file} is not a usable zip file: "):
        fetch(str(file), None, cache, workspace)
    assert nothing_left(cache)


@pytest.mark.parametrize("members", [{"a": "x", "a/b": "y"}, {"a/b": "y", "a": "x"}, {".": "x"}])
def test_members_in_each_others_way_are_said_to_be_unusable(members, tmp_path, cache, workspace):
    file = write_zip(tmp_path / "p.zip", members)
    with pytest.raises(ProjectError, match="is not a usable zip file"):
        fetch(str(file), None, cache, workspace)
    assert nothing_left(cache)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, cache, workspace, monkeypatch):
    monkeypatch.setattr(archive, "MAX_UNPACKED_BYTES", 10**6)
    file = write_zip(tmp_path / "p.zip", {"MLproject": TEXT, "zeros": bytes(10**6)})
    with pytest.raises(ProjectError, match=f"unpacks to {10**6 + len(TEXT)} bytes; at most 1000000"):
        fetch(str(file), None, cache, workspace)
    assert nothing_left(cache)


def test_a_remote_zip_file_is_downloaded_and_leaves_no_download_behind(served, cache, workspace):
    folder, url, asked = served
    file = write_zip(folder / "p.zip", {"sub/MLproject": TEXT})
    fetched = fetch(f"{url}/p.zip#sub", None, cache, workspace)
    assert fetched.project.name == "zipped"
    assert fetched.source.name == f"{url}/p.zip#sub"
    assert fetched.source.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert asked == ["/p.zip"]
    assert list((cache.root / "workspaces").iterdir()) == []


def test_a_new_file_at_the_same_url_is_seen(served, cache, tmp_path):
    folder, url, _ = served
    for name in ("old", "new"):
        write_zip(folder / "p.zip", {"MLproject": f"name: {name}\n"})
        (tmp_path / name).mkdir()
        assert fetch(f"{url}/p.zip", None, cache, tmp_path / name).project.name == name


def test_a_file_is_unpacked_once_and_a_written_copy_changes_no_later_attempt(tmp_path, cache):
    file = write_zip(tmp_path / "p.zip")
    stamps = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        root = fetch(str(file), None, cache, tmp_path / name).project.root
        assert (root / "MLproject").read_text() == TEXT
        (root / "MLproject").write_text("name: changed")
        (shared,) = (p for p in (cache.root / "zips").iterdir() if p.is_dir())
        stamps.add(shared.stat().st_ino)
    assert len(stamps) == 1


@pytest.mark.parametrize(
    ("path", "words"), [("none.zip", "cannot be downloaded: HTTP 404"), ("page.zip", "is not a usable zip file")]
)
def test_a_url_without_a_zip_file_is_named(path, words, served, cache, workspace):
    folder, url, _ = served
    (folder / "page.zip").write_text("<html>please log in</html>")
    with pytest.raises(ProjectError, match=f"{url}/{path} {words}"):
        fetch(f"{url}/{path}", None, cache, workspace)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/p.zip", "https://no-such-host.invalid/p.zip"])
def test_an_unreachable_server_is_named(url, cache, workspace):
    with pytest.raises(ProjectError, match=f"{url} cannot be downloaded: ."):
        fetch(url, None, cache, workspace)


def test_a_missing_zip_file_is_named(tmp_path, cache, workspace):
    with pytest.raises(ProjectError, match=f"{tmp_path}/none.zip does not exist on this worker; check the uri"):
        fetch(f"{tmp_path}/none.zip", None, cache, workspace)
