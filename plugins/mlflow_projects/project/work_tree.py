"""Which commit a local folder holds: as git says, or as Airflow says where git no longer can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mlflow_projects.project import local_repository
from mlflow_projects.public_uri import public_uri


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


class Head(NamedTuple):
    """What a local folder holds.

    :param repo_url: the remote's, without credentials
    :param changed: whether files differ from the commit; None: unknown, as the repository is somebody else's
    """

    commit: str
    repo_url: str | None
    changed: bool | None


def head_commit(folder: Path, bundle: BundleCheckout | None = None, trusted_dirs: Sequence[Path] = ()) -> Head | None:
    """Return the commit of the work tree that holds a local folder.

    None where the folder is in no repository, or git is not installed.

    :param bundle: where the DAG file comes from, if from git
    :param trusted_dirs: as in :func:`mlflow_projects.project.local_repository.find`
    """
    if bundle is None or not bundle.holds(folder):
        return _head(folder, trusted_dirs)
    repo_url = public_uri(bundle.repo_url) if bundle.repo_url else None
    if not (bundle.root / ".git").exists():  # a repository further up, if there is one, would answer
        return Head(bundle.commit, repo_url, changed=False) if bundle.commit else None
    head = _head(folder, trusted_dirs)
    return head and head._replace(repo_url=repo_url)


def _head(folder: Path, trusted_dirs: Sequence[Path]) -> Head | None:
    repository = local_repository.find(folder, trusted_dirs)
    commit = repository and repository.commit()
    if not repository or not commit:
        return None
    if not repository.is_trusted:
        return Head(commit, None, changed=None)
    try:
        with repository.opened() as opened:
            # "dirty" does not look into submodules: git would obey their settings.
            changes = opened.ask(folder, "status", "--porcelain", "--ignore-submodules=dirty", "--", ".")
            repo_url = repository.setting("remote.origin.url").strip()
    except OSError:
        return None
    return None if changes is None else Head(commit, public_uri(repo_url) or None, changed=bool(changes))
