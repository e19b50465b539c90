from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlflow_projects.project.spec import Project, load_project


@pytest.fixture
def project(tmp_path: Path) -> Any:
    def make(**docker_env: Any) -> Project:
        (tmp_path / "MLproject").write_text("entry_points: {main: {command: 'true'}}")
        found = load_project(tmp_path)
        return Project(
            **{**vars(found), "environment_kind": "docker_env", "docker_env": {"image": "declared:1", **docker_env}}
        )

    return make
