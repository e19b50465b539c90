from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.cache import ABOUT, Cache, remove

OLD = time.time() - 100_000


def process(code: str, root: Path) -> subprocess.Popen[str]:
    """Start another Python process with a cache in the folder."""
    head = "import os, time\nfrom pathlib import Path\nfrom mlflow_projects.project.cache import Cache\n"
    code = f"{head}cache = Cache(Path({str(root)!r}))\n{textwrap.dedent(code)}"
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def wait_for(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def maker(size: int = 10, calls: list[Path] | None = None):
    def make(folder: Path) -> None:
        assert not folder.exists()
        folder.mkdir()
        (folder / "data").write_bytes(bytes(size))
        if calls is not None:
            calls.append(folder)

    return make


def fill(cache: Cache, key: str, size: int = 10, age: float | None = None) -> Path:
    with cache.entry("things", key, maker(size)) as folder:
        pass
    if age is not None:
        os.utime(cache.root / "things" / f"{key}.ready", (time.time() - age,) * 2)
    return folder


def test_an_entry_is_made_once(cache):
    calls: list[Path] = []
    for _ in range(3):
        with cache.entry("things", "key", maker(calls=calls)) as folder:
            assert (folder / "data").is_file()
    assert len(calls) == 1
    with cache.entry("things", "other", maker(calls=calls)):
        assert len(calls) == 2


def test_processes_that_come_at_once_make_an_entry_once(cache, tmp_path):
    code = f"""
        here = Path({str(tmp_path)!r})
        def make(folder):
            with open(here / "calls", "a") as file:
                file.write("made\\n")
            folder.mkdir()
            while len(list(here.glob("here-*"))) < 4:  # all want it before it is whole
                time.sleep(0.01)
            (folder / "data").write_text("whole")
        (here / f"here-{{os.getpid()}}").touch()
        with cache.entry("things", "key", make) as folder:
            print((folder / "data").read_text())
    """
    processes = [process(code, cache.root) for _ in range(4)]
    assert [p.communicate(timeout=120)[0] for p in processes] == ["whole\n"] * 4
    assert (tmp_path / "calls").read_text() == "made\n"


@pytest.mark.parametrize("error", [ProjectError("no"), OSError("disk full"), KeyboardInterrupt()])
def test_a_maker_that_fails_leaves_nothing_behind(error, cache):
    def fail(folder: Path) -> None:
        folder.mkdir()
        (folder / "half").touch()
        raise error

    with pytest.raises(type(error)), cache.entry("things", "key", fail):
        pass
    assert [file.name for file in (cache.root / "things").iterdir()] == ["key.lock"]
    with cache.entry("things", "key", maker()) as folder:
        assert [file.name for file in folder.iterdir()] == ["data"]


def test_what_a_killed_maker_left_is_thrown_away_and_made_again(cache):
    killed = process(
        """
        def make(folder):
            folder.mkdir()
            (folder / "half").touch()
            (folder / "locked").mkdir()
            (folder / "locked" / "file").touch()
            (folder / "locked").chmod(0o500)
            time.sleep(600)
        with cache.entry("things", "key", make):
            pass
        """,
        cache.root,
    )
    wait_for((cache.root / "things/key/locked/file").exists)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert (cache.root / "things/key/half").exists()
    with cache.entry("things", "key", maker()) as folder:
        assert [file.name for file in folder.iterdir()] == ["data"]


def test_when_too_large_the_entries_unused_for_longest_go_first(tmp_path):
    cache = Cache(tmp_path / "cache", max_bytes=250)
    first, second, third = (
        fill(Cache(cache.root), key, 100, age) for key, age in (("a", 9000), ("b", 8000), ("c", 7000))
    )
    cache.trim()
    assert (first.exists(), second.exists(), third.exists()) == (False, True, True)
    assert sorted(f.name for f in first.parent.glob("*.ready")) == ["b.ready", "c.ready"]


def test_use_counts_as_use(tmp_path):
    cache = Cache(tmp_path / "cache", max_bytes=250)
    first, second, _ = (
        fill(Cache(cache.root), key, 100, age) for key, age in (("a", 9000), ("b", 8000), ("c", 7000))
    )
    with cache.entry("things", "a", maker()):
        pass
    cache.trim()
    assert first.exists()
    assert not second.exists()


def test_an_entry_in_use_stays_also_where_another_process_uses_it(tmp_path):
    cache = Cache(tmp_path / "cache", max_bytes=0)
    entries = [fill(Cache(cache.root), key, 100, age=9000) for key in "abc"]
    user = process('with cache.entry("things", "b", None): print("in", flush=True); time.sleep(600)', cache.root)
    assert user.stdout.readline() == "in\n"
    with cache.entry("things", "a", maker()):
        for key in "ab":
            os.utime(cache.root / "things" / f"{key}.ready", (OLD, OLD))
        cache.trim()
        assert [entry.exists() for entry in entries] == [True, True, False]
    user.kill()
    user.wait()
    cache.trim()
    assert [entry.exists() for entry in entries] == [False, False, False]


def test_a_fresh_entry_stays_though_it_alone_is_too_large(tmp_path):
    cache = Cache(tmp_path / "cache", max_bytes=10)
    assert fill(cache, "a", 1000).exists()


def test_an_entry_that_was_trimmed_is_made_again(tmp_path):
    cache = Cache(tmp_path / "cache", max_bytes=0)
    fill(cache, "a", 100, age=9000)
    cache.trim()
    assert fill(cache, "a").exists()


def test_an_entry_that_grew_is_trimmed_by_its_new_size(tmp_path):
    cache = Cache(tmp_path / "cache", max_bytes=500)
    grown = fill(cache, "a", 10)
    (grown / "more").write_bytes(bytes(1000))
    cache.measure("things", "a")
    os.utime(cache.root / "things/a.ready", (OLD, OLD))
    cache.trim()
    assert not grown.exists()


def test_many_tasks_trim_and_make_at_once_without_a_fault(tmp_path):
    code = """
        import random, dataclasses
        cache = dataclasses.replace(cache, max_bytes=3000)
        def make(folder):
            folder.mkdir()
            (folder / "data").write_bytes(bytes(1000))
        for turn in range(150):
            key = str(random.randrange(12))
            with cache.entry("things", key, make) as folder:
                assert (folder / "data").stat().st_size == 1000
                os.utime(cache.root / "things" / f"{key}.ready", (1000, 1000))
    """
    processes = [process(code, tmp_path / "cache") for _ in range(4)]
    assert [p.wait(timeout=60) for p in processes] == [0] * 4


@pytest.mark.parametrize("use", ["entry", "workspace"])
def test_a_cache_that_cannot_be_written_gives_its_path_and_the_remedy(use, tmp_path):
    (tmp_path / "file").touch()
    cache = Cache(tmp_path / "file" / "cache")
    with (
        pytest.raises(ProjectError) as caught,
        cache.entry("git", "k", maker()) if use == "entry" else cache.workspace(),
    ):
        pass
    assert f"The cache folder {cache.root}/" in str(caught.value)
    assert "cannot be written (Not a directory)" in str(caught.value)
    assert "[mlflow_projects] cache_dir" in str(caught.value)


def test_a_workspace_is_private_and_goes_away_with_the_block_whatever_happens(cache):
    with pytest.raises(KeyError), cache.workspace() as one, cache.workspace() as two:
        assert one != two
        assert one.stat().st_mode & 0o077 == 0
        (one / "locked").mkdir()
        (one / "locked" / "file").touch()
        (one / "locked").chmod(0o500)
        raise KeyError
    assert list((cache.root / "workspaces").iterdir()) == []


def test_the_workspaces_of_dead_processes_are_swept_and_those_of_living_ones_stay(cache):
    code = 'with cache.workspace() as w: (w / "file").touch(); print(w, flush=True); time.sleep(600)'
    dead, living = process(code, cache.root), process(code, cache.root)
    left, used = (Path(p.stdout.readline().strip()) for p in (dead, living))
    dead.kill()
    dead.wait()
    with cache.workspace():
        assert left.exists()  # a moment's grace
    for lock in (left.with_suffix(".lock"), used.with_suffix(".lock")):
        os.utime(lock, (OLD, OLD))
    with cache.workspace():
        assert not left.exists()
        assert not left.with_suffix(".lock").exists()
        assert (used / "file").exists()
    living.kill()
    living.wait()


def test_removing_follows_no_link(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    remove(tmp_path / "gone")
    remove(tmp_path / "link")
    remove(tmp_path / "never was")
    assert [file.name for file in tmp_path.rglob("*")] == ["kept", "file"]


def test_entries_are_shown_with_size_use_and_what_they_are(cache):
    assert cache.entries() == []
    one = fill(cache, "a", 100, age=5000)
    (one / ABOUT).write_bytes("uv for caf\xe9\n".encode("latin-1"))
    with cache.entry("others", "b", maker(7)) as other:
        pass
    (one.parent / "half-made").mkdir()
    (found,) = cache.entries("things")
    assert (found.folder, found.bytes, found.about) == (one, 100, "uv for caf\ufffd")
    assert found.last_use == (one.parent / "a.ready").stat().st_mtime
    assert {(entry.folder, entry.bytes, entry.about) for entry in cache.entries()} == {
        (one, 100, "uv for caf\ufffd"),
        (other, 7, ""),
    }


def test_what_nobody_used_for_so_long_is_pruned_of_one_kind(cache):
    old, new = fill(cache, "old", age=5000), fill(cache, "new", age=3000)
    with cache.entry("others", "kept", maker()) as kept:
        pass
    os.utime(kept.with_suffix(".ready"), (OLD, OLD))
    assert cache.prune("things", 4000) == [old]
    assert (old.exists(), new.exists(), kept.exists()) == (False, True, True)
    assert [entry.folder for entry in cache.entries("things")] == [new]
    assert cache.prune("things", 4000) == []
    assert cache.prune("nothing", 0) == []
    assert fill(cache, "old").exists()


def test_one_in_use_is_not_pruned_also_where_another_process_uses_it(cache):
    mine, others = fill(cache, "mine"), fill(cache, "others")
    user = process('with cache.entry("things", "others", None): print("in", flush=True); time.sleep(600)', cache.root)
    assert user.stdout.readline() == "in\n"
    with cache.entry("things", "mine", maker()):
        assert cache.prune("things", 0) == []
        assert [(folder / "data").exists() for folder in (mine, others)] == [True, True]
    user.kill()
    user.wait()
    assert sorted(cache.prune("things", 0)) == [mine, others]


def test_an_entry_that_is_whole_no_longer_is_made_again(cache):
    calls: list[Path] = []

    def use() -> None:
        with cache.entry("things", "key", maker(calls=calls), lambda folder: (folder / "data").exists()) as folder:
            assert sorted(path.name for path in folder.iterdir()) == ["data"]

    use()
    use()
    assert len(calls) == 1
    (cache.root / "things" / "key" / "data").rename(cache.root / "things" / "key" / "half")
    use()
    assert len(calls) == 2


def test_one_that_was_made_and_is_not_whole_is_an_error_and_no_circle(cache):
    calls: list[Path] = []

    def is_whole(_: Path) -> bool:
        assert len(calls) < 3, "it is made again and again"
        return False

    with (
        pytest.raises(ProjectError, match=r"things/key was made, but something of it is missing"),
        cache.entry("things", "key", maker(calls=calls), is_whole),
    ):
        pass
    assert len(calls) == 1
    assert [path.name for path in (cache.root / "things").iterdir()] == ["key.lock"]


def test_the_names_of_one_file_share_its_size(cache):
    shared = cache.root.parent / "shared"
    shared.write_bytes(bytes(900))

    def make(folder: Path) -> None:
        (folder / "deep").mkdir(parents=True)
        os.link(shared, folder / "one")
        os.link(shared, folder / "deep" / "two")
        (folder / "own").write_bytes(bytes(10))
        (folder / "link").symlink_to("own")

    with cache.entry("things", "a", make):
        pass
    assert cache.entries()[0].bytes == 900 * 2 // 3 + 10 + len("own")
    shared.unlink()
    cache.measure("things", "a")
    assert cache.entries()[0].bytes == 900 + 10 + len("own")

    def make_link(folder: Path) -> None:
        folder.mkdir()
        os.link(cache.root / "things" / "a" / "one", folder / "one")

    with cache.entry("things", "b", make_link):
        pass
    cache.measure("things", "a")
    assert sum(entry.bytes for entry in cache.entries()) == 900 + 10 + len("own"), "together, it counts once"


def test_files_that_vanish_while_they_are_counted_are_no_fault(cache, monkeypatch):
    folder = fill(cache, "shared")
    monkeypatch.setattr(os, "walk", lambda _: [(str(folder), [], ["data", "temporary"])])
    cache.measure("things", "shared")
    assert cache.entries()[0].bytes == 10


def test_what_a_killed_maker_left_is_pruned_and_what_is_being_made_is_not(cache):
    left = fill(cache, "left")
    left.with_suffix(".ready").unlink()

    def make(folder: Path) -> None:
        folder.mkdir()
        assert cache.prune("things", 10**6) == [left]
        assert folder.exists()

    with cache.entry("things", "key", make):
        assert cache.prune("things", 0) == []
