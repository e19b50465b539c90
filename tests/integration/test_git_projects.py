"""Projects in git, run as Airflow tasks: versions, no network for a known commit, no token anywhere."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import HOME, ROOT
from tests.support.dagruns import mlflow_runs, run_dag
from tests.support.gitserver import GitServer

TOKEN = "glpat-Zq83hfk2-private-token"

pytestmark = pytest.mark.usefixtures("airflow_db")


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.invalid", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def samples(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A bare repository with the sample projects; its commits: the branch v2 has another echo than the tag v1."""
    work, bare = tmp_path / "work", tmp_path / "samples.git"
    work.mkdir()
    git(work, "init", "--quiet", "--initial-branch=trunk")
    shutil.copytree(ROOT / "sample_projects", work / "projects", ignore=shutil.ignore_patterns("__pycache__"))
    git(work, "add", ".")
    git(work, "commit", "--quiet", "-m", "one")
    git(work, "tag", "v1")
    first = git(work, "rev-parse", "HEAD")
    git(work, "checkout", "--quiet", "-b", "v2")
    script = work / "projects" / "echo" / "echo.py"
    script.write_text(script.read_text().replace('"lines": lines', '"lines": lines, "second": 2'))
    git(work, "commit", "--quiet", "-am", "two")
    second = git(work, "rev-parse", "HEAD")
    git(work, "checkout", "--quiet", "trunk")
    git(tmp_path, "clone", "--quiet", "--bare", str(work), str(bare))
    return bare, {"v1": first, "v2": second}


def test_both_sample_projects_run_from_branch_tag_and_commit_and_without_the_remote(
    samples: tuple[Path, dict[str, str]], tracking_uri: str
) -> None:
    bare, commits = samples
    for version, commit in commits.items():
        conf = {"uri": f"{bare.as_uri()}#projects/echo", "version": version, "parameters": {"text": "x", "num": 2}}
        result = run_dag("one_step", conf)
        run = result.runs(tracking_uri)["step"]
        assert result.state == "success", result.log[-3000:]
        assert run.data.tags["mlflow.source.git.commit"] == commit
        assert run.data.tags["mlflow.source.git.repoURL"] == bare.as_uri()
        assert run.data.tags.get("mlflow.source.git.branch") == ("v2" if version == "v2" else None)
        assert run.data.tags["mlflow.source.name"] == f"{bare.as_uri()}#projects/echo"
        assert ("second" in run.data.metrics) == (version == "v2")
    upstream = f"runs:/{run.info.run_id}/downstream"
    bare.rename(bare.with_suffix(".gone"))
    conf = {"uri": f"{bare.as_uri()}#projects/zip", "version": commits["v1"], "parameters": {"upstream": upstream}}
    result = run_dag("one_step", conf)
    assert result.state == "success", result.log[-3000:]
    run = result.runs(tracking_uri)["step"]
    assert run.data.tags["mlflow.source.git.commit"] == commits["v1"]
    assert run.data.metrics["files"] == 1


@pytest.fixture
def private(samples: tuple[Path, dict[str, str]]) -> Iterator[GitServer]:
    with GitServer(samples[0].parent, username="me", password=TOKEN) as server:
        yield server


def test_a_private_repository_runs_and_its_token_is_nowhere(
    private: GitServer, tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__MLFLOW_PROJECTS__CACHE_DIR", str(tmp_path / "cache"))
    connection = {"conn_type": "git", "login": "me", "password": TOKEN}
    monkeypatch.setenv("AIRFLOW_CONN_PRIVATE_GIT", json.dumps(connection))
    uri = f"{private.url}/samples.git#projects/leak"
    work = tmp_path / "work" / "projects" / "leak"
    work.mkdir()
    # The project tells everything that it can see: its environment, its git configuration, all processes.
    (work / "MLproject").write_text(
        'entry_points: {main: {command: \'env; cat ../../.git/config; cat /proc/*/cmdline | tr "\\\\0" " "\'}}'
    )
    git(work, "add", ".")
    git(work, "commit", "--quiet", "-m", "leak")
    git(work, "push", "--quiet", str(tmp_path / "samples.git"), "trunk")

    good = run_dag("private_step", {"uri": uri, "version": "trunk"})
    assert good.state == "success", good.log[-3000:]
    monkeypatch.setenv("AIRFLOW_CONN_PRIVATE_GIT", json.dumps({**connection, "password": f"{TOKEN}-wrong"}))
    bad = run_dag("private_step", {"uri": uri, "version": "v2"})
    assert bad.state == "failed"
    assert "Check the user and the token (or key) of the connection in git_conn_id" in bad.log

    places = {"log": good.log + bad.log}
    for result in (good, bad):
        records = mlflow_runs(tracking_uri, "private_step", result.run_id)
        places[f"records of {result.run_id}"] = str([run.to_dictionary() for run in records])
    with sqlite3.connect(HOME / "airflow.db") as database:
        places["metadata database"] = "\n".join(database.iterdump())
    for file in (tmp_path / "cache").rglob("*"):
        if file.is_file():
            places[str(file)] = file.read_bytes().decode(errors="replace")
    assert len(places) > 50
    assert [name for name, text in places.items() if TOKEN in text] == []
