"""Who makes a result, of many that want it at the same time, on a real server: one, whatever their clocks say.

tests/unit/operators/test_reuse.py tries many more orders of the same steps, on a client in memory.
"""

from __future__ import annotations

import contextlib
import random
import threading
import uuid

from mlflow_projects.attempt.reuse import Reuse
from mlflow_projects.tracking.client import Run, now
from mlflow_projects.tracking.connect import connect
from mlflow_projects.tracking.record import Outcome, RunRecord, SourceTags, TaskIdentity
from mlflow_projects.tracking.reuse_key import ReuseKey, completion_tags
from mlflow_projects.tracking.server import TrackingSettings
from tests.support.waiting import wait

COMPETITORS = 5


class Competitor(threading.Thread):
    """An attempt that wants the result; what it makes is ready when all the others want it too."""

    def __init__(self, uri: str, number: int, key: ReuseKey) -> None:
        super().__init__()
        self.client, self.key = connect(TrackingSettings(uri=uri)), key
        task = TaskIdentity("claims", "run", f"task{number}", 1, f"{key.task}-{number}")
        self.reuse = Reuse(self.client, lambda line: None, task, True, True, lambda run: False)
        self.reuse._key = key
        self.record = RunRecord(
            self.client, "0", f"task{number}", task, SourceTags("x"),
            success_tags=lambda run: completion_tags(self.client, run),
        )  # fmt: skip
        self.worked = False
        self.original: Run | None = None

    def run(self) -> None:
        # Each has a clock of its own: up to an hour wrong.
        started = now() + random.randint(-3_600_000, 3_600_000)
        self.record.run = self.client.create_run("0", self.record.name, started, self.reuse.tags())
        if original := self.reuse.settle(self.record, contextlib.nullcontext):
            self.original = original
            self.reuse.take_over(self.record, original)
            return
        self.worked = True
        wait(lambda: len(self.key.every_run(self.client, "0")) == COMPETITORS, "the others")
        self.record.close(Outcome("FINISHED"))


def test_one_makes_the_result_and_all_others_take_it(mlflow_server: str) -> None:
    key = ReuseKey({"code": str(uuid.uuid4())}, "one")
    found = [Competitor(mlflow_server, number, key) for number in range(COMPETITORS)]
    for competitor in found:
        competitor.start()
    for competitor in found:
        competitor.join(300)
    makers = [competitor for competitor in found if competitor.worked]
    assert len(makers) == 1
    assert makers[0].record.run
    assert {x.original.run_id for x in found if x.original} == {makers[0].record.run.run_id}
    runs = key.every_run(makers[0].client, "0")
    assert {run.status for run in runs} == {"FINISHED"}
    assert sum("mlflow_projects.reused_from" in run.tags for run in runs) == COMPETITORS - 1
