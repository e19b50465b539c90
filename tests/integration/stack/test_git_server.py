"""custom_images/git/git_server.py, the service ``git`` of docker-compose.yaml, with git itself as its client."""

from __future__ import annotations

import http.client
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.gitserver import GitServer, basic

PASSWORD = "a-password-of-the-test"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    folder = tmp_path / "repositories"
    folder.mkdir()
    with GitServer(folder, "me", PASSWORD) as running:
        yield running


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Return a repository with one commit on the branch ``trunk``, of more bytes than git sends without chunks."""
    folder = tmp_path / "work"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=trunk")
    (folder / "big").write_bytes(os.urandom(3_000_000))
    git(folder, "add", ".")
    git(folder, "-c", "user.name=me", "-c", "user.email=me@example.com", "commit", "--quiet", "--message=first")
    return folder


def git(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(
        ["git", *arguments], cwd=folder, check=False, capture_output=True, text=True, env=environment, timeout=120
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def url_of(server: GitServer, name: str, password: str = PASSWORD) -> str:
    return server.url.replace("//", f"//me:{password}@") + f"/{name}"


def test_a_push_makes_the_repository_and_a_clone_has_all_of_it(server: GitServer, work: Path, tmp_path: Path) -> None:
    git(work, "push", "--quiet", url_of(server, "projects.git"), "trunk")
    git(tmp_path, "clone", "--quiet", url_of(server, "projects.git"), "clone")
    assert (tmp_path / "clone" / "big").read_bytes() == (work / "big").read_bytes()
    assert git(tmp_path / "clone", "branch", "--show-current").stdout == "trunk\n"


def test_nobody_comes_in_without_the_password(server: GitServer, work: Path) -> None:
    git(work, "push", "--quiet", url_of(server, "projects.git"), "trunk")
    for password in ("", "wrong", PASSWORD[:-1], f"{PASSWORD}x"):
        for command in ("push", "fetch"):
            done = git(work, command, url_of(server, "projects.git", password), "trunk", check=False)
            assert done.returncode != 0
            assert "Authentication failed" in done.stderr
    assert not (server.root / "other.git").exists()
    address = f"{server.url}/other.git/info/refs?service=git-receive-pack"
    for header in (None, "", "Basic", "Basic bWU6", "Bearer x", "Basic \xfc"):
        headers = {} if header is None else {b"Authorization": header.encode("latin-1")}
        answer = httpx.get(address, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic")
    assert not (server.root / "other.git").exists()
    assert httpx.get(f"{server.url}/health").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../out.git/info/refs?service=git-receive-pack",
        "/%2e%2e/out.git/info/refs?service=git-receive-pack",
        "/..%2fout.git/info/refs?service=git-receive-pack",
        "/.git/info/refs?service=git-receive-pack",
        "/folder/out.git/info/refs?service=git-receive-pack",
        "/projects.git/objects/in.git/info/refs?service=git-receive-pack",
        "/out/info/refs?service=git-receive-pack",
        "/projects.git/config",
        "/projects.git/hooks/post-receive",
        "/",
    ],
)
def test_only_repositories_in_the_folder_can_be_reached(server: GitServer, path: str, tmp_path: Path) -> None:
    git(server.root, "init", "--quiet", "--bare", "projects.git")
    before = {*tmp_path.rglob("*")}
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)  # sends the path as it is
    connection.request("GET", path, headers={"Authorization": basic("me", PASSWORD)})
    assert connection.getresponse().status == 404
    connection.close()
    assert {*tmp_path.rglob("*")} == before


def test_a_fetch_makes_no_repository(server: GitServer, work: Path) -> None:
    assert git(work, "fetch", url_of(server, "none.git"), check=False).returncode != 0
    assert not list(server.root.iterdir())
