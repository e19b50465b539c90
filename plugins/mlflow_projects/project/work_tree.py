"""Which commit a local folder holds: as git says, or as Airflow says where git no longer can."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mlflow_projects.project import git_command
from mlflow_projects.project.repository import without_credentials

# In what `git status` prints; see "Porcelain Format Version 2" in its manual.
_COMMIT = "# branch.oid "
_NO_COMMIT = "(initial)"


@dataclass(frozen=True)
class BundleCheckout:
    """A checkout that Airflow's GitDagBundle made; it removes ``.git`` from the one that a task runs from.

    :param root: the top of the checkout
    :param commit: the full commit id; None: git still knows
    :param repo_url: where the bundle comes from; the checkout's own origin is a folder of the worker
    """

    root: Path
    commit: str | None
    repo_url: str | None

    def holds(self, folder: Path) -> bool:
        """Tell whether a folder is part of the checkout."""
        return folder.resolve().is_relative_to(self.root.resolve())


def head_commit(folder: Path, bundle: BundleCheckout | None = None) -> tuple[str, str | None, bool] | None:
    """Return (commit, remote's URL, uncommitted changes?) of the work tree that holds a local folder.

    None where the folder is in no repository, or git is not installed. The URL comes without credentials.

    :param bundle: where the DAG file comes from, if from git
    """
    if bundle is None or not bundle.holds(folder):
        return _ask_git(folder)
    repo_url = without_credentials(bundle.repo_url) if bundle.repo_url else None
    if not (bundle.root / ".git").exists():  # git would answer for a repository further up, if there is one
        return (bundle.commit, repo_url, False) if bundle.commit else None
    answer = _ask_git(folder)
    return answer and (answer[0], repo_url, answer[2])


def _ask_git(folder: Path) -> tuple[str, str | None, bool] | None:
    try:
        status = git_command.ask(folder, "status", "--porcelain=v2", "--branch", "--", ".")
    except OSError:
        return None
    lines = os.fsdecode(status or b"").splitlines()
    commit = next((line.removeprefix(_COMMIT) for line in lines if line.startswith(_COMMIT)), _NO_COMMIT)
    if commit == _NO_COMMIT:
        return None
    repo_url = os.fsdecode(git_command.ask(folder, "config", "--get", "remote.origin.url") or b"").strip()
    changed = any(not line.startswith("#") for line in lines)
    return commit, without_credentials(repo_url) if repo_url else None, changed
