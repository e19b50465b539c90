"""Our backends, and one of another package, pass the kit that every backend must pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest

from mlflow_projects.backends import registry
from mlflow_projects.testing import BackendConformance, DurableBackendConformance

TOY = Path(__file__).parents[2] / "toy_backend"  # where the entry point is declared, as by an installed package


def processes_in(folder: Path) -> list[str]:
    """Return the living processes that work for jobs of a folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ", "status"]):
        told = [*(process.info["cmdline"] or ()), (process.info["environ"] or {}).get("PWD", "")]
        if process.pid != psutil.Process().pid and any(str(folder) in part for part in told):
            found.append(" ".join(process.info["cmdline"] or ["?"]))
    return found


class TestLocal(BackendConformance):
    backend = "local"
    config: ClassVar = {"grace_seconds": 0.5}
    same_configs: ClassVar = ({"grace_seconds": 9},)
    bad_configs: ClassVar = ({"grace_seconds": "soon"},)

    def leftovers(self, folder: Path) -> list[str]:
        return processes_in(folder)


class TestToy(DurableBackendConformance):
    backend = "toy"
    other_configs: ClassVar = ({"toy_nice": 1}, {"toy_nice": 2})
    bad_configs: ClassVar = ({"toy_folder": "relative"}, {"toy_nice": "much"})

    @pytest.fixture(autouse=True)
    def _installed(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.syspath_prepend(str(TOY))
        registry._installed.cache_clear()
        yield
        registry._installed.cache_clear()

    def job(self, folder: Path, script: str, **changes: Any) -> Any:
        changes["config"] = {"toy_folder": str(folder / "toy"), **changes.get("config", {})}
        return super().job(folder, script, **changes)

    def leftovers(self, folder: Path) -> list[str]:
        return processes_in(folder)
