"""The one place that runs git: for mirrors and checkouts, for a folder's commit, and for the list of its files.

GitPython runs what fetches. A question to a local folder goes to git directly: each step asks some, and GitPython
alone takes 50 ms to import.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from mlflow_projects.exceptions import ProjectError

_MISSING = "git is not installed on this worker; install it."


class GitError(Exception):
    """git ended with an error; the text is what it wrote."""


def fetching(*arguments: str, cwd: Path, environment: dict[str, str] | None = None) -> str:
    """Run a git command that makes or fills a repository; return what it prints.

    :param environment: variables beside those of this process
    :raises GitError: it failed
    :raises ProjectError: git is not installed
    """
    try:
        import git

        output: Any = git.Git(str(cwd)).execute(["git", *arguments], env=environment or None)
    except ImportError as error:  # GitPython looks for git when it is imported
        raise ProjectError(_MISSING) from error
    except git.GitCommandNotFound as error:
        raise ProjectError(_MISSING) from error
    except git.GitCommandError as error:
        raise GitError(str(error.stderr)) from error
    return str(output)


def ask(folder: Path, *arguments: str) -> bytes | None:
    """Return what git says of a local folder, or None if it refuses.

    Whoever owns the folder, its code is about to run: git's check of the owner would only hide the commit in
    containers. What GIT_DIR and its like name is another repository.

    :raises OSError: git is not installed
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(folder), "-c", "safe.directory=*", *arguments]
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    return None if done.returncode else done.stdout
