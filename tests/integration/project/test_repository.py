"""Real git throughout: over file://, and over http with a server that asks for a password."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.fetch import fetch
from mlflow_projects.project.git_authentication import GitCredentials
from mlflow_projects.project.repository import checked_out
from mlflow_projects.project.work_tree import head_commit
from tests.support.gitserver import GitServer
from tests.support.waiting import wait

TOKEN = "tok-5ecret-ghp_0123456789"


def text_of(root: Path) -> str:
    return (root / "MLproject").read_text()


def secret_in(*folders: Path) -> list[Path]:
    """Return the files below the folders whose bytes (or names) hold the token."""
    files = itertools.chain.from_iterable(folder.rglob("*") for folder in folders)
    return [f for f in files if TOKEN in str(f) or (f.is_file() and TOKEN.encode() in f.read_bytes())]


@pytest.fixture
def temp(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "temp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


# --- versions -------------------------------------------------------------------------------------


@pytest.fixture
def history(repository):
    """Return the repository and its commits: trunk (two commits), a branch, two kinds of tag."""
    commits = {"first": repository.git("rev-parse", "HEAD")}
    repository.git("tag", "light")
    repository.git("tag", "-a", "annotated", "-m", "x")
    commits["trunk"] = repository.commit("second")
    repository.git("checkout", "--quiet", "-b", "feature/x")
    commits["feature"] = repository.commit("third")
    repository.git("checkout", "--quiet", "trunk")
    return repository, commits


@pytest.mark.parametrize(
    ("version", "commit", "branch"),
    [
        (None, "trunk", "trunk"),
        ("trunk", "trunk", "trunk"),
        ("feature/x", "feature", "feature/x"),
        ("light", "first", None),
        ("annotated", "first", None),
        ("{first}", "first", None),
        ("{first:.7}", "first", None),
        ("{feature:.12}", "feature", None),
    ],
)
def test_a_version_gives_its_commit(version, commit, branch, history, cache):
    repository, commits = history
    with checked_out(repository.url, version and version.format(**commits), cache) as checkout:
        assert (checkout.commit, checkout.branch) == (commits[commit], branch)
        assert head_commit(checkout.root) == (commits[commit], repository.url, False)
        said = {"first": "first", "trunk": "second", "feature": "third"}[commit]
        assert f"echo {said}" in text_of(checkout.root)


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("none", "has no branch, tag or commit 'none'"),
        ("abcdef1", "has no branch, tag or commit 'abcdef1'"),
        ("a" * 40, f"has no commit {'a' * 40}"),
        ("--upload-pack=touch PWNED", "cannot be a git branch, tag or commit"),
        ("-x", "cannot be a git branch"),
        ("a b", "cannot be a git branch"),
        ("a..b", "cannot be a git branch"),
        ("HEAD~1", "cannot be a git branch"),
        ("refs/*", "cannot be a git branch"),
    ],
)
def test_a_version_that_does_not_exist_is_named(version, words, repository, cache):
    with pytest.raises(ProjectError, match=words), checked_out(repository.url, version, cache):
        pass


def test_an_empty_repository_is_said_to_be_empty(tmp_path, repository, cache):
    repository.git("init", "--quiet", "--bare", str(tmp_path / "empty.git"))
    with pytest.raises(ProjectError, match="is empty"), checked_out((tmp_path / "empty.git").as_uri(), None, cache):
        pass


def test_a_moved_branch_is_seen_also_after_history_was_rewritten(repository, cache):
    with checked_out(repository.url, "trunk", cache) as checkout:
        first = checkout.commit
    repository.git("commit", "--quiet", "--amend", "--message", "rewritten")
    repository.push()
    second = repository.commit("moved")
    with checked_out(repository.url, "trunk", cache) as checkout:
        assert checkout.commit == second != first
        assert "echo moved" in text_of(checkout.root)
    with checked_out(repository.url, first, cache) as checkout:
        assert "echo first" in text_of(checkout.root)


def test_a_known_commit_needs_no_remote(history, cache):
    repository, commits = history
    for version in ("trunk", "light"):
        with checked_out(repository.url, version, cache):
            pass
    shutil.rmtree(repository.bare)
    for version in (commits["trunk"], commits["trunk"][:9], commits["first"]):
        with checked_out(repository.url, version, cache) as checkout:
            assert (checkout.root / "MLproject").is_file()
    shutil.rmtree(cache.root / "checkouts")  # not even for a new checkout of it
    with checked_out(repository.url, commits["trunk"], cache) as checkout:
        assert "echo second" in text_of(checkout.root)


def test_a_known_commit_needs_neither_git_nor_its_package(history, cache, monkeypatch):
    repository, commits = history
    with checked_out(repository.url, "trunk", cache):
        pass
    monkeypatch.setitem(sys.modules, "git", None)  # importing it takes longer than all else
    monkeypatch.setenv("PATH", "/nowhere")
    with checked_out(repository.url, commits["trunk"], cache) as checkout:
        assert "echo second" in text_of(checkout.root)


def test_a_branch_whose_remote_is_gone_gives_one_clear_sentence(repository, cache):
    naps: list[float] = []
    with checked_out(repository.url, "trunk", cache):
        pass
    shutil.rmtree(repository.bare)
    with pytest.raises(ProjectError) as caught, checked_out(repository.url, "trunk", cache, sleep=naps.append):
        pass
    message = str(caught.value)
    assert message.startswith(f"The git repository {repository.url} cannot be read: ")
    assert "does not appear to be a git repository" in message
    assert "Check the URL" in message
    assert "\n" not in message
    assert naps == []  # no use in trying again


def test_an_unreachable_host_is_given_up_after_three_tries(cache):
    naps: list[float] = []
    url = "https://no-such-host.invalid/x.git"
    with pytest.raises(ProjectError) as caught, checked_out(url, None, cache, sleep=naps.append):
        pass
    assert "https://no-such-host.invalid/x.git cannot be read" in str(caught.value)
    assert "Check the host's name and the worker's network." in str(caught.value)
    assert naps == [1, 2]


def test_a_server_that_recovers_is_asked_again(repository, cache, monkeypatch):
    naps: list[float] = []
    with GitServer(repository.bare.parent) as server:
        handler = server._http.RequestHandlerClass
        answer = handler.run_backend
        busy = iter([True, True])
        monkeypatch.setattr(
            handler,
            "run_backend",
            lambda self, *request: self.send_error(503) if next(busy, False) else answer(self, *request),
        )
        with checked_out(f"{server.url}/project.git", "trunk", cache, sleep=naps.append) as checkout:
            assert "echo first" in text_of(checkout.root)
    assert naps == [1, 2]


@pytest.mark.parametrize("url", ["ext::sh -c touch% PWNED", "--upload-pack=touch PWNED", "fd::7", "ext::x/y"])
def test_a_url_that_would_run_a_command_is_refused(url, cache, workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    with pytest.raises(ProjectError, match="is not a git URL"), checked_out(url, None, cache):
        pass
    with pytest.raises(ProjectError):
        fetch(url, None, cache, workspace)
    assert list(workspace.iterdir()) == []


def test_a_submodule_cannot_run_a_command_either(repository, cache, workspace):
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},mod")
    repository.commit("evil", **{".gitmodules": f'[submodule "mod"]\npath=mod\nurl="ext::touch {workspace}/PWNED"\n'})
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},mod")
    repository.git("commit", "--quiet", "--message", "mod")
    repository.push()
    with pytest.raises(ProjectError, match="cannot be read"), checked_out(repository.url, None, cache):
        pass
    assert list(workspace.iterdir()) == []


def test_submodules_come_along_at_their_own_commit(repository, tmp_path, cache):
    library_ = type(repository)(tmp_path / "library")
    library_.commit("old")
    repository.git("submodule", "--quiet", "add", library_.url, "libs/shared")
    repository.commit("with a submodule")
    library_.commit("new, not used")
    with checked_out(repository.url, None, cache) as checkout:
        assert "echo old" in text_of(checkout.root / "libs/shared")


# --- sharing --------------------------------------------------------------------------------------


def test_twenty_tasks_at_once_share_one_fetch_and_one_checkout(repository, cache):
    commit = repository.git("rev-parse", "HEAD")
    gate = threading.Barrier(20)
    with GitServer(repository.bare.parent) as server:

        def task(number: int) -> tuple[str, Path]:
            gate.wait()
            with checked_out(f"{server.url}/project.git", "trunk", cache) as checkout:
                assert "echo first" in text_of(checkout.root)
                return checkout.commit, checkout.root

        with ThreadPoolExecutor(20) as pool:
            results = set(pool.map(task, range(20)))
        assert server.fetches == 1
    assert len(results) == 1
    assert results.pop()[0] == commit


def test_a_known_commit_costs_no_request_at_all(repository, cache):
    with GitServer(repository.bare.parent) as server:
        url = f"{server.url}/project.git"
        with checked_out(url, "trunk", cache) as checkout:
            commit = checkout.commit
        before = len(server.requests)
        with checked_out(url, commit, cache), checked_out(url, commit[:10], cache):
            pass
        assert len(server.requests) == before > 0


def test_a_project_that_writes_into_its_copy_changes_no_later_attempt(repository, cache, tmp_path):
    for attempt in ("one", "two"):
        workspace = tmp_path / attempt
        workspace.mkdir()
        fetched = fetch(repository.url, "trunk", cache, workspace)
        root = fetched.project.root
        assert root == workspace / "project"
        assert sorted(f.name for f in root.iterdir()) == [".git", "MLproject", "sub"]
        assert "echo first" in text_of(root)
        (root / "MLproject").write_text("name: changed\n")
        (root / "new").touch()
        shutil.rmtree(root / "sub")
        shutil.rmtree(root / ".git")


# --- a private repository -------------------------------------------------------------------------


@pytest.fixture
def private(repository):
    with GitServer(repository.bare.parent, "ada", TOKEN) as server:
        yield server


@pytest.mark.parametrize(
    ("credentials", "prefix"),
    [
        (GitCredentials("ada", TOKEN), ""),
        (GitCredentials("", TOKEN), "ada@"),  # a user in the URL, as some hosts write it
        (GitCredentials("ada", TOKEN), "somebody@"),
    ],
)
def test_the_right_token_opens_a_private_repository(credentials, prefix, private, cache, workspace):
    uri = f"{private.url}/project.git#sub/dir".replace("://", f"://{prefix}")
    fetched = fetch(uri, None, cache, workspace, credentials)
    assert fetched.project.name == "deep"
    assert fetched.source.name == f"{private.url}/project.git#sub/dir"
    assert fetched.source.repo_url == f"{private.url}/project.git"


@pytest.mark.parametrize(
    ("credentials", "words"),
    [
        (None, "could not read Username"),
        (GitCredentials("ada", "wrong"), "Authentication failed"),
        (GitCredentials("eve", TOKEN), "Authentication failed"),
        (GitCredentials("", ""), "Authentication failed"),
    ],
)
def test_no_or_a_wrong_token_gives_one_clear_sentence(credentials, words, private, cache):
    naps: list[float] = []
    url = f"{private.url}/project.git"
    with pytest.raises(ProjectError) as caught, checked_out(url, None, cache, credentials, sleep=naps.append):
        pass
    message = str(caught.value)
    assert message.startswith(f"The git repository {private.url}/project.git cannot be read: {words}")
    assert message.endswith("Check the user and the token (or key) of the connection in git_conn_id.")
    assert "\n" not in message
    assert naps == []


def test_the_token_stays_on_no_disk_though_the_machine_stores_passwords(private, cache, workspace, temp, quiet_home):
    (quiet_home / ".gitconfig").write_text("[credential]\n\thelper = store\n\tuseHttpPath = true\n")
    fetched = fetch(f"{private.url}/project.git", "trunk", cache, workspace, GitCredentials("ada", TOKEN))
    assert any(request.authorization for request in private.requests)
    assert len(list(cache.root.rglob("config"))) >= 2  # the mirror's and the checkout's were looked at
    assert secret_in(cache.root, workspace, temp, quiet_home) == []
    assert TOKEN not in repr(fetched)
    assert [f.name for f in quiet_home.iterdir()] == [".gitconfig"]
    assert list(temp.iterdir()) == []


def test_the_token_is_in_no_exception(private, cache, workspace, temp):
    for url, version, user in (
        (f"{private.url}/none.git", None, "ada"),
        (f"{private.url}/project.git", "none", "ada"),
        (f"{private.url}/project.git", None, "eve"),
    ):
        with pytest.raises(ProjectError) as caught:
            fetch(url, version, cache, workspace, GitCredentials(user, TOKEN))
        error: BaseException | None = caught.value
        while error:  # also those that "from None" hides
            assert TOKEN not in str(error) + repr(error)
            error = error.__cause__ or error.__context__
        assert TOKEN not in "".join(traceback.format_exception(caught.value, chain=True))
    assert secret_in(cache.root, workspace, temp) == []
    assert list(temp.iterdir()) == []


def test_the_token_is_in_no_process_while_git_runs(private, repository, tmp_path, cache, workspace, temp):
    submodule = type(repository)(tmp_path / "library")
    submodule.commit("lib")
    shutil.move(submodule.bare, repository.bare.parent / "lib.git")
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{submodule.git('rev-parse', 'HEAD')},lib")
    (repository.tree / "lib").mkdir()
    modules = '[submodule "lib"]\npath=lib\nurl=../lib.git\n'
    (repository.tree / ".gitmodules").write_text(modules)
    repository.git("add", ".gitmodules")
    repository.git("commit", "--quiet", "--message", "submodule")
    repository.push()
    seen: set[bytes] = set()
    on_disk: list[Path] = []
    done, begun = threading.Event(), 0

    def look_meanwhile() -> None:
        before = begun
        wait(lambda: begun > before + 1 or done.is_set(), "a whole look at the processes")
        on_disk.extend(secret_in(cache.root, workspace, temp))

    private.before_answer = look_meanwhile

    def watch() -> None:
        nonlocal begun
        while not done.is_set():
            begun += 1
            for process in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    command = (process / "cmdline").read_bytes()
                    if int(process.name) != os.getpid() and b"git" in command:
                        seen.add(command + b"\0\0" + (process / "environ").read_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        fetched = fetch(f"{private.url}/project.git", None, cache, workspace, GitCredentials("ada", TOKEN))
    finally:
        done.set()
        watcher.join()
    assert "echo lib" in text_of(fetched.project.root / "lib")  # the submodule is as private
    for subcommand in (b"ls-remote", b"fetch", b"submodule", b"remote-http"):
        assert any(subcommand in process for process in seen), f"{subcommand!r} was not observed"
    assert any(b"GIT_ASKPASS=" in process for process in seen)
    assert not [process for process in seen if TOKEN.encode() in process]
    assert on_disk + secret_in(cache.root, workspace, temp) == []


def test_a_submodule_on_another_host_does_not_get_the_token(private, repository, tmp_path, cache, workspace):
    with GitServer(repository.bare.parent, "ada", TOKEN) as stranger:
        modules = f'[submodule "lib"]\npath=lib\nurl={stranger.url}/project.git\n'
        repository.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},lib")
        (repository.tree / "lib").mkdir()
        (repository.tree / ".gitmodules").write_text(modules)
        repository.git("add", ".gitmodules")
        repository.git("commit", "--quiet", "--message", "submodule")
        repository.push()
        with pytest.raises(ProjectError, match="cannot be read"):
            fetch(f"{private.url}/project.git", None, cache, workspace, GitCredentials("ada", TOKEN))
        assert stranger.requests
        assert {request.authorization for request in stranger.requests} == {None}


def test_credentials_hide_their_secrets_when_printed():
    text = repr(GitCredentials("ada", TOKEN, private_key="-----BEGIN KEY-----"))
    assert "ada" in text
    assert TOKEN not in text
    assert "BEGIN" not in text


@pytest.mark.parametrize("suffix", ["git", "zip"])
def test_a_token_in_the_place_of_the_user_is_not_repeated_either(suffix, cache, workspace, monkeypatch):
    monkeypatch.setattr("mlflow_projects.project.repository._NETWORK_TRIES", 1)
    with pytest.raises(ProjectError) as caught:
        fetch(f"http://ghp_T0KEN@127.0.0.1:9/x.{suffix}", None, cache, workspace, GitCredentials())
    assert f"http://127.0.0.1:9/x.{suffix} cannot be" in str(caught.value)
    assert "T0KEN" not in str(caught.value)
    found = subprocess.run(["grep", "-r", "T0KEN", str(cache.root)], capture_output=True)
    assert found.returncode == 1
