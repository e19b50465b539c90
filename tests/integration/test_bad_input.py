"""Bad input in whole DAG runs: no retry, no run left open; the other sentences are in tests/unit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.support.dagruns import run_dag
from tests.support.servers import free_port

PROJECTS = ROOT / "tests" / "projects"


CASES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "text for an int": (
        {"uri": f"{PROJECTS}/typed", "parameters": {"num": "abc"}},
        ("parameter 'num' must be of type int, not 'abc'",),
    ),
    "password in the uri": (
        {"uri": "https://me:hunter2-secret@git.invalid/project.git"},
        ("https://git.invalid/project.git holds a password", "git_conn_id"),
    ),
}


@pytest.mark.usefixtures("airflow_db")
@pytest.mark.parametrize("name", CASES)
def test_bad_input_fails_at_once_with_one_sentence(name: str, tracking_uri: str) -> None:
    conf, words = CASES[name]
    _check(conf, words, tracking_uri)


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
    sentences = [line for line in result.log.splitlines() if "FailException: " in line]
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
