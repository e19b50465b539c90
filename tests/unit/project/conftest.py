from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from mlflow_projects.project.cache import Cache


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


class Repository:
    """A work tree to commit in, and the bare repository that it pushes to."""

    def __init__(self, folder: Path, branch: str = "trunk") -> None:
        self.tree, self.bare = folder / "tree", folder / "served" / "project.git"
        self.tree.mkdir(parents=True)
        self.bare.parent.mkdir()
        self.git("init", "--quiet", "--bare", "-b", branch, str(self.bare))
        self.git("init", "--quiet", "-b", branch)
        self.git("remote", "add", "origin", str(self.bare))
        self.branch = branch

    @property
    def url(self) -> str:
        return self.bare.as_uri()

    def git(self, *arguments: str) -> str:
        identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
        command = ["git", *identity, "-c", "protocol.file.allow=always", *arguments]
        return subprocess.run(command, cwd=self.tree, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, text: str, **files: str) -> str:
        """Commit an MLproject that echoes the text, push everything, return the commit."""
        content = f"name: demo\nentry_points: {{main: {{command: echo {text}}}}}\n"
        for name, data in {"MLproject": content, **files}.items():
            (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
            (self.tree / name).write_text(data)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", text)
        self.push()
        return self.git("rev-parse", "HEAD")

    def push(self) -> None:
        self.git("push", "--quiet", "--force", "--all", "origin")
        self.git("push", "--quiet", "--force", "--tags", "origin")


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
