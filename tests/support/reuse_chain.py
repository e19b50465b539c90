"""The DAG reuse_chain with a project and a counter of its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.support.dagruns import DagRunResult, run_dag


class Chain:
    """What its project reads, and how often its commands ran."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "project"
        shutil.copytree(ROOT / "tests" / "projects" / "maker", self.project)
        self.counter = folder / "counter"
        self.conf: dict[str, Any] = {"uri": str(self.project), "counter": str(self.counter), "text": folder.name}

    def run(self, **conf: Any) -> DagRunResult:
        """Run the DAG and return it; see :attr:`ran` for what it did."""
        self.counter.write_text("")
        result = run_dag("reuse_chain", {**self.conf, **conf})
        assert result.state == "success", result.log
        return result

    @property
    def ran(self) -> int:
        """How many commands ran, now or in the last run of the DAG."""
        return len(self.counter.read_text().splitlines())
