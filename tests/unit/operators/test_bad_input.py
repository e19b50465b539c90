"""Bad input: one clear sentence with file, key and remedy, a FAILED run that holds it, and nothing started.

That Airflow does not retry it is shown in tests/integration/test_bad_input.py.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from mlflow_projects.exceptions import ProjectError
from tests.conftest import ROOT
from tests.support.attempts import Life
from tests.support.repository import Repository

PROJECTS = ROOT / "tests" / "projects"
CASES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "no such folder": ({"uri": "/no/such/folder"}, ("/no/such/folder does not exist", "check the uri")),
    "no MLproject and no such file": (
        {"uri": str(PROJECTS), "entry_point": "train.py"},
        ("'train.py' is neither declared", f"nor a file in {PROJECTS}"),
    ),
    "broken YAML": ({"uri": f"{PROJECTS}/broken_yaml"}, ("broken_yaml/MLproject:3", "not valid YAML")),
    "unknown entry point": (
        {"uri": f"{PROJECTS}/typed", "entry_point": "train"},
        ("typed/MLproject has no entry point 'train'", "its entry points: main"),
    ),
    "missing parameter": (
        {"uri": f"{PROJECTS}/typed", "parameters": {}},
        ("typed/MLproject, entry point 'main'", "no value for the parameter 'num'", "'parameters'"),
    ),
    "unknown backend": ({"backend": "cloud"}, ("There is no backend 'cloud'; use one of: local",)),
    "unknown env_manager": (
        {"env_manager": "poetry"},
        ("There is no env_manager 'poetry'; use one of: local, uv, virtualenv, conda",),
    ),
    "conda that is not there": (
        {"uri": f"{PROJECTS}/typed", "parameters": {"num": 1}, "env_manager": "conda"},
        ("declares no 'conda_env'",),
    ),
    "unknown key in backend_config": ({"backend_config": {"gpu": 1}}, ("unknown key 'gpu'", "grace_seconds")),
}


def check_refused(life: Life, words: tuple[str, ...], **step: Any) -> None:
    with pytest.raises(ProjectError) as caught:
        life.attempt(f"touch {life.folder}/started", **step).run()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
    assert not (life.folder / "started").exists()
    [run] = life.runs
    assert (run.status, run.tags["mlflow_projects.reason"]) == ("FAILED", str(caught.value))


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_sentence_before_anything_is_started(name: str, tmp_path: Path) -> None:
    step, words = CASES[name]
    check_refused(Life(tmp_path), words, **step)


def test_a_zip_that_reaches_outside_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("MLproject", "entry_points: {main: {command: echo}}")
        archive.writestr("../escaped.txt", "gotcha")
    check_refused(Life(tmp_path), ("'../escaped.txt'", "would land outside"), uri=str(tmp_path / "evil.zip"))


def test_an_unknown_branch_is_refused(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "origin")
    repository.commit("one", MLproject="entry_points: {main: {command: echo}}")
    words = ("has no branch, tag or commit 'no-such-branch'",)
    check_refused(Life(tmp_path), words, uri=repository.url, version="no-such-branch")
