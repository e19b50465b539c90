"""The one place that runs git: for mirrors and checkouts, for a folder's commit, and for the list of its files.

git and what it starts (ssh, credential helpers, LFS) see little of this process's environment, which holds Airflow's
secrets. The settings of the machine and of the user count: they are the administrator's.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow_projects.exceptions import ProjectError

_KEPT = re.compile(
    r"HOME|PATH|USER|LOGNAME|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|LD_LIBRARY_PATH|XDG_\w+|KRB5\w+"
    r"|(HTTPS?|FTP|ALL|NO)_PROXY|(SSL|CURL|SSH|GIT)_\w+",
    re.IGNORECASE,
)
ASK_SECONDS = 120.0  # for one question: a work tree of millions of files takes a minute
# They name another repository than the one that is meant; see `git rev-parse --local-env-vars`.
_OF_A_REPOSITORY = re.compile(
    r"GIT_(DIR|WORK_TREE|IMPLICIT_WORK_TREE|COMMON_DIR|INDEX_FILE|PREFIX|CONFIG|CONFIG_PARAMETERS|NAMESPACE|GRAFT_FILE"
    r"|OBJECT_DIRECTORY|ALTERNATE_OBJECT_DIRECTORIES|SHALLOW_FILE|NO_REPLACE_OBJECTS|REPLACE_REF_BASE)"
)
_ALWAYS = {
    "LC_ALL": "C.UTF-8",  # its words are read
    "GIT_OPTIONAL_LOCKS": "0",  # a question writes nothing
    "GIT_NO_LAZY_FETCH": "1",  # a repository may name a command for what it lacks
}
# No setting of a repository may name a program to run, as far as it can be said for all of them at once.
_NO_PROGRAMS = ("-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}")


class GitError(Exception):
    """git ended with an error; the text is what it wrote."""


def fetching(
    *arguments: str,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    before: Sequence[str] = (),
    text: str = "",
) -> str:
    """Run a git command that makes or fills a repository of ours; return what it prints.

    :param environment: variables beside those that git gets anyway
    :param before: a command that starts git, and ``text`` its standard input
    :raises GitError: it failed
    :raises ProjectError: git is not installed
    """
    try:
        done = subprocess.run(
            [*before, "git", *arguments],
            cwd=cwd,
            env=_environment(environment),
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            umask=0o022,  # who may read the cache may not write into it
        )
    except FileNotFoundError as error:
        raise ProjectError(f"{(*before, 'git')[0]} is not installed on this worker; install it.") from error
    if done.returncode:
        raise GitError(done.stderr)
    return done.stdout.rstrip("\n")


def ask(folder: Path, *arguments: str, environment: Mapping[str, str]) -> bytes | None:
    """Return what git says of a local folder, or None if it refuses, or waits (for a pipe among its files, say).

    :param environment: names the repository; git looks for none
    :raises OSError: git is not installed
    """
    command = ["git", "-C", str(folder), *_NO_PROGRAMS, *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, check=False, env=_environment(environment), timeout=ASK_SECONDS
        )
    except subprocess.TimeoutExpired:
        return None
    return None if done.returncode else done.stdout


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if _KEPT.fullmatch(name) and not _OF_A_REPOSITORY.fullmatch(name)
    }
    return {**kept, **_ALWAYS, **(more or {})}
