"""Bad input: one clear sentence, no retry, no run left open."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.support.dagruns import run_dag
from tests.support.servers import free_port

PROJECTS = ROOT / "tests" / "projects"


def _evil_zip(folder: Path) -> str:
    with zipfile.ZipFile(folder / "evil.zip", "w") as archive:
        archive.writestr("MLproject", "entry_points: {main: {command: echo}}")
        archive.writestr("../escaped.txt", "gotcha")
    return str(folder / "evil.zip")


def _git_repository(folder: Path) -> str:
    import git

    repository = git.Repo.init(folder / "repository")
    (folder / "repository" / "MLproject").write_text("entry_points: {main: {command: echo}}")
    repository.index.add(["MLproject"])
    repository.index.commit("one")
    return str(folder / "repository")


CASES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "no such folder": ({"uri": "/no/such/folder"}, ("/no/such/folder does not exist", "check the uri")),
    "no MLproject and no such file": (
        {"uri": str(PROJECTS), "entry_point": "train.py"},
        ("'train.py' is neither declared", f"nor a file in {PROJECTS}"),
    ),
    "broken YAML": ({"uri": f"{PROJECTS}/broken_yaml"}, ("broken_yaml/MLproject:4", "not valid YAML")),
    "unknown entry point": (
        {"uri": f"{PROJECTS}/typed", "entry_point": "train"},
        ("typed/MLproject has no entry point 'train'", "its entry points: main"),
    ),
    "missing parameter": (
        {"uri": f"{PROJECTS}/typed"},
        ("typed/MLproject, entry point 'main'", "no value for the parameter 'num'", "'parameters'"),
    ),
    "text for an int": (
        {"uri": f"{PROJECTS}/typed", "parameters": {"num": "abc"}},
        ("parameter 'num' must be of type int, not 'abc'",),
    ),
    "unknown parameter type": (
        {"uri": f"{PROJECTS}/unknown_type", "parameters": {"flag": "x"}},
        ("'entry_points.main.parameters.flag' has the unknown type 'boolean'", "string, float, int, path, uri"),
    ),
    "unreachable git host": (
        {"uri": "https://no-such-host.invalid/project.git"},
        ("https://no-such-host.invalid/project.git cannot be read", "Could not resolve host", "Check the host"),
    ),
    "unknown backend": (
        {"uri": f"{PROJECTS}/shell", "backend": "cloud"},
        ("There is no backend 'cloud'; use one of: local",),
    ),
    "unknown env_manager": (
        {"uri": f"{PROJECTS}/shell", "parameters": {"command": "true"}, "env_manager": "poetry"},
        ("There is no env_manager 'poetry'; use one of: local, uv, virtualenv, conda",),
    ),
    "conda that is not there": (
        {"uri": f"{PROJECTS}/typed", "parameters": {"num": 1}, "env_manager": "conda"},
        ("declares no 'conda_env'",),
    ),
    "unknown key in backend_config": (
        {"uri": f"{PROJECTS}/shell", "parameters": {"command": "true"}, "backend_config": {"gpu": 1}},
        ("unknown key 'gpu'", "grace_seconds"),
    ),
    "password in the uri": (
        {"uri": "https://me:hunter2-secret@git.invalid/project.git"},
        ("https://git.invalid/project.git holds a password", "git_conn_id"),
    ),
}


@pytest.mark.usefixtures("airflow_db")
@pytest.mark.parametrize("name", CASES)
def test_bad_input_fails_at_once_with_one_sentence(
    name: str, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlflow_projects.project.repository.time.sleep", lambda _: None)
    conf, words = CASES[name]
    _check(conf, words, tracking_uri)


@pytest.mark.usefixtures("airflow_db")
def test_a_zip_that_reaches_outside_is_refused(tracking_uri: str, tmp_path: Path) -> None:
    _check({"uri": _evil_zip(tmp_path)}, ("'../escaped.txt'", "would land outside"), tracking_uri)


@pytest.mark.usefixtures("airflow_db")
def test_an_unknown_branch_is_refused(tracking_uri: str, tmp_path: Path) -> None:
    conf = {"uri": _git_repository(tmp_path), "version": "no-such-branch"}
    _check(conf, ("has no branch, tag or commit 'no-such-branch'",), tracking_uri)


@pytest.mark.usefixtures("airflow_db")
def test_an_unwritable_cache_is_named(tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("AIRFLOW__MLFLOW_PROJECTS__CACHE_DIR", str(tmp_path / "file" / "cache"))
    conf = {"uri": f"{PROJECTS}/shell", "parameters": {"command": "true"}}
    _check(conf, (f"{tmp_path}/file/cache", "cannot be written", "cache_dir"), tracking_uri)


def _check(conf: dict[str, Any], words: tuple[str, ...], tracking_uri: str) -> None:
    result = run_dag("one_step", conf)
    assert result.state == "failed"
    assert result.tasks["parent.step"].state == "failed"
    assert result.tasks["parent.step"].try_number == 1, "bad input must not be retried"
    sentences = [line for line in result.log.splitlines() if "AirflowFailException: " in line]
    assert len(sentences) == 1, result.log[-5000:]
    for word in words:
        assert word in sentences[0]
    assert "hunter2-secret" not in sentences[0]
    runs = result.runs(tracking_uri)
    assert runs["parent"].info.status == runs["step"].info.status == "FAILED"
    assert words[0] in runs["step"].data.tags["mlflow_projects.reason"]


@pytest.mark.usefixtures("airflow_db")
def test_an_unreachable_tracking_server_is_retried_and_then_named(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    result = run_dag("one_step", {"uri": f"{PROJECTS}/shell", "parameters": {"command": "true"}})
    assert result.state == "failed"
    assert result.tasks["parent.start_run"].try_number == 2
    assert f"The MLflow tracking server at {uri} cannot be used: [Errno 111] Connection refused" in result.log
