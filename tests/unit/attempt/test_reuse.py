"""An earlier result is taken over only if it is one, and of many that want it at the same time one makes it."""

from __future__ import annotations

import contextlib
import json
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from mlflow_projects.attempt.reuse import Reuse
from mlflow_projects.attempt.stopping import AttemptKilledError
from mlflow_projects.tracking.client import Run
from mlflow_projects.tracking.record import Outcome, RunRecord, SourceTags, TaskIdentity
from mlflow_projects.tracking.reuse_key import ReuseKey, completion_tags
from tests.support.memory_tracking import MemoryClient

KEY = ReuseKey({"code": "1", "parameters": {"a": "1"}}, "task")
DIGEST = KEY.digest[:12]


class Step:
    """An attempt at a step, as far as reuse is concerned."""

    def __init__(
        self,
        client: MemoryClient,
        name: str = "step",
        *,
        started: int = 1000,
        key: ReuseKey = KEY,
        tags: dict[str, str] | None = None,
        **reuse: Any,
    ) -> None:
        self.log: list[str] = []
        self.pauses: list[float] = []
        self.client = client
        task = TaskIdentity("dag", "run", name, 1, f"attempt of {name}")
        given = {"look": True, "wait": True, "task_is_gone": lambda run: False, "sleep": self.pauses.append}
        self.reuse = Reuse(client, self.log.append, task, **{**given, **reuse})
        self.reuse._key = key
        self.run = client.create_run("0", name, started, {**self.reuse.tags(), **(tags or {})})
        self.record = RunRecord(
            client, "0", name, task, SourceTags("x"), parameters={"a": "1", "b": "2"},
            success_tags=lambda run: completion_tags(client, run), run=self.run,
        )  # fmt: skip

    def finish(self, status: Any = "FINISHED") -> Step:
        self.record.close(Outcome(status, "" if status == "FINISHED" else "as told"))
        return self

    @property
    def now(self) -> Run:
        return self.client.get_run(self.run.run_id)


@pytest.fixture
def client() -> MemoryClient:
    return MemoryClient()


# --- find ---


def test_the_newest_result_that_is_whole_is_found(client: MemoryClient) -> None:
    old, newer, newest = (Step(client, f"s{n}", started=n) for n in (1, 2, 3))
    for step in (old, newer, newest):
        client.log_text(step.run.run_id, "content", "out/model.bin")
        client.log_text(step.run.run_id, "more", "out/more.txt")
        step.finish()
    client.log_text(newest.run.run_id, "another size", "out/model.bin")
    mine = Step(client)
    assert mine.reuse.find(mine.record) == newer.now
    assert mine.log == [f"Run {newest.run.run_id} has the same key, but lost out/model.bin; it is not reused."]
    client.log_text(newest.run.run_id, "another size", "out/more.txt")
    mine.log.clear()
    mine.reuse.find(mine.record)
    assert mine.log == [
        f"Run {newest.run.run_id} has the same key, but lost out/model.bin and 1 more; it is not reused."
    ]


def test_a_dag_run_that_forces_its_steps_asks_nobody(client: MemoryClient) -> None:
    Step(client, "result").finish()
    mine = Step(client, look=False)
    client.calls.clear()
    assert mine.reuse.find(mine.record) is None
    assert client.calls == []
    assert mine.log == ["Not reused: this DAG run forces its steps to run (its param 'reuse')."]


def explained(client: MemoryClient, key: ReuseKey = KEY) -> list[str]:
    """Return what is said when nothing is found, by an attempt whose own run is not open yet."""
    mine = Step(client, "mine", key=key)
    client.delete_run(mine.run.run_id)
    assert mine.reuse.find(mine.record) is None
    return mine.log


def test_without_an_earlier_run_that_is_said(client: MemoryClient) -> None:
    assert explained(client) == [f"Not reused: no earlier run of this task is known (key {DIGEST})."]


