"""Checkpoints: whole or not at all, bounded, and nothing removed that is not ours."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from mlflow_projects.attempt import checkpoint as module
from mlflow_projects.attempt.checkpoint import Checkpoint, CheckpointSettings, kept_checkpoint
from mlflow_projects.backends.object_store import object_store
from mlflow_projects.exceptions import ProjectError, StepFailedError
from mlflow_projects.tracking.record import TaskIdentity

KEY = TaskIdentity("dag", "run", "task", 1, "attempt").key
OLD = time.time() - 15 * 86_400


@pytest.fixture
def log() -> list[str]:
    return []


def use(location: Path | str, workspace: Path, log: list[str], key: str = KEY, **settings: Any) -> Any:
    workspace.mkdir()
    return kept_checkpoint(CheckpointSettings(str(location), **settings), key, workspace, None, log.append)


def files(checkpoint: Checkpoint) -> dict[str, str]:
    paths = (path for path in checkpoint.folder.rglob("*") if path.is_file())
    return {path.relative_to(checkpoint.folder).as_posix(): path.read_text() for path in paths}


def test_the_tries_of_a_task_instance_share_a_key_and_nobody_else_has_it() -> None:
    same = [TaskIdentity("d", "r", "t", number, f"a{number}", map_index=0).key for number in (1, 2)]
    others = [
        TaskIdentity("d", "r", "t", 1, "a", map_index=1).key,
        TaskIdentity("d", "r2", "t", 1, "a", map_index=0).key,
        TaskIdentity("d-r", "", "t", 1, "a", map_index=0).key,
        TaskIdentity("d/../..", "r", "t", 1, "a", map_index=0).key,
    ]
    assert same[0] == same[1]
    assert len({same[0], *others}) == 5
    assert not any("/" in key or ".." in key for key in others)


@pytest.mark.parametrize("kind", ["folder", "store"])
def test_what_a_failed_attempt_leaves_is_there_until_one_succeeds(kind: str, tmp_path: Path, log: list[str]) -> None:
    location = tmp_path / "kept" if kind == "folder" else f"file://{tmp_path}/kept"
    with pytest.raises(StepFailedError), use(location, tmp_path / "1", log) as checkpoint:
        (checkpoint.folder / "sub").mkdir()
        (checkpoint.folder / "sub" / "epoch").write_text("1")
        (checkpoint.folder / "same").write_text("same")
        raise StepFailedError("the command failed")
    with use(location, tmp_path / "2", log) as checkpoint:
        assert files(checkpoint) == {"sub/epoch": "1", "same": "same"}
        (checkpoint.folder / "sub" / "epoch").write_text("2")
    with use(location, tmp_path / "3", log) as checkpoint:
        assert files(checkpoint) == {"sub/epoch": "2", "same": "same"}
        checkpoint.clear()
    assert [path for path in (tmp_path / "kept").rglob("*") if path.is_file()] == []
    with use(location, tmp_path / "4", log) as checkpoint:
        assert files(checkpoint) == {}


def test_only_changed_files_are_uploaded_while_the_command_runs(tmp_path: Path, log: list[str]) -> None:
    location = f"file://{tmp_path}/kept"

    def stored() -> set[str]:
        return {name for name in object_store(location, None).changes() if "/data/" in name}

    with use(location, tmp_path / "1", log, upload_every=0.05) as checkpoint:
        (checkpoint.folder / "large").write_text("x")
        _wait_for(lambda: len(stored()) == 1)
        (large,) = stored()
        (checkpoint.folder / "epoch").write_text("1")
        _wait_for(lambda: len(stored()) == 2)
        (checkpoint.folder / "epoch").write_text("two")
        _wait_for(lambda: len(stored()) == 2 and large in stored() and _content(location) == {"x", "two"})
    assert large in stored(), "it did not change, so it was not uploaded again"
    assert log == []


def _content(location: str) -> set[str]:
    store = object_store(location, None)
    return {(store.read(name) or b"").decode() for name in store.changes() if "/data/" in name}


def _wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_upload_that_breaks_off_leaves_the_checkpoint_before(
    tmp_path: Path, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    location = f"file://{tmp_path}/kept"
    with use(location, tmp_path / "1", log) as checkpoint:
        for name in "abc":
            (checkpoint.folder / name).write_text("old")
    store_class = type(object_store(location, None))
    put, calls = store_class.put, []

    def breaking(self: Any, name: str, content: Any) -> None:
        calls.append(name)
        if len(calls) == 2:
            raise StepFailedError("the network is gone")
        put(self, name, content)

    monkeypatch.setattr(store_class, "put", breaking)
    with use(location, tmp_path / "2", log) as checkpoint:
        for name in "abc":
            (checkpoint.folder / name).write_text("newer")
    assert log[-1] == "The checkpoint is not uploaded: the network is gone"
    monkeypatch.undo()
    with use(location, tmp_path / "3", log) as checkpoint:
        assert files(checkpoint) == dict.fromkeys("abc", "old")
    assert _content(location) == {"old"}, "nothing of the broken upload is left"


def test_a_round_in_which_a_file_changes_does_not_count(
    tmp_path: Path, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    location = f"file://{tmp_path}/kept"
    store_class = type(object_store(location, None))
    put = store_class.put
    with use(location, tmp_path / "1", log) as checkpoint:
        (checkpoint.folder / "a").write_text("whole")

        def meanwhile(self: Any, name: str, content: Any) -> None:
            put(self, name, content)
            if isinstance(content, Path):
                content.write_text("still being written")

        monkeypatch.setattr(store_class, "put", meanwhile)
    assert object_store(location, None).changes() == {}


def test_old_checkpoints_go_when_a_new_one_is_made_and_other_folders_stay(tmp_path: Path, log: list[str]) -> None:
    kept = tmp_path / "kept"
    old, young = (TaskIdentity("d", "r", name, 1, "a").key for name in ("old", "young"))
    not_ours = "0123456789abcdef" * 2  # the name of an MLflow run's folder, say
    for name in (old, young, not_ours):
        (kept / name).mkdir(parents=True)
        (kept / name / "file").touch()
        if name != young:
            os.utime(kept / name / "file", (OLD, OLD))
            os.utime(kept / name, (OLD, OLD))
    with use(kept, tmp_path / "1", log, days=14):
        assert sorted(path.name for path in kept.iterdir()) == sorted([KEY, young, not_ours])
    assert log == [f"Removing the checkpoint {kept / old}, unchanged for more than 14 days."]


def test_old_checkpoints_on_an_object_store_go_too(tmp_path: Path, log: list[str]) -> None:
    location = f"file://{tmp_path}/kept"
    old = TaskIdentity("d", "r", "old", 1, "a").key
    with use(location, tmp_path / "1", log, key=old) as checkpoint:
        (checkpoint.folder / "a").write_text("a")
    for path in (tmp_path / "kept" / old).rglob("*"):
        os.utime(path, (OLD, OLD))
    (tmp_path / "kept" / "readme.txt").write_text("not ours")
    os.utime(tmp_path / "kept" / "readme.txt", (OLD, OLD))
    with use(location, tmp_path / "2", log, days=14):
        pass
    assert list(object_store(location, None).changes()) == ["readme.txt"]


def test_a_place_that_cannot_be_used_is_told_in_one_sentence(tmp_path: Path, log: list[str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ProjectError, match=r"name another one in \[mlflow_projects\] checkpoint_dir"):
        with use(tmp_path / "file", tmp_path / "1", log):
            pass
    with pytest.raises(ProjectError, match="nosuch://bucket/x cannot be used on this worker"):
        with use("nosuch://bucket/x", tmp_path / "2", log):
            pass


def test_a_manifest_cannot_write_outside_the_folder(tmp_path: Path, log: list[str]) -> None:
    manifest = b'{"files": {"../outside": {"object": "data/x", "size": 1, "changed": 1}}}'
    object_store(f"file://{tmp_path}/kept", None).put(f"{KEY}/manifest.json", manifest)
    with pytest.raises(ProjectError, match="outside its folder"):
        with use(f"file://{tmp_path}/kept", tmp_path / "1", log):
            pass


@pytest.mark.parametrize("kind", ["folder", "store"])
def test_a_link_a_pipe_or_a_deep_folder_stops_nobody_and_brings_nothing_from_elsewhere(
    kind: str, tmp_path: Path, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_FOLDERS", 2)  # Python's limit is hard to clean up after
    location = tmp_path / "kept" if kind == "folder" else f"file://{tmp_path}/kept"
    (tmp_path / "secret").write_text("of the worker")
    with use(location, tmp_path / "1", log) as checkpoint:
        (checkpoint.folder / "epoch").write_text("1")
        (checkpoint.folder / "latest").symlink_to("epoch")
        (checkpoint.folder / "itself").symlink_to("itself")
        (checkpoint.folder / "elsewhere").symlink_to(tmp_path / "secret")
        os.mkfifo(checkpoint.folder / "pipe")
        (checkpoint.folder / "a/b/c").mkdir(parents=True)
        (checkpoint.folder / "a/b/c/deep").touch()
    with use(location, tmp_path / "2", log, key=TaskIdentity("d", "r", "other", 1, "a").key):
        pass
    with use(location, tmp_path / "3", log) as checkpoint:
        found = files(checkpoint) if kind == "store" else {}
    assert found == ({"epoch": "1", "latest": "1"} if kind == "store" else {})
    assert " 2 checkpoint file(s)" in log[-1]


def test_an_old_checkpoint_that_cannot_be_removed_stops_nothing(
    tmp_path: Path, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = [TaskIdentity("d", "r", name, 1, "a").key for name in ("one", "two")]
    for name in old:
        (tmp_path / "kept" / name).mkdir(parents=True)
        os.utime(tmp_path / "kept" / name, (OLD, OLD))
    tried = []

    def refuse(folder: Path) -> None:
        tried.append(folder.name)
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "remove", refuse)
    with use(tmp_path / "kept", tmp_path / "1", log):
        pass
    assert sorted(tried) == sorted(old)
    assert sum("cannot be removed (Permission denied)" in line for line in log) == 2
