"""Who may look into the folders of the cache and of the checkpoints (issue 22, row 10)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlflow_projects import config
from mlflow_projects.attempt.checkpoint import kept_checkpoint


def use_cache() -> None:
    with config.cache().workspace() as folder:
        (folder / "secret").write_text("x")


def use_checkpoints() -> None:
    with kept_checkpoint(config.checkpoints(), "0" * 64, Path(), None, print) as checkpoint:
        (checkpoint.folder / "secret").write_text("x")


USES = pytest.mark.parametrize(("use", "option"), [(use_cache, "CACHE_DIR"), (use_checkpoints, "CHECKPOINT_DIR")])


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(folder: Path) -> str:
    return oct(folder.stat().st_mode & 0o7777)


@USES
def test_a_new_folder_is_the_workers_alone(
    use: Callable[[], None], option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for asked, expected in (("False", "0o700"), ("True", "0o750")):
        folder = tmp_path / asked / "any"
        monkeypatch.setenv(f"AIRFLOW__MLFLOW_PROJECTS__{option}", str(folder))
        monkeypatch.setenv("AIRFLOW__MLFLOW_PROJECTS__GROUP_READS", asked)
        use()
        assert mode(folder) == expected


@USES
@pytest.mark.parametrize(
    ("name", "before", "group_reads", "after"),
    [
        ("mlflow_projects_cache", 0o755, "False", "0o700"),  # as earlier versions made it
        ("mlflow_projects_cache", 0o755, "True", "0o750"),
        ("mlflow_projects", 0o2775, "False", "0o2770"),  # prepared for tasks with run_as_user
        ("mlflow_projects", 0o1777, "False", "0o1777"),
        ("data", 0o755, "False", "0o755"),  # who knows what else is in it
    ],
)
def test_a_folder_that_is_there(
    use: Callable[[], None],
    option: str,
    name: str,
    before: int,
    group_reads: str,
    after: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    folder.chmod(before)
    monkeypatch.setenv(f"AIRFLOW__MLFLOW_PROJECTS__{option}", str(folder))
    monkeypatch.setenv("AIRFLOW__MLFLOW_PROJECTS__GROUP_READS", group_reads)
    use()
    assert mode(folder) == after
