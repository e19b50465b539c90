"""Projects in git: one bare mirror per repository, one checkout per commit, no secret on disk.

MLflow clones into a new temporary folder for every run, never deletes it, and lets a token in the URL
reach ``.git/config`` and its exceptions. Here a commit that is known costs no network at all, and a
credential only ever passes through git's own askpass question.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.file_lock import file_lock
from mlflow_projects.project.cache import Cache
from mlflow_projects.project.git_authentication import GitCredentials, access
from mlflow_projects.project.git_command import GitError, fetching
from mlflow_projects.project.paths import exists, is_file, is_folder
from mlflow_projects.public_uri import public_uri, secrets_in, without_user

_FULL_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SHORT_COMMIT = re.compile(r"[0-9a-f]{7,39}")
_SCP_LIKE = re.compile(r"(?:[\w.-]+@)?[\w.-]+:(?!//)(?P<path>.+)")
_COMMITS = "refs/mirror/commits"  # in a mirror: a name for each commit that was fetched by itself
_NETWORK_TRIES = 3


@dataclass(frozen=True)
class Checkout:
    """A commit's files.

    :param commit: the full commit id
    :param branch: the branch, if the version named one (or was left out)
    """

    root: Path
    commit: str
    branch: str | None


def names_commit(version: str | None) -> bool:
    """Tell whether a version may be a commit id, whole or abbreviated."""
    return bool(version and (_FULL_COMMIT.fullmatch(version) or _SHORT_COMMIT.fullmatch(version)))


def looks_like_git(uri: str) -> bool:
    """Tell whether a URI means a git repository on another host (or ``file://``, with ``.git``)."""
    return bool(urlsplit(uri).scheme) or bool(_SCP_LIKE.fullmatch(uri))


def is_repository(folder: Path) -> bool:
    """Tell whether a local folder is the top of a git work tree or a bare repository."""
    return exists(folder / ".git") or is_bare_repository(folder)


def is_bare_repository(folder: Path) -> bool:
    """Tell whether a local folder is a bare git repository."""
    return is_file(folder / "HEAD") and is_folder(folder / "objects") and is_folder(folder / "refs")


@contextlib.contextmanager
def checked_out(
    url: str,
    version: str | None,
    cache: Cache,
    credentials: GitCredentials | None = None,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Checkout]:
    """Yield a shared checkout of one commit; it is to be read only, and stays during the block.

    :param url: the repository, without credentials
    :param version: branch, tag or commit; None is the remote's HEAD
    :param credentials: for the remote, if it asks
    :param sleep: called with the seconds between two tries to reach the remote
    :raises ProjectError: unreachable repository, or no such version
    """
    check(url, version)
    key = hashlib.sha256(url.encode()).hexdigest()[:24]
    with cache.entry("git", key, _make_mirror) as mirror:
        git = _Git(mirror, url, credentials, cache, sleep)
        commit, branch = _commit_of(git, version, lambda: cache.measure("git", key))

        def make(folder: Path) -> None:
            _check_out(git, commit, folder)

        with cache.entry("checkouts", f"{key}-{commit}", make) as root:
            yield Checkout(root=root, commit=commit, branch=branch)


def split_user(uri: str) -> tuple[str, str]:
    """Return a URI without its user, and the user; the user of an http URL may be an access token.

    :raises ProjectError: the URI holds a password; the sentence does not repeat it
    """
    remedy = "put it into an Airflow connection and name that as git_conn_id."
    try:
        parts = urlsplit(uri)
        _ = parts.port  # not a number where a password holds "#" or "/"
    except ValueError as error:
        raise ProjectError(
            f"The project's uri is no valid URL (its host or port); if it holds a password, {remedy}"
        ) from error
    if parts.password is not None:
        raise ProjectError(f"The project's uri {public_uri(uri)} holds a password; {remedy}")
    if parts.scheme in ("http", "https"):
        return without_user(uri), unquote(parts.username or "")
    return uri, ""


def check(url: str, version: str | None) -> None:
    """Check a repository's URL and a version before git sees them.

    :raises ProjectError: git would take one of them for something else
    """
    if url.startswith("-") or "::" in url.split("/")[0]:
        raise ProjectError(f"{url!r} is not a git URL; use https://, ssh://, file:// or user@host:path.")
    if secrets_in(url):  # git would show it in its command line and keep it in a configuration
        raise ProjectError(
            f"The project's uri {public_uri(url)} holds a password or token; put it into an Airflow connection and "
            "name that as git_conn_id."
        )
    if version is not None and (
        not version or version.startswith("-") or re.search(r"[\s~^:?*\[\\\x00-\x1f]|\.\.", version)
    ):
        raise ProjectError(f"version {version!r} cannot be a git branch, tag or commit.")


class _Git:
    """Git commands in one mirror, talking to one remote."""

    def __init__(
        self,
        mirror: Path,
        url: str,
        credentials: GitCredentials | None,
        cache: Cache,
        sleep: Callable[[float], None],
    ) -> None:
        self.mirror, self.url, self.credentials, self.cache, self.sleep = mirror, url, credentials, cache, sleep

    def local(self, *arguments: str, cwd: Path | None = None) -> str:
        return fetching(*arguments, cwd=cwd or self.mirror)

    def remote(self, *arguments: str, cwd: Path | None = None) -> str:
        """Run a command that talks to the remote, a few times if need be.

        :raises ProjectError: the remote cannot be reached, or does not let us in
        """
        with access(self.url, self.credentials, self.cache) as way:
            for attempt in range(1, _NETWORK_TRIES + 1):
                try:
                    return fetching(
                        *way.options,
                        *arguments,
                        cwd=cwd or self.mirror,
                        environment=way.environment,
                        before=way.before,
                        text=way.text,
                    )
                except GitError as error:
                    reason = _last_words(str(error))
                    if attempt == _NETWORK_TRIES or not _may_pass(reason):
                        raise ProjectError(
                            f"The git repository {self.url} cannot be read: {reason}. {_remedy(reason)}"
                        ) from error
                self.sleep(attempt)
        raise AssertionError("unreachable")

    def has(self, commit: str) -> bool:
        """Tell whether the mirror holds a commit; mostly without starting git."""
        if (self.mirror / _COMMITS / commit).is_file():
            return True
        try:
            self.local("cat-file", "-e", f"{commit}^{{commit}}")
        except GitError:
            return False
        return True


def _make_mirror(folder: Path) -> None:
    fetching("init", "--quiet", "--bare", str(folder), cwd=folder.parent)


def _commit_of(git: _Git, version: str | None, grown: Any) -> tuple[str, str | None]:
    """Return (commit, branch) of a version, fetched into the mirror if it is not there yet."""
    if version and _FULL_COMMIT.fullmatch(version) and git.has(version):
        return version, None
    if version and _SHORT_COMMIT.fullmatch(version) and (known := _expand(git, version)):
        return known, None
    with file_lock(git.mirror / "fetch.lock"):  # parallel tasks share one fetch
        commit, reference = _ask_remote(git, version)
        if not commit and version and _SHORT_COMMIT.fullmatch(version):
            git.remote("fetch", "--quiet", "--no-tags", "--", git.url, "+refs/heads/*:refs/mirror/heads/*")
            grown()
            commit = _expand(git, version)
        elif not commit and version and _FULL_COMMIT.fullmatch(version):
            commit = version
        if not commit:
            raise ProjectError(
                f"The git repository {git.url} has no branch, tag or commit {version!r}."
                if version
                else f"The git repository {git.url} is empty."
            )
        if not git.has(commit):
            # Under a name of its own each, so that no later fetch can drop what a checkout shares.
            kept = f"{_COMMITS}/{commit}"
            try:
                git.remote("fetch", "--quiet", "--no-tags", "--", git.url, f"+{reference or commit}:{kept}")
            except ProjectError as error:
                if reference or "not our ref" not in str(error):
                    raise
                raise ProjectError(f"The git repository {git.url} has no commit {commit}.") from error
            grown()
    heads = "refs/heads/"
    return commit, reference[len(heads) :] if reference and reference.startswith(heads) else None


def _ask_remote(git: _Git, version: str | None) -> tuple[str | None, str | None]:
    """Return (commit, full reference name) of a branch or tag, as the remote has it now."""
    if version is None:
        answer = git.remote("ls-remote", "--symref", "--", git.url, "HEAD").splitlines()
        reference = next((line[5:].split("\t")[0] for line in answer if line.startswith("ref: ")), None)
        commit = next(
            (line.split("\t")[0] for line in answer if line.endswith("\tHEAD") and not line.startswith("ref: ")),
            None,
        )
        return commit, reference if commit else None
    names = [f"refs/heads/{version}", f"refs/tags/{version}", f"refs/tags/{version}^{{}}"]
    listing = git.remote("ls-remote", "--", git.url, *names)
    found = {name: commit for commit, _, name in (line.partition("\t") for line in listing.splitlines())}
    if names[0] in found:
        return found[names[0]], names[0]
    if names[1] in found:  # an annotated tag points to a tag object; ^{} is the commit behind it
        return found.get(names[2], found[names[1]]), names[1]
    return None, None


def _expand(git: _Git, short: str) -> str | None:
    """Return the full id of an abbreviated commit that the mirror has."""
    try:
        return git.local("rev-parse", "--verify", "--quiet", f"{short}^{{commit}}")
    except GitError:
        return None


def _check_out(git: _Git, commit: str, folder: Path) -> None:
    """Fill a folder with a commit's files and a small ``.git`` that shares the mirror's objects."""
    try:
        git.local("clone", "--quiet", "--shared", "--no-checkout", str(git.mirror), str(folder))
        git.local("remote", "set-url", "origin", git.url, cwd=folder)
        git.local("checkout", "--quiet", "--detach", commit, cwd=folder)
    except GitError as error:
        raise ProjectError(
            f"Commit {commit} of {git.url} cannot be checked out: {_last_words(str(error))}."
        ) from error
    if (folder / ".gitmodules").is_file():
        git.remote("submodule", "--quiet", "update", "--init", "--recursive", cwd=folder)


def _last_words(stderr: str) -> str:
    """Return git's own reason, in one line."""
    lines = [line.strip(" '\n") for line in stderr.replace("stderr:", "").splitlines()]
    lines = [line for line in lines if line]
    telling = [line for line in lines if line.lower().startswith(("fatal:", "error:", "ssh:"))] or lines
    return (telling[0] if telling else "git gave no reason").removeprefix("fatal: ").rstrip(".")


def _may_pass(reason: str) -> bool:
    lasting = (
        "Authentication failed",
        "could not read Username",
        "not found",
        "does not exist",
        "does not appear to be a git repository",
        "Permission denied",
        "not our ref",
    )
    return not any(words in reason for words in lasting)


def _remedy(reason: str) -> str:
    if "Authentication" in reason or "could not read" in reason or "Permission denied" in reason:
        return "Check the user and the token (or key) of the connection in git_conn_id."
    if "resolve host" in reason or "connect" in reason:
        return "Check the host's name and the worker's network."
    return "Check the URL and, for a private repository, git_conn_id."
