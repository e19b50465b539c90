"""A git repository to commit in and to fetch from."""

from __future__ import annotations

import subprocess
from pathlib import Path


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
