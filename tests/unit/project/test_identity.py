"""The hash of a project's folder: what changes it, and what does not."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project import identity
from mlflow_projects.project.cache import Cache
from mlflow_projects.project.fetch import fetch
from mlflow_projects.project.identity import path_hash, tree_hash

# Letters that git, a shell and a naive separator would each treat in a way of their own.
NAMES = st.text(alphabet="ab \n\"'*?!#-.é\\", min_size=1, max_size=6).filter(
    lambda name: name not in (".", "..") and not name.startswith(".git")
)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
TREES = st.dictionaries(PATHS, st.tuples(st.binary(max_size=20), st.booleans()), min_size=1, max_size=5).filter(
    lambda tree: not any(one != other and other.startswith(f"{one}/") for one in tree for other in tree)
)
QUICK = settings(max_examples=25, deadline=None)
GOLDEN = (
    "145d96dc9fd1c3eb09fedb159accbdb56b56791fa5e8e3f5a4ec89afd8d36a8b",
    "677f6ae44906a85d664e2f83505ab5c4726a2894d3b9438d334eeea1a1bb27de",
    "82e54818f4d50d368b00082d17bc8d8832f2992b2c34920a5577a26fad7b6dd3",
    "2cba8227eba39cfd7a6f8f8bd3e032a43a31799ff4560f751ccfaee02ffa03ec",
)


def write(folder: Path, tree: dict[str, tuple[bytes, bool]]) -> Path:
    for name, (content, executable) in tree.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(0o755 if executable else 0o644)
    return folder


def git(folder: Path, *arguments: str) -> None:
    user = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", str(folder), *user, *arguments], check=True, capture_output=True)


def commit(folder: Path, message: str = "x") -> None:
    git(folder, "init", "--quiet")
    git(folder, "add", "--all", "--force", ".")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", message)


@QUICK
@given(tree=TREES, other=TREES)
def test_two_trees_have_the_same_hash_only_if_they_are_the_same(tree: dict, other: dict) -> None:
    with tempfile.TemporaryDirectory() as a, tempfile.TemporaryDirectory() as b:
        assert (tree_hash(write(Path(a), tree)) == tree_hash(write(Path(b), other))) == (tree == other)


@QUICK
@given(tree=TREES, data=st.data())
def test_every_byte_name_and_mode_counts(tree: dict, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(tree)))
    content, executable = tree[name]
    with tempfile.TemporaryDirectory() as folder:
        root = write(Path(folder), tree)
        before, file = tree_hash(root), root / name
        times = file.stat()
        at = data.draw(st.integers(0, len(content)))
        if at < len(content):  # one bit of one byte, size and time as before
            file.write_bytes(
                content[:at] + bytes([content[at] ^ (1 << data.draw(st.integers(0, 7)))]) + content[at + 1 :]
            )
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        else:
            file.write_bytes(content + b"\0")
        assert tree_hash(root) != before
        file.write_bytes(content)
        assert tree_hash(root) == before
        file.chmod(0o644 if executable else 0o755)
        assert tree_hash(root) != before
        file.chmod(0o755 if executable else 0o644)
        new = data.draw(NAMES.filter(lambda new: not os.path.lexists(file.with_name(new))))
        file.rename(file.with_name(new))
        assert tree_hash(root) != before
        file.with_name(new).unlink()
        assert tree_hash(root) != before
        file.symlink_to("/somewhere")
        link = tree_hash(root)
        file.unlink()
        file.symlink_to("/elsewhere")
        assert len({before, link, tree_hash(root)}) == 3


@QUICK
@given(tree=TREES)
def test_place_time_order_and_git_do_not_count(tree: dict) -> None:
    with tempfile.TemporaryDirectory() as a, tempfile.TemporaryDirectory() as b:
        first = write(Path(a) / "one", tree)
        expected = tree_hash(first)
        second = write(Path(b) / "another name", dict(reversed(tree.items())))
        os.utime(second / next(iter(tree)), (1, 1))
        (second / "-empty-").mkdir()
        (second / "__pycache__").mkdir()
        (second / "__pycache__" / "x.pyc").write_bytes(b"x")
        assert tree_hash(second) == expected
        commit(first)
        assert tree_hash(first) == expected
        commit(first, "the same tree again")
        assert tree_hash(first) == expected


@QUICK
@given(pieces=st.lists(st.binary(min_size=1, max_size=3), min_size=2, max_size=2), cut=st.integers(1, 5))
def test_no_two_trees_run_into_each_other(pieces: list[bytes], cut: int) -> None:
    """The same bytes, cut elsewhere into names and contents, are something else."""
    whole = b"".join(pieces)
    assume(cut < len(whole))
    with tempfile.TemporaryDirectory() as a, tempfile.TemporaryDirectory() as b:
        one = write(Path(a), {"x": (pieces[0], False), "y": (pieces[1], False)})
        other = write(Path(b), {"x": (whole[:cut], False), "y": (whole[cut:], False)})
        assert (tree_hash(one) == tree_hash(other)) == (pieces == [whole[:cut], whole[cut:]])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write(tmp_path / "repo" / "project", {"MLproject": (b"name: x\n", False), "run.py": (b"1\n", False)})


@pytest.mark.parametrize("place", ["no repository", "a repository", "an ignored folder of a repository"])
def test_what_git_ignores_does_not_count(project: Path, place: str) -> None:
    if place != "no repository":
        ignored = {".gitignore": (b"project\n" if "ignored" in place else b"", False)}
        commit(write(project.parent, ignored))
    (project / ".gitignore").write_text("*.log\n!kept.log\n/out/\n")
    before = tree_hash(project)
    write(project, {"a.log": (b"1", False), "out/x": (b"2", False), "sub/b.log": (b"", False)})
    assert tree_hash(project) == before
    hashes = {before}
    for changed in ("kept.log", "sub/out/x", "new.py", "run.py"):
        write(project, {changed: (b"2", False)})
        hashes.add(tree_hash(project))
    (project / "run.py").unlink()
    assert len(hashes | {tree_hash(project)}) == 6


def test_a_tracked_file_counts_although_git_ignores_its_kind(project: Path) -> None:
    write(project, {".gitignore": (b"*.log\n", False), "a.log": (b"1", False)})
    commit(project)
    before = tree_hash(project)
    (project / "a.log").write_text("2")
    assert tree_hash(project) != before


def test_a_repository_inside_counts_by_its_files(project: Path) -> None:
    commit(project)
    commit(write(project / "inner", {"x": (b"1", False)}))
    before = tree_hash(project)
    (project / "inner" / "x").write_text("2")
    assert tree_hash(project) != before


def test_repositories_within_each_other_have_a_limit(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for depth in ("sub", "sub/sub", "sub/sub/sub"):
        (project / depth).mkdir(exist_ok=True)
        commit(project / depth)
    monkeypatch.setattr(identity, "_MAX_LEVELS", 3)
    assert tree_hash(project)
    monkeypatch.setattr(identity, "_MAX_LEVELS", 2)
    with pytest.raises(ProjectError, match="sub/sub/sub is a git repository within 3 others; at most 2 are entered"):
        tree_hash(project)


def test_folder_commit_and_zip_of_the_same_files_are_the_same(project: Path, tmp_path: Path) -> None:
    write(project, {"bin/tool": (b"#!/bin/sh\n", True)})
    commit(project.parent)
    zipped = shutil.make_archive(str(tmp_path / "zipped"), "zip", project)
    cache = Cache(project.parent / "cache")  # inside the repository, as .airflow is in a clone
    (project.parent / ".git" / "info" / "exclude").write_text("cache\n")
    git(project, "branch", "--move", "--force", "same")
    branch, found = "same", []
    for n, (uri, version) in enumerate([(f"{project.parent}#project", None), (f"{project.parent}#project", branch),
                                        (zipped, None)]):  # fmt: skip
        workspace = project.parent / "cache" / f"work{n}"
        workspace.mkdir(parents=True)
        fetched = fetch(uri, version, cache, workspace)
        found.append(tree_hash(fetched.project.root))
    assert len(set(found)) == 1


def test_without_git_every_file_counts(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = tree_hash(project)
    monkeypatch.setenv("PATH", "/nowhere")
    assert tree_hash(project) == expected
    write(project, {".gitignore": (b"*.log\n", False)})
    before = tree_hash(project)
    write(project, {"a.log": (b"1", False), "__pycache__/x": (b"1", False), ".git/x": (b"1", False)})
    assert tree_hash(project) != before


def test_an_input_counts_with_all_that_is_in_it(project: Path, tmp_path: Path) -> None:
    write(project, {".gitignore": (b"*.csv\n", False), "data.csv": (b"1", False)})
    before = path_hash(project), path_hash(project / "data.csv")
    shutil.copytree(project, tmp_path / "copy")
    (tmp_path / "copy" / "data.csv").rename(tmp_path / "renamed")
    assert path_hash(tmp_path / "renamed") == before[1]
    (project / "data.csv").write_text("2")
    assert [path_hash(project) != before[0], path_hash(project / "data.csv") != before[1]] == [True, True]


def test_what_cannot_be_read_is_named_or_does_not_hang(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(project / "pipe")
    monkeypatch.chdir(project)
    with socket.socket(socket.AF_UNIX) as channel:
        channel.bind("channel")
        tree_hash(project)
        path_hash(project)

    def refuse(*_: object) -> tuple[bytes, bytes]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(identity, "_content", refuse)  # root may read everything
    with pytest.raises(ProjectError, match="cannot be read: Permission denied"):
        tree_hash(project)


def test_a_hash_is_the_same_in_every_release(tmp_path: Path) -> None:
    """Another one, and no earlier result is found any more: then the key's version must change too."""
    project = write(tmp_path / "project", {"a.txt": (b"content", False), "bin/tool": (b"", True)})
    (project / "link").symlink_to("a.txt")
    (project / "folder").symlink_to("bin")
    os.mkfifo(project / "pipe")
    assert path_hash(project / "a.txt") == GOLDEN[0]
    assert path_hash(project) == GOLDEN[1]
    (project / "pipe").unlink()
    assert tree_hash(project) == GOLDEN[2]
    commit(write(project / "inner", {"x": (b"1", False)}))
    assert tree_hash(project) == GOLDEN[3]


