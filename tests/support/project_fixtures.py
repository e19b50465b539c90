from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlflow_projects.project.cache import Cache
from tests.support.repository import Repository


@pytest.fixture(autouse=True)
def quiet_home(tmp_path_factory, monkeypatch):
    """Give git a home of its own, so that neither the developer's settings nor helpers count."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for name in [name for name in os.environ if name.lower().endswith("_proxy") or name == "GIT_DIR"]:
        monkeypatch.delenv(name)
    return home


@pytest.fixture
def cache(tmp_path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def workspace(tmp_path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@pytest.fixture
def repository(tmp_path) -> Repository:
    made = Repository(tmp_path / "origin")
    made.commit("first", **{"sub/dir/MLproject": "name: deep\n"})
    return made


@pytest.fixture
def project(tmp_path):
    """Return a function that writes a project folder with an MLproject text and other files."""

    def write(text: str | None, files: dict[str, str] | None = None, name: str = "MLproject") -> Path:
        root = tmp_path / "project"
        root.mkdir(exist_ok=True)
        if text is not None:
            (root / name).write_text(text, encoding="utf-8")
        for file, content in (files or {}).items():
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_text(content, encoding="utf-8")
        return root

    return write
