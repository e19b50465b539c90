"""Row 13: how much longer a page of Airflow takes while 50 of ours wait for a tracking server that hangs."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

from benchmarks.row import Bench, Row, ensure, medians
from benchmarks.scheduler import Scheduler, running_scheduler
from tests.support.hostile import Dribble, answer_of, hostile_server

PAGES = 50
GOAL_RATIO = 1.5
ALONE, BESIDE = "alone", f"while {PAGES} pages hang"
_AIRFLOW = "/api/v2/dags/nothing"
_OURS = "/mlflow_projects/dags/nothing/run.json?run_id={}"


def measure(bench: Bench) -> Row:
    """Time a route of Airflow that needs one of its threads, in turns, without and with pages that hang."""
    dribble = Dribble(answer_of(b" " * 10_000), pause=1.0)
    with (
        hostile_server(dribble) as uri,
        running_scheduler(bench, {"nothing"}, MLFLOW_TRACKING_URI=uri) as scheduler,
    ):
        page = _OURS.format(quote(scheduler.run("nothing")["run_id"]))
        asked = bench.size(50, 5)
        figures: dict[str, list[float]] = {ALONE: [], BESIDE: []}
        for _ in range(bench.size(4, 1)):
            figures[ALONE] += [_seconds(scheduler) for _ in range(asked)]
            over = threading.Event()
            with ThreadPoolExecutor(PAGES) as people:
                looking = [people.submit(_look_until, over, scheduler, page) for _ in range(PAGES)]
                try:
                    ensure(dribble.begun.acquire(timeout=120), "a page asks the tracking server")
                    figures[BESIDE] += [_seconds(scheduler) for _ in range(asked)]
                finally:
                    over.set()
            ensure(all({503} == one.result() for one in looking), "every page says that the server is slow")
    found = medians(figures, 4)
    return Row(
        number=13,
        name=f"a page of Airflow while {PAGES} of ours hang, over the same alone",
        unit="ratio",
        ours=round(found[BESIDE] / found[ALONE], 2),
        limit=1.0,
        goal=GOAL_RATIO,
        peers={},
        details={"seconds": found, "slowest": {way: round(max(all_), 4) for way, all_ in figures.items()}},
    )


def _seconds(scheduler: Scheduler) -> float:
    return Bench.timed(lambda: scheduler.get(_AIRFLOW).raise_for_status())


def _look_until(over: threading.Event, scheduler: Scheduler, page: str) -> set[int]:
    """Look at a page again and again; return the answers' status codes."""
    seen = set()
    while not over.is_set():
        seen.add(scheduler.get(page).status_code)
    return seen