def test_a_file_that_is_tracked_but_gone_does_not_count(project: Path) -> None:
    before = tree_hash(project)
    write(project, {"gone.py": (b"1", False)})
    commit(project)
    (project / "gone.py").unlink()
    assert tree_hash(project) == before


def test_an_input_counts_with_its_hidden_folders(project: Path) -> None:
    before = path_hash(project)
    write(project, {".git/config": (b"1", False)})
    with_git = path_hash(project)
    write(project, {"__pycache__/x": (b"1", False)})
    assert len({before, with_git, path_hash(project)}) == 3


def test_without_git_links_count_and_what_python_and_git_write_does_not(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "folder").mkdir()
    (project / "link").symlink_to("folder")
    expected = tree_hash(project)
    write(project, {"sub/__pycache__/x": (b"1", False), "sub/.git": (b"gitdir: x", False)})
    monkeypatch.setenv("PATH", "/nowhere")
    assert tree_hash(project) == expected
    (project / "link").unlink()
    assert tree_hash(project) != expected


def test_gits_variables_of_another_repository_do_not_count(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(project)
    expected = tree_hash(project)
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_WORK_TREE", "/nowhere")
    assert tree_hash(project) == expected


def test_a_repository_that_git_cannot_read_is_read_as_a_folder(project: Path) -> None:
    write(project, {".gitignore": (b"*.log\n", False), "a.log": (b"1", False)})
    expected = tree_hash(project)
    commit(project)
    (project / "a.log").unlink()
    git(project, "add", "--all")
    (project / ".git" / "index").write_bytes(b"broken")
    assert tree_hash(project) == expected


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}


