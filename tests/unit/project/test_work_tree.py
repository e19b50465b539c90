"""Which commit a folder holds: in a plain work tree, and in what Airflow's own GitDagBundle checks out."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mlflow_projects.operators.base import bundle_checkout
from mlflow_projects.project.fetch import fetch
from mlflow_projects.project.work_tree import head_commit

TOKEN = "tok-5ecret-ghp_0123456789"
NOBODY = 65534


def test_a_local_work_tree_tells_its_commit_changes_and_origin_without_password(repository):
    repository.git("remote", "set-url", "origin", f"https://ada:{TOKEN}@example.org/x.git")
    commit = repository.git("rev-parse", "HEAD")
    assert head_commit(repository.tree / "sub") == (commit, "https://example.org/x.git", False)
    (repository.tree / "sub/dir/MLproject").write_text("changed")
    assert head_commit(repository.tree / "sub") == (commit, "https://example.org/x.git", True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_work_tree_of_another_user_tells_its_commit(repository):
    commit = repository.git("rev-parse", "HEAD")
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", str(repository.tree)], check=True)
    assert head_commit(repository.tree / "sub") == (commit, None, None)
    assert head_commit(repository.tree / "sub", None, [repository.tree]) == (commit, str(repository.bare), False)


@pytest.fixture
def bundle(tmp_path, monkeypatch) -> Any:
    """Return a function that makes a bundle which is initialized, below a repository that must not answer for it."""
    around = tmp_path / "around"
    subprocess.run(["git", "init", "--quiet", str(around)], check=True)
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    subprocess.run(["git", "-C", around, *identity, "commit", "-q", "--allow-empty", "-m", "around"], check=True)
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH", str(around / "bundles"))
    from airflow.providers.git.bundles.git import GitDagBundle

    def make(repo_url: str, version: str | None, **options: Any) -> Any:
        made = GitDagBundle(name="models", tracking_ref="trunk", repo_url=repo_url, version=version, **options)
        made.initialize()
        return made

    return make


@pytest.mark.parametrize("prune", [True, False])
def test_a_project_in_a_git_bundle_has_the_bundles_commit_and_url(prune, bundle, repository, cache, workspace):
    old = repository.commit("old", **{"dags/dag.py": "", "sub/dir/MLproject": "name: deep\n"})
    repository.commit("new")
    made = bundle(repository.url, old, subdir="dags", prune_dotgit_folder=prune)
    assert (made.repo_path / ".git").exists() is not prune

    project = made.path.parent / "sub" / "dir"  # as Path(__file__).parents[1] / "sub" / "dir" of a DAG file
    source = fetch(str(project), None, cache, workspace, bundle=checkout_of(made)).source
    assert (source.commit, source.repo_url, source.changed) == (old, repository.url, False)
    assert head_commit(made.path, checkout_of(made)) == (old, repository.url, False)


def test_an_unversioned_git_bundle_tells_the_commit_of_its_checkout(bundle, repository):
    made = bundle(repository.url, None)
    commit = repository.git("rev-parse", "HEAD")
    assert head_commit(made.path / "sub", checkout_of(made)) == (commit, repository.url, False)


def test_a_project_beside_the_bundle_is_not_of_the_bundle(bundle, repository, tmp_path):
    made = bundle(repository.url, repository.git("rev-parse", "HEAD"))
    (tmp_path / "beside").mkdir()
    assert head_commit(tmp_path / "beside", checkout_of(made)) is None


def test_no_commit_is_known_of_a_local_bundle(tmp_path):
    from airflow.dag_processing.bundles.local import LocalDagBundle

    assert checkout_of(LocalDagBundle(name="dags-folder", path=str(tmp_path))) is None


def checkout_of(bundle: Any) -> Any:
    return bundle_checkout(cast(Any, {"ti": SimpleNamespace(bundle_instance=bundle)}))


def test_the_url_of_a_bundle_loses_its_password(bundle, repository):
    made = bundle(repository.url, repository.git("rev-parse", "HEAD"))
    made.repo_url = f"https://ada:{TOKEN}@example.org/x.git"
    found = head_commit(Path(made.path), checkout_of(made))
    assert found
    assert found[1] == "https://example.org/x.git"