def test_what_changed_is_said(client: MemoryClient) -> None:
    before = Step(
        client, tags={"mlflow_projects.parameters": '{"a": "1", "b": "other", "gone": "x"}'},
        key=ReuseKey({"code": "2", "parameters": {"a": "2"}}, "task"),
    ).finish()  # fmt: skip
    assert explained(client) == [
        f"Not reused (key {DIGEST}). Against the task's newest run {before.run.run_id}, "
        "changed: code, parameters (b, gone)."
    ]


@pytest.mark.parametrize("written", ["", "no JSON", "[1]"])
def test_parameters_that_cannot_be_compared_are_not_named(written: str, client: MemoryClient) -> None:
    tags = {"mlflow_projects.parameters": written}
    before = Step(client, tags=tags, key=ReuseKey({"code": "1", "parameters": {}}, "task")).finish()
    names = " (a, b)" if not written else ""
    assert explained(client) == [
        f"Not reused (key {DIGEST}). Against the task's newest run {before.run.run_id}, changed: parameters{names}."
    ]


def test_a_failure_of_the_same_content_left_no_result(client: MemoryClient) -> None:
    before = Step(client).finish("FAILED")
    assert explained(client) == [
        f"Not reused (key {DIGEST}). Against the task's newest run {before.run.run_id}, "
        "it is FAILED and left no result to take."
    ]


# --- take over ---


def test_a_link_holds_the_originals_parameters_and_metrics_but_not_what_it_cost(client: MemoryClient) -> None:
    original = Step(client, "original", tags={"mlflow.project.backend": "sagemaker"})
    client.log_batch(original.run.run_id, params={"a": "1", "own": "x" * 8000}, metrics={
        "loss": 0.5, "sagemaker/seconds": 60.0, "system/cpu": 1.0,
    })  # fmt: skip
    original.finish()
    mine = Step(client, tags={"mlflow.note.content": "The task."})
    mine.reuse.take_over(mine.record, original.now)
    linked, url = mine.now, f"http://tracking.test/#/experiments/0/runs/{original.run.run_id}"
    assert (linked.status, linked.params, linked.metrics) == (
        "FINISHED",
        {"a": "1", "b": "2", "own": "x" * 6000},
        {"loss": 0.5},
    )
    assert linked.end_time is not None
    assert linked.tags == {
        **mine.run.tags,
        KEY.tag: "reused",
        "mlflow_projects.reused_from": original.run.run_id,
        "mlflow.note.content": f"The task.\n\nReused: the result of [original ({original.run.run_id})]({url})",
    }
    assert mine.log == [
        f"Reused run {original.run.run_id} (original): same code, entry point, parameters, inputs and environment "
        f"(key {DIGEST}). {url}"
    ]


def test_a_link_in_a_database_without_a_page_has_a_name_only(client: MemoryClient) -> None:
    client.settings = replace(client.settings, uri="sqlite:////db")
    original, mine = Step(client, "original").finish(), Step(client)
    mine.reuse.take_over(mine.record, original.now)
    assert mine.now.tags["mlflow.note.content"] == f"Reused: the result of original ({original.run.run_id})"
    assert mine.log[0].endswith(f"(key {DIGEST}).")


def test_a_link_is_no_result_to_take(client: MemoryClient) -> None:
    original, link, mine = Step(client, "original", started=1).finish(), Step(client, started=2), Step(client)
    link.reuse.take_over(link.record, original.now)
    assert mine.reuse.find(mine.record) == original.now


# --- wait ---


def settle(step: Step) -> Run | None:
    if original := step.reuse.settle(step.record, contextlib.nullcontext):
        step.reuse.take_over(step.record, original)
    return original


def test_alone_it_goes_on_at_once(client: MemoryClient) -> None:
    mine = Step(client)
    client.calls.clear()
    settle(mine)
    assert client.calls == ["search_runs"]
    assert mine.pauses == []