def test_a_copy_has_what_counts_and_gits_own_files(project: Path, tmp_path: Path) -> None:
    (project / "ignored").mkdir()
    for name in ("kept.py", "left.log", "ignored/a.txt"):
        (project / name).write_text(name)
    (project / ".gitignore").write_text("*.log\nignored/\n")
    (project / "link").symlink_to("kept.py")
    (project / "lost").symlink_to("nowhere")
    git(project, "init", "--quiet")
    os.mkfifo(project / "pipe")
    before = names_in(project)
    copy = tmp_path / "copy"
    identity.copy_tree(project, copy)
    assert names_in(copy) == before - {"left.log", "ignored/a.txt", "pipe"}
    assert (copy / "link").readlink() == Path("kept.py")
    assert (copy / ".git" / "HEAD").is_file()
    assert tree_hash(copy) == tree_hash(project)


def test_a_copy_has_a_repository_inside_whole(project: Path, tmp_path: Path) -> None:
    inner = write(project / "inner", {"a.py": (b"a", False), "deep/b.py": (b"b", True)})
    commit(inner)
    commit(project)
    copy = tmp_path / "copy"
    identity.copy_tree(project, copy)
    assert {"inner/a.py", "inner/deep/b.py", "inner/.git/HEAD"} <= names_in(copy)
    assert os.access(copy / "inner" / "deep" / "b.py", os.X_OK)
    assert tree_hash(copy) == tree_hash(project)


def test_a_copy_of_a_plain_folder_has_no_pipes_and_sockets(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain", {"a.py": (b"a", False), "deep/b.py": (b"b", False)})
    (plain / "empty").mkdir()
    os.mkfifo(plain / "deep" / "pipe")
    copy = tmp_path / "copy"
    identity.copy_tree(plain, copy)
    assert names_in(copy) == {"a.py", "deep/b.py"}
    assert not (copy / "empty").exists()
