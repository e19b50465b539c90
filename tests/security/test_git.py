"""What a git repository says, no git of ours obeys; and git sees nothing of Airflow's secrets."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project import git_command, local_repository
from mlflow_projects.project.cache import Cache
from mlflow_projects.project.fetch import fetch
from mlflow_projects.project.git_authentication import GitCredentials
from mlflow_projects.project.identity import tree_hash
from mlflow_projects.project.work_tree import head_commit
from tests.support.repository import Repository
from tests.support.servers import free_port
from tests.support.waiting import wait

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")

Trap = Callable[[Repository, str], Path]
TRAPS: dict[str, Trap] = {}


def trap(function: Trap) -> Trap:
    TRAPS[function.__name__.replace("_", " ")] = function
    return function


@trap
def a_monitor_of_the_files(repository: Repository, command: str) -> Path:
    repository.git("config", "core.fsmonitor", command)
    return repository.tree


@trap
def a_filter(repository: Repository, command: str) -> Path:
    repository.git("config", "filter.x.clean", command)
    (repository.tree / ".gitattributes").write_text("* filter=x\n")
    os.utime(repository.tree / "MLproject", (0, 0))  # git would compare the content
    return repository.tree


@trap
def a_filter_that_stays_alive(repository: Repository, command: str) -> Path:
    repository.git("config", "filter.x.process", command)
    (repository.tree / ".git/info/attributes").write_text("* filter=x\n")
    os.utime(repository.tree / "MLproject", (0, 0))  # git would compare the content
    return repository.tree


@trap
def a_hook(repository: Repository, command: str) -> Path:
    hook = repository.tree / ".git/hooks/post-index-change"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\n{command}\n")
    hook.chmod(0o755)
    os.utime(repository.tree / "MLproject", (0, 0))  # git would write its index anew
    return repository.tree


@trap
def an_included_file(repository: Repository, command: str) -> Path:
    (repository.tree / "more").write_text(f'[core]\n\tfsmonitor = "{command}"\n')
    repository.git("config", "include.path", "../more")
    return repository.tree


@trap
def settings_of_one_work_tree(repository: Repository, command: str) -> Path:
    repository.git("config", "extensions.worktreeConfig", "true")
    repository.git("config", "--worktree", "core.fsmonitor", command)
    return repository.tree


@trap
def a_file_that_leads_elsewhere(repository: Repository, command: str) -> Path:
    repository.git("config", "core.fsmonitor", command)
    project = repository.tree.parent / "elsewhere"
    project.mkdir()
    (project / "MLproject").write_text("name: x\n")
    (project / ".git").write_text(f"gitdir: {repository.tree / '.git'}\n")
    return project


@trap
def a_repository_among_the_files(repository: Repository, command: str) -> Path:
    project = repository.tree / "inner"
    subprocess.run(["git", "init", "--quiet", "--bare", str(project)], check=True)
    settings = f'[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tworktree = "."\n\tfsmonitor = "{command}"\n'
    (project / "config").write_text(settings)
    (project / "MLproject").write_text("name: x\n")
    repository.git("add", "--all")
    repository.git("commit", "--quiet", "--message", "inner")
    return project


@trap
def a_submodule(repository: Repository, command: str) -> Path:
    repository.git("submodule", "--quiet", "add", repository.url, "lib")
    repository.git("commit", "--quiet", "--message", "lib")
    repository.git("-C", "lib", "config", "core.fsmonitor", command)
    repository.git("-C", "lib", "config", "filter.x.clean", command)
    (repository.tree / "lib/.gitattributes").write_text("* filter=x\n")
    os.utime(repository.tree / "lib/MLproject", (0, 0))
    return repository.tree


@trap
def a_promise_of_what_is_missing(repository: Repository, command: str) -> Path:
    repository.git("config", "extensions.partialClone", "origin")
    repository.git("config", "remote.origin.promisor", "true")
    repository.git("config", "remote.origin.uploadpack", command)
    tree = repository.git("rev-parse", "HEAD^{tree}")
    (repository.tree / ".git/objects" / tree[:2] / tree[2:]).unlink()
    return repository.tree


@pytest.mark.parametrize("name", TRAPS)
def test_nothing_that_a_repository_names_is_run(
    name: str, repository: Repository, tmp_path: Path, cache: Cache, workspace: Path
) -> None:
    struck = tmp_path / "struck"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {struck}\nexit 1\n")
    program.chmod(0o755)
    project = TRAPS[name](repository, str(program))
    subprocess.run(["git", "status"], cwd=project, capture_output=True, check=False)
    assert struck.exists(), "the trap is none"
    struck.unlink()
    head_commit(project)
    tree_hash(project)
    with contextlib.suppress(ProjectError):  # what looks like a bare repository is fetched, and it is empty
        fetch(str(project), None, cache, workspace)
    assert not struck.exists()


@as_root
@pytest.mark.parametrize("trusted", [False, True])
def test_the_repository_of_another_user_is_read_without_git(
    trusted: bool, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = repository.git("rev-parse", "HEAD")
    repository.git("tag", "one")
    plain = tree_hash(repository.tree)
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", str(repository.tree)], check=True)
    url = str(repository.bare)
    dirs = [repository.tree.parent] if trusted else []
    for packed in (False, True):
        if packed:
            repository.git("-c", "safe.directory=*", "pack-refs", "--all")
        expected = (commit, url, False) if trusted else (commit, None, None)
        assert head_commit(repository.tree, None, dirs) == expected
    assert tree_hash(repository.tree, dirs) == plain  # honest files have the same hash
    monkeypatch.setenv("PATH", "")
    assert (head_commit(repository.tree, None, dirs) is None) == trusted


@as_root
def test_a_foreign_repository_above_is_not_that_of_a_folder_of_ours(repository: Repository) -> None:
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", str(repository.tree / ".git")], check=True)
    assert head_commit(repository.tree) is None
    assert head_commit(repository.tree / "sub") is None


@as_root
@pytest.mark.parametrize("scheme", ["", "file://", "FILE://"])
@pytest.mark.parametrize("kind", ["bare", "tree"])
def test_the_repository_of_another_user_is_not_fetched(
    kind: str, scheme: str, repository: Repository, cache: Cache, workspace: Path
) -> None:
    folder = getattr(repository, kind)
    subprocess.run(["chown", f"{NOBODY}:{NOBODY}", str(folder)], check=True)
    with pytest.raises(ProjectError, match="belongs to another user") as caught:
        fetch(f"{scheme}{folder}", "trunk", cache, workspace)
    assert "git_trusted_dirs" in str(caught.value)
    assert not (cache.root / "git").exists()


@pytest.mark.parametrize("content", [
    "ref: ../../../../etc/hostname", "ref: refs/../../../../etc/hostname", "ref: refs/heads/loop", "ref: ", "",
    "x" * 40,
])  # fmt: skip
def test_a_head_that_leads_nowhere_is_no_commit(content: str, repository: Repository) -> None:
    (repository.tree / ".git/refs/heads/loop").write_text("ref: refs/heads/loop\n")
    (repository.tree / ".git/HEAD").write_text(content)
    assert head_commit(repository.tree) is None


def test_a_head_that_may_not_be_read_is_no_commit(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    assert head_commit(repository.tree)

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(local_repository.os, "open", refuse)
        assert head_commit(repository.tree) is None


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(repository: Repository) -> None:
    for name in ("HEAD", "config", "index", "info/exclude"):
        path = repository.tree / ".git" / name
        path.unlink()
        os.mkfifo(path)
    assert head_commit(repository.tree) is None
    assert tree_hash(repository.tree)


@pytest.mark.parametrize("name", [".gitattributes", ".gitignore", ".git/objects/info/alternates"])
def test_a_pipe_for_which_git_itself_waits_is_given_up(
    name: str, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_command, "ASK_SECONDS", 0.5)
    (repository.tree / name).unlink(missing_ok=True)
    os.mkfifo(repository.tree / name)
    os.utime(repository.tree / "MLproject", (0, 0))  # git would compare the content
    head_commit(repository.tree)
    with contextlib.suppress(ProjectError):
        tree_hash(repository.tree)


def test_what_says_how_files_compare_still_counts(repository: Repository) -> None:
    script = repository.tree / "run.sh"
    script.write_text("echo\n")
    repository.commit("script")
    repository.git("config", "core.fileMode", "false")
    script.chmod(0o755)  # as on a disk that has no modes
    head = head_commit(repository.tree)
    assert head
    assert head.changed is False
    (repository.tree / ".git/info/exclude").write_text("*.log\n")
    before = tree_hash(repository.tree)
    (repository.tree / "a.log").touch()
    assert tree_hash(repository.tree) == before
    assert head_commit(repository.tree) == head


def test_second_work_trees_and_submodules_tell_their_commit(repository: Repository) -> None:
    repository.git("worktree", "add", "--quiet", "-b", "side", "../side")
    repository.git("submodule", "--quiet", "add", repository.url, "lib")
    commit = repository.git("rev-parse", "HEAD")
    for folder in (repository.tree.parent / "side", repository.tree / "lib"):
        head = head_commit(folder)
        assert head
        assert head[::2] == (commit, False)
    sha256 = repository.tree.parent / "sha256"
    subprocess.run(["git", "init", "--quiet", "--object-format=sha256", str(sha256)], check=True)
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "x"], cwd=sha256, check=True)
    head = head_commit(sha256)
    assert head
    assert len(head.commit) == 64
    assert head.changed is False


def test_a_zip_file_brings_no_repository(
    repository: Repository, tmp_path: Path, cache: Cache, workspace: Path
) -> None:
    archive = tmp_path / "project.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(repository.tree.rglob("*")):
            file.write(path, path.relative_to(repository.tree))
        file.write(repository.tree / "MLproject", "sub/.GIT/config")
    fetched = fetch(str(archive), None, cache, workspace)
    assert not [path for path in fetched.project.root.rglob("*") if path.name.lower() == ".git"]
    assert fetched.source.commit is None
    assert head_commit(fetched.project.root) is None
    assert tree_hash(fetched.project.root) == tree_hash(repository.tree)


def test_a_submodule_of_a_remote_project_is_no_folder_of_the_worker(
    repository: Repository, tmp_path: Path, cache: Cache, workspace: Path
) -> None:
    from tests.support.gitserver import GitServer

    private = Repository(tmp_path / "private")
    private.commit("private")
    repository.git("submodule", "--quiet", "add", private.url, "lib")
    repository.commit("with lib")
    with (
        GitServer(repository.bare.parent) as server,
        pytest.raises(ProjectError, match="transport 'file' not allowed"),
    ):
        fetch(f"{server.url}/project.git", None, cache, workspace)
    assert fetch(repository.url, None, cache, workspace).project.root.joinpath("lib/MLproject").is_file()


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file into which each git writes its environment."""
    file, folder = tmp_path / "environments", tmp_path / "bin"
    folder.mkdir()
    (folder / "git").write_text(f'#!/bin/sh\nenv >> {file}\nexec {shutil.which("git")} "$@"\n')
    (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return file


def test_git_sees_nothing_of_airflow(
    told: Path, repository: Repository, cache: Cache, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {
        "AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "AIRFLOW_CONN_AWS", "AIRFLOW_VAR_X",
        "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "DATABASE_URL", "_AIRFLOW__SECRET", "SMTP_PASSWORD",
    }  # fmt: skip
    kept = {
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "no_proxy": "*",
        "SSL_CERT_FILE": "/ca.pem",
        "SSH_AUTH_SOCK": "/agent",
    }
    for name, value in {**dict.fromkeys(secrets, "pl4nted"), **kept, "GIT_DIR": "/elsewhere"}.items():
        monkeypatch.setenv(name, value)
    credentials = GitCredentials("ada", "pl4nted")
    project = fetch(repository.url, "trunk", cache, workspace, credentials).project
    head_commit(project.root)
    tree_hash(project.root)
    seen = told.read_text()
    assert "pl4nted" not in seen
    assert "GIT_DIR=/elsewhere" not in seen
    for name, value in kept.items():
        assert f"{name}={value}\n" in seen


@pytest.fixture
def ssh(repository: Repository, tmp_path: Path) -> Iterator[Path]:
    """Run OpenSSH's server for the repository; return the private key that it lets in.

    The command that it runs first writes into ``seen`` which files below the test's folder hold the key's text.
    """
    if not (sshd := shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")):
        pytest.skip("sshd is missing: apt-get install openssh-server")
    home = tmp_path / "ssh"
    home.mkdir(mode=0o700)
    for name in ("host", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / name)], check=True)
    (home / "secret").write_text((home / "key").read_text().splitlines()[2])
    (home / "look").write_text(
        f"#!/bin/sh\ngrep -rlFf {home}/secret --exclude-dir=ssh {tmp_path} > {home}/seen\n"
        f"cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | grep -acFf {home}/secret >> {home}/seen\n"
        'exec sh -c "$SSH_ORIGINAL_COMMAND"\n'
    )
    (home / "look").chmod(0o755)
    (home / "authorized").write_text(f'command="{home}/look" {(home / "key.pub").read_text()}')
    port = free_port()
    (home / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {home}/host\nPidFile none\nStrictModes no\nUsePAM no\n"
        f"AuthorizedKeysFile {home}/authorized\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    process = subprocess.Popen([sshd, "-D", "-e", "-f", str(home / "config")], stderr=(home / "log").open("wb"))
    wait(lambda: "listening on" in (home / "log").read_text(), "sshd")
    (home / "known_hosts").write_text(f"[127.0.0.1]:{port} {(home / 'host.pub').read_text()}")
    (home / "url").write_text(f"ssh://127.0.0.1:{port}{repository.bare}")
    yield home
    process.terminate()
    process.wait()


@as_root
def test_a_key_opens_a_repository_and_lies_on_no_disk(
    ssh: Path, cache: Cache, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    known = {"known_hosts_file": str(ssh / "known_hosts")}
    key = (ssh / "key").read_text()
    credentials = GitCredentials(private_key=key.strip(), **known)
    url = (ssh / "url").read_text()
    assert fetch(url, "trunk", cache, workspace, credentials).project.name == "demo"
    assert (ssh / "seen").read_text() == "0\n"
    assert not [process for process in _commands() if b"ssh-agent" in process and str(tmp_path).encode() in process]
    file = GitCredentials(private_key_file=str(ssh / "key"), **known)
    other = Cache(cache.root / "other")
    assert fetch(url, "trunk", other, cache.root, file).project.name == "demo"
    for wrong in (GitCredentials(private_key="no key", **known), GitCredentials(**known)):
        with pytest.raises(ProjectError, match="cannot be read") as caught:
            fetch(url, "none", cache, tmp_path / "none", wrong)
        assert "\n" not in str(caught.value)


def _commands() -> list[bytes]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found.append((process / "cmdline").read_bytes() + (process / "environ").read_bytes())
        except OSError:  # it has ended
            continue
    return found
