"""Who makes a result, of many that want it at the same time: one, whatever their clocks say."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from mlflow_projects.operators.reuse import Reuse, StepReusedError
from mlflow_projects.tracking.client import Run, connect
from mlflow_projects.tracking.record import Outcome, RunRecord, SourceTags, TaskIdentity
from mlflow_projects.tracking.reuse import ReuseKey, completion_tags
from mlflow_projects.tracking.settings import TrackingSettings

COMPETITORS = 5


class Competitor(threading.Thread):
    """An attempt that wants the result, and takes some time to make it."""

    def __init__(self, uri: str, number: int, key: ReuseKey, *, fails: bool, gone: set[str]) -> None:
        super().__init__()
        self.client = connect(TrackingSettings(uri=uri))
        task = TaskIdentity("claims", "run", f"task{number}", 1, f"{key.task}-{number}")
        self.reuse = Reuse(self.client, self.lines, task, True, True, lambda run: run.run_id in gone)
        self.reuse._key = key
        self.record = RunRecord(
            self.client, "0", f"task{number}", task, SourceTags("x"), more_tags=self.reuse.tags(),
            success_tags=lambda run: completion_tags(self.client, run),
        )  # fmt: skip
        self.fails = fails
        self.worked: tuple[float, float] | None = None
        self.original: Run | None = None

    def lines(self, line: str) -> None:
        """Take the lines of the log."""

    def run(self) -> None:
        self.record.open()
        try:
            self.reuse.settle(self.record, contextlib.nullcontext)
        except StepReusedError as reused:
            self.original = reused.original
            return
        begun = time.monotonic()
        time.sleep(1.0)
        self.worked = begun, time.monotonic()
        self.record.close(Outcome("FAILED" if self.fails else "FINISHED", "as told" if self.fails else ""))


def compete(
    uri: str, name: str, monkeypatch: pytest.MonkeyPatch, fails: int = 0, gone: set[str] | None = None
) -> Any:
    # Each has a clock of its own: up to an hour wrong.
    monkeypatch.setattr(
        "mlflow_projects.tracking.record.now", lambda: int((time.time() + random.uniform(-3600, 3600)) * 1000)
    )
    key = ReuseKey({"code": f"{name} {time.time()}"}, name)
    all_of_them = [Competitor(uri, n, key, fails=n < fails, gone=set()) for n in range(COMPETITORS)]
    for competitor in all_of_them:
        competitor.start()
        time.sleep(random.uniform(0, 0.3))
    for competitor in all_of_them:
        competitor.join(240)
    return all_of_them


def test_one_makes_the_result_and_all_others_take_it(mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = compete(mlflow_server, "one", monkeypatch)
    makers = [competitor for competitor in found if competitor.worked]
    assert len(makers) == 1
    assert {x.original.run_id for x in found if x.original} == {makers[0].record.run.run_id}
    runs = [makers[0].client.get_run(x.record.run.run_id) for x in found]
    assert {run.status for run in runs} == {"FINISHED"}
    assert sum("mlflow_projects.reused_from" in run.tags for run in runs) == COMPETITORS - 1


def test_no_two_work_at_the_same_time_also_when_some_fail(
    mlflow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = compete(mlflow_server, "failing", monkeypatch, fails=COMPETITORS)
    times = sorted(x.worked for x in found)
    assert len(times) == COMPETITORS  # each in its turn, as none left a result
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(times))


def test_a_run_that_nobody_works_on_any_more_holds_nobody_up(
    mlflow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(TrackingSettings(uri=mlflow_server))
    key = ReuseKey({"code": f"lost {time.time()}"}, "lost")
    left = client.create_run("0", "lost", 0, key.tags("running"))
    waiting = Competitor(mlflow_server, 0, key, fails=False, gone=(gone := set()))
    waiting.start()
    time.sleep(3)
    assert waiting.worked is None
    gone.add(left.run_id)
    waiting.join(60)
    assert waiting.worked is not None


def test_finished_is_no_result_before_the_exit_status_is_known(mlflow_server: str) -> None:
    client = connect(TrackingSettings(uri=mlflow_server))
    key = ReuseKey({"code": f"early {time.time()}"}, "early")
    run = client.create_run("0", "early", int(time.time() * 1000), key.tags("running"))
    client.update_run(run.run_id, "FINISHED", int(time.time() * 1000))  # the project's own word
    assert key.complete_runs(client, "0") == []
    (found,) = key.every_run(client, "0")
    assert key.is_at_work(found)
    assert not key.is_at_work(replace(found, end_time=1))