def test_it_waits_for_an_older_one_takes_its_own_claim_back_and_then_the_result(client: MemoryClient) -> None:
    older = Step(client, "older", started=1)

    def sleep(seconds: float) -> None:
        mine.pauses.append(seconds)
        assert mine.now.tags[KEY.tag] == "waiting"
        if len(mine.pauses) == 12:
            older.finish()

    mine = Step(client, started=2, sleep=sleep, clock=lambda: 20.0 * len(mine.pauses))
    assert settle(mine) == older.now
    assert (mine.now.status, mine.now.tags[KEY.tag]) == ("FINISHED", "reused")
    longest = [min(0.3 * 1.5**n, 15.0) for n in range(12)]
    assert all(most / 2 <= pause <= most for pause, most in zip(mine.pauses, longest, strict=True))
    # At 0, 80, 160 and 240 s: more than a minute after the last time.
    said = f"Waiting for run {older.run.run_id} (older), which makes the same result."
    assert mine.log[:-1] == [said] * 3


def test_it_takes_its_turn_when_the_other_failed_and_looks_once_more_before_it_goes_on(client: MemoryClient) -> None:
    older = Step(client, "older", started=1)
    mine = Step(client, started=2, sleep=lambda _: older.finish("FAILED"))
    client.calls.clear()
    settle(mine)
    assert mine.now.tags[KEY.tag] == "running"
    claimed = len(client.calls) - client.calls[::-1].index("log_batch")
    assert client.calls[claimed:] == ["search_runs", "get_run"]


def test_of_two_that_claim_at_the_same_time_the_younger_gives_way(client: MemoryClient) -> None:
    """The younger sees an older claim only after its own; the older one waits until that is taken back."""
    first, second = Step(client, "a", started=5), Step(client, "b", started=5)
    assert first.run.run_id < second.run.run_id  # of the same millisecond, the id decides
    seen = []

    def younger_looks(_: float) -> None:
        seen.append(first.now.tags[KEY.tag])
        client.log_batch(second.run.run_id, tags=KEY.tags("waiting"))

    first.reuse.sleep = younger_looks
    settle(first)
    assert seen == ["running"]
    assert first.now.tags[KEY.tag] == "running"


def test_a_run_that_nobody_works_on_any_more_holds_nobody_up(client: MemoryClient) -> None:
    lost = Step(client, "lost", started=1)
    gone: set[str] = set()
    mine = Step(
        client, started=2, sleep=lambda _: gone.add(lost.run.run_id), task_is_gone=lambda run: run.run_id in gone
    )
    settle(mine)
    assert gone == {lost.run.run_id}
    assert mine.now.tags[KEY.tag] == "running"
    assert lost.now.status == "RUNNING"  # somebody else's run is not ours to close


def test_a_result_that_lost_its_files_is_made_again(client: MemoryClient) -> None:
    older = Step(client, "older", started=1)
    client.log_text(older.run.run_id, "1", "out")
    older.finish()
    client.log_text(older.run.run_id, "22", "out")
    mine = Step(client, started=2)
    settle(mine)
    assert mine.log == [f"Run {older.run.run_id} has the same key, but lost out; it is not reused."]


def test_a_kill_ends_the_waiting_in_every_part_of_it_that_may_be_ended(client: MemoryClient) -> None:
    Step(client, "older", started=1)
    for number in range(3):  # while it asks MLflow, while it asks Airflow, while it sleeps
        mine, entered = Step(client, started=2), []

        @contextlib.contextmanager
        def interruptible(entered: list[int] = entered, number: int = number) -> Iterator[None]:
            entered.append(1)
            if len(entered) > number:
                raise AttemptKilledError("stopped by Airflow")
            yield

        with pytest.raises(AttemptKilledError):
            mine.reuse.settle(mine.record, interruptible)
        assert mine.pauses == []
        assert mine.now.status == "RUNNING"


