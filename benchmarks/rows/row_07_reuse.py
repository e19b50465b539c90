"""Row 7: what a step costs whose result is taken over, in an experiment with few runs and with 100,000."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from benchmarks.airflow_process import AirflowProcess
from benchmarks.row import Bench, Row, ensure, medians
from benchmarks.tracking_server import ask, counting_proxy
from tests.support.servers import find_postgresql, running_postgresql

STEPS = 10
MANY = 100_000
_CHUNK = 5_000
_PAGE = 1000
SEARCH = "POST runs/search"


def measure(bench: Bench) -> Row:
    """Run a finished pipeline again, on SQLite and on PostgreSQL, with few and with many runs, in turns."""
    ensure(find_postgresql(), "PostgreSQL is missing: apt-get install postgresql")
    stores = {}
    for store in ("SQLite", "PostgreSQL"):
        print(f"  {store}", flush=True)
        stores[store] = _measure_store(bench, store)
    beyond = {
        f"{store}, {size} runs": seconds
        for store, found in stores.items()
        for size, seconds in found["beyond"].items()
    }
    searches = [count for found in stores.values() for count in found["searches a step"].values()]
    return Row(
        number=7,
        name="a reused step beyond an empty task",
        unit="s",
        ours=max(beyond.values()),
        limit=0.0,
        goal=0.3,
        peers={"reading every run, as MLflow's example does": stores["SQLite"]["reading every run"]["seconds"]},
        conditions={"one search a step": set(searches) == {1.0}},
        details={"beyond an empty task": beyond, **stores},
    )


def _measure_store(bench: Bench, store: str) -> dict[str, Any]:
    many = bench.size(MANY, 2000)
    counter = bench.work / "reuse-counter"
    with contextlib.ExitStack() as stack:
        databases = dict(zip(("few", "many"), stack.enter_context(_databases(bench, store)), strict=True))
        uris = {
            size: stack.enter_context(bench.tracking_server(f"reuse-{store}-{size}", database))
            for size, database in databases.items()
        }
        airflow = {size: stack.enter_context(bench.airflow(MLFLOW_TRACKING_URI=uri)) for size, uri in uris.items()}
        counter.write_text("")
        for process in airflow.values():
            process.run("reuse.pipeline")
        ensure(len(counter.read_text().splitlines()) == 2 * STEPS, "The pipeline did not run once on each server.")
        experiment = ask_experiment(uris["many"])
        filled = bench.timed(lambda: fill(databases["many"], experiment, many))
        print(f"  {many} runs inserted in {filled:.0f} s", flush=True)
        figures = bench.in_turns(
            {
                "empty": lambda: airflow["few"].seconds("reuse.empty") / STEPS,
                "few": lambda: _seconds_a_step(airflow["few"]),
                "many": lambda: _seconds_a_step(airflow["many"]),
            },
            rounds=5,
        )
        counted = {size: _requests(bench, uri) for size, uri in uris.items()}
        ensure(len(counter.read_text().splitlines()) == 2 * STEPS, "A step ran that should have been reused.")
        every_run = _read_every_run(uris["many"], experiment)
        ensure(every_run["runs"] >= many, "The runs that were inserted cannot be read.")
    seconds = medians(figures)
    return {
        "beyond": {size: round(seconds[size] - seconds["empty"], 3) for size in uris},
        "searches a step": {size: count[SEARCH] for size, count in counted.items()},
        "requests a step": counted,
        "reading every run": every_run,
        "medians": seconds,
        "samples": figures,
    }


def _seconds_a_step(airflow: AirflowProcess) -> float:
    tasks = airflow.run("reuse.pipeline")["tasks"]
    return sum(seconds for name, seconds in tasks.items() if "step_" in name) / STEPS


def _requests(bench: Bench, uri: str) -> dict[str, float]:
    """Count the requests of a reused step: those of the pipeline, without those of the parent's two tasks."""
    found = []
    for dag in ("reuse.pipeline", "reuse.around_nothing"):
        with counting_proxy(uri) as (proxy, calls), bench.airflow(MLFLOW_TRACKING_URI=proxy) as airflow:
            airflow.run(dag)
            found.append(Counter(calls.requests(ours=True)))
    found[0].subtract(found[1])
    return {kind: count / STEPS for kind, count in sorted(found[0].items()) if count}