def test_a_result_whose_end_is_being_written_is_waited_for(client: MemoryClient) -> None:
    """Its tags come first, its status after that; the tracking server may be away in between."""
    older = Step(client, "older", started=1)
    client.log_batch(older.run.run_id, tags=completion_tags(client, older.now))
    mine = Step(client, started=2, sleep=lambda _: client.update_run(older.run.run_id, "FINISHED", 2))
    assert settle(mine) == older.now


class Turns:
    """Threads of which one works at a time, from one call of the tracking client to the next.

    :param chance: says whose turn it is
    """

    def __init__(self, client: MemoryClient, chance: random.Random) -> None:
        self.client, self.chance = client, chance
        self._go: dict[int, threading.Semaphore] = {}
        self._parked = threading.Semaphore(0)
        client.before = lambda *_: self.give_way()

    def give_way(self, *_: Any) -> None:
        if mine := self._go.get(threading.get_ident()):
            self._parked.release()
            assert mine.acquire(timeout=120)

    def play(self, works: list[Callable[[], None]]) -> None:
        failed: list[BaseException] = []

        def run(work: Callable[[], None], go: threading.Semaphore) -> None:
            self._go[threading.get_ident()] = go
            self._parked.release()
            assert go.acquire(timeout=120)
            try:
                work()
            except BaseException as error:
                failed.append(error)
            over.add(go)
            self._parked.release()

        over: set[threading.Semaphore] = set()
        turns = [threading.Semaphore(0) for _ in works]
        threads = [threading.Thread(target=run, args=pair) for pair in zip(works, turns, strict=True)]
        for thread in threads:
            thread.start()
            assert self._parked.acquire(timeout=120)
        for _ in range(20_000):
            if not (left := [turn for turn in turns if turn not in over]):
                break
            self.chance.choice(left).release()
            assert self._parked.acquire(timeout=120)
        else:
            raise AssertionError("they wait for each other for ever")
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]


@pytest.mark.parametrize("seed", range(20))
def test_never_do_two_make_the_same_result_whatever_their_clocks_say(seed: int, client: MemoryClient) -> None:
    """Each step of each is tried in an order of its own; some fail, so that another one has its turn."""
    chance = random.Random(seed)
    turns = Turns(client, chance)
    at_work: list[str] = []
    made: list[Step] = []
    taken: list[Run] = []
    fails = {f"s{n}" for n in range(chance.randint(0, 5))}

    def live(name: str, clock: int) -> None:
        turns.give_way()
        step = Step(client, name, started=clock, sleep=turns.give_way)
        if original := settle(step):
            taken.append(original)
            return
        at_work.append(name)
        for _ in range(chance.randint(0, 30)):
            assert at_work == [name]
            turns.give_way()
        at_work.remove(name)
        made.append(step.finish("FAILED" if name in fails else "FINISHED"))

    turns.play([lambda n=n: live(f"s{n}", 10**12 + chance.randint(-3_600_000, 3_600_000)) for n in range(5)])
    results = [step for step in made if step.now.status == "FINISHED"]
    assert len(results) == (0 if len(fails) == 5 else 1)
    assert {run.run_id for run in taken} <= {step.run.run_id for step in results}
    assert len(made) + len(taken) == 5
    states = [run.tags[KEY.tag] for run in client.search_runs(["0"], "")]
    assert states.count("complete") == len(results)
    assert states.count("reused") == len(taken)


def test_finished_is_no_result_before_the_exit_status_is_known(client: MemoryClient) -> None:
    early = Step(client, "early")
    client.update_run(early.run.run_id, "FINISHED", None)  # the project's own word
    assert KEY.complete_runs(client, "0") == []
    (found,) = KEY.every_run(client, "0")
    assert KEY.is_at_work(found)
    assert not KEY.is_at_work(replace(found, end_time=1))
    assert json.loads(early.finish().now.tags["mlflow_projects.reuse_artifacts"]) == {"files": {}, "models": []}