@contextlib.contextmanager
def _databases(bench: Bench, store: str) -> Iterator[list[str]]:
    if store == "SQLite":
        folder = bench.folder("reuse-databases")
        yield [f"sqlite:///{folder / name}.db" for name in ("few", "many")]
        return
    with running_postgresql(["few", "many"]) as server:
        yield [f"{server}/{name}" for name in ("few", "many")]


def ask_experiment(uri: str) -> str:
    """Return the id of the pipeline's experiment."""
    found = ask(uri, "experiments/search", {"filter": "name = 'reuse'", "max_results": 1})
    return str(found["experiments"][0]["experiment_id"])


def fill(database: str, experiment: str, count: int) -> None:
    """Insert finished runs as our steps leave them, each with a key of its own.

    :param database: SQLAlchemy URI of MLflow's database, with its tables
    """
    import sqlalchemy
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric, SqlParam, SqlRun, SqlTag

    engine = sqlalchemy.create_engine(database)
    parts = _parts_tags(engine, experiment)
    start = int(time.time() * 1000) - 10 * count
    for first in range(0, count, _CHUNK):
        numbers = range(first, min(first + _CHUNK, count))
        ids = {number: secrets.token_hex(16) for number in numbers}
        rows: dict[Any, list[dict[str, Any]]] = {
            model: [] for model in (SqlRun, SqlTag, SqlParam, SqlMetric, SqlLatestMetric)
        }
        for number, run in ids.items():
            moment = start + 10 * number
            rows[SqlRun].append(
                {"run_uuid": run, "name": "step", "source_type": "UNKNOWN", "source_name": "", "entry_point_name": "",
                 "user_id": "bench", "status": "FINISHED", "start_time": moment, "end_time": moment + 5,
                 "source_version": "", "lifecycle_stage": "active", "experiment_id": int(experiment),
                 "artifact_uri": f"mlflow-artifacts:/{experiment}/{run}/artifacts"}
            )  # fmt: skip
            tags = {
                "mlflow.runName": "step",
                "mlflow.source.name": "/projects/maker",
                "airflow.dag_id": "pipeline",
                "airflow.run_id": f"manual__{number // STEPS}",
                "airflow.task_id": f"step_{number % STEPS}",
                f"mlflow_projects.reuse.{secrets.token_hex(32)}": "complete",
                "mlflow_projects.reuse_artifacts": json.dumps({"files": {"made/text.txt": 11}, "models": []}),
                parts[number % len(parts)]: "{}",
            }
            rows[SqlTag] += [{"key": key, "value": value, "run_uuid": run} for key, value in tags.items()]
            rows[SqlParam].append({"key": "text", "value": f"step {number}", "run_uuid": run})
            metric = {"key": "length", "value": 6.0, "timestamp": moment, "step": 3, "is_nan": False, "run_uuid": run}
            rows[SqlMetric].append(metric)
            rows[SqlLatestMetric].append(metric)
        with engine.begin() as connection:
            for model, values in rows.items():
                connection.execute(sqlalchemy.insert(model.__table__), values)
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sqlalchemy.text("ANALYZE"))  # else PostgreSQL does it by itself within minutes
    engine.dispose()


def _parts_tags(engine: Any, experiment: str) -> list[str]:
    """Return the names of the tags by which the pipeline's tasks find their own earlier runs."""
    import sqlalchemy

    query = "SELECT DISTINCT key FROM tags WHERE key LIKE 'mlflow_projects.reuse_parts.%'"
    with engine.connect() as connection:
        found = [row[0] for row in connection.execute(sqlalchemy.text(query))]
    ensure(len(found) == STEPS, f"Experiment {experiment} holds no finished pipeline.")
    return found


def _read_every_run(uri: str, experiment: str) -> dict[str, float]:
    """Do one step's look-up as MLflow's example of a multi-step workflow does: read and compare all runs."""
    begin, token, requests, runs = time.perf_counter(), "", 0, 0
    while token or not requests:
        request: dict[str, Any] = {"experiment_ids": [experiment], "max_results": _PAGE}
        answer = ask(uri, "runs/search", {**request, **({"page_token": token} if token else {})})
        requests, runs, token = requests + 1, runs + len(answer["runs"]), answer.get("next_page_token", "")
    return {"seconds": round(time.perf_counter() - begin, 3), "requests": requests, "runs": runs}
