"""Row 16: what opening, finding and closing runs takes on a server with a million runs, over one with a thousand."""

from __future__ import annotations

import json
import re
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from benchmarks.row import ROOT, Bench, Row, ensure, medians
from benchmarks.tracking_server import ask
from tests.support.servers import find_postgresql, running_postgresql

if TYPE_CHECKING:
    from mlflow_projects.tracking.client import Run, TrackingClient

FEW, MANY = 1_000, 1_000_000
GOAL = 2.0
AIRFLOW = "http://airflow.example:8080"
STEPS = 10  # of each DAG run: a parent and nine steps below it

# As steps of ours leave them: ten runs to a DAG run, all of one DAG, in one experiment.
INSERTS = f"""
CREATE TEMPORARY TABLE made AS
  SELECT number, md5('run' || number) AS id, md5('run' || number - number % {STEPS}) AS parent,
         'scheduled__' || number / {STEPS} AS dag_run, number % {STEPS} AS place,
         :now - 10000::bigint * (:count - number) AS moment
  FROM generate_series(0, :count - 1) AS number ORDER BY id;
INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time, end_time,
                  source_version, lifecycle_stage, experiment_id, artifact_uri)
  SELECT id, 'step', 'UNKNOWN', '', '', 'bench', 'FINISHED', moment, moment + 5000, '', 'active', :experiment,
         'mlflow-artifacts:/' || :experiment || '/' || id || '/artifacts'
  FROM made;
INSERT INTO tags (key, value, run_uuid)
  SELECT tag.key, tag.value, id FROM made, LATERAL (VALUES
    ('mlflow.runName', 'step'),
    ('mlflow.source.name', '/projects/echo'),
    ('airflow.dag_id', 'growth'),
    ('airflow.run_id', dag_run),
    ('airflow.task_id', CASE place WHEN 0 THEN 'pipeline.start_run' ELSE 'pipeline.step_' || place END),
    ('airflow.map_index', '-1'),
    ('airflow.try_number', '1'),
    ('airflow.task_url', '{AIRFLOW}/dags/growth/runs/' || dag_run),
    ('mlflow_projects.attempt_id', id),
    ('mlflow_projects.dag_run.' || md5(dag_run), '1'),
    ('mlflow_projects.role', CASE place WHEN 0 THEN 'parent' ELSE 'step' END),
    ('mlflow.parentRunId', CASE place WHEN 0 THEN NULL ELSE parent END)
  ) AS tag (key, value) WHERE tag.value IS NOT NULL ORDER BY tag.key, id;
INSERT INTO params (key, value, run_uuid) SELECT 'text', 'hello', id FROM made;
INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid)
  SELECT 'length', 6, moment, 3, false, id FROM made;
DROP TABLE made;
ANALYZE"""  # else PostgreSQL does it by itself within minutes
# Superusers may leave out the checks of foreign keys, one for each of twelve million rows.
REPLICA = "SET session_replication_role = replica"
WITHOUT, WITH = "without the index that docs/tracking_setups.md names", "with it"


def measure(bench: Bench) -> Row:
    """Do the same on two servers in turns; PostgreSQL holds the runs."""
    ensure(find_postgresql(), "PostgreSQL is missing: apt-get install postgresql")
    sizes = {"few": FEW, "many": bench.size(MANY, 10_000)}
    with running_postgresql([*sizes]) as databases:
        for name, count in sizes.items():
            database = f"{databases}/{name}"
            with bench.tracking_server(f"growth-{name}", database) as uri:
                experiment = str(ask(uri, "experiments/create", {"name": "growth"})["experiment_id"])
            seconds = Bench.timed(lambda database=database, count=count, of=experiment: fill(database, of, count))
            print(f"  {count} runs inserted in {seconds:.0f} s", file=sys.stderr, flush=True)
        with (
            bench.tracking_server("growth-few-again", f"{databases}/few") as few,
            bench.tracking_server("growth-many-again", f"{databases}/many") as many,
        ):
            rounds = bench.size(15, 2)
            command = [sys.executable, "-m", "benchmarks.rows.row_16_growth", experiment, str(rounds), few, many]
            figures = {}
            for way in (WITHOUT, WITH):
                if way == WITH:
                    for name in sizes:
                        in_database(f"{databases}/{name}", [index_of_docs()])
                measured = json.loads(bench.output(command, bench.environment()).splitlines()[-1])
                figures[way] = {size: medians(calls, 1) for size, calls in zip(sizes, measured, strict=True)}
    ratios = {
        way: {what: round(found["many"][what] / value, 2) for what, value in found["few"].items()}
        for way, found in figures.items()
    }
    return Row(
        number=16,
        name=f"{sizes['many']:,} runs in the tracking server over {FEW:,}: the slowest of five calls",
        unit="ratio",
        ours=max(ratios[WITH].values()),
        limit=1.0,
        goal=GOAL,
        peers={WITHOUT: max(ratios[WITHOUT].values())},
        details={"ratios": ratios, "ms": figures, "rounds": rounds},
    )


def index_of_docs() -> str:
    """Return the statement that docs/tracking_setups.md gives to whoever has many runs."""
    (statement,) = re.findall(r"^(CREATE INDEX [^;]+);$", (ROOT / "docs/tracking_setups.md").read_text(), re.M)
    return str(statement)


def fill(database: str, experiment: str, count: int) -> None:
    """Insert finished runs.

    :param database: SQLAlchemy URI of MLflow's database on PostgreSQL, with its tables
    """
    values = {"now": int(time.time() * 1000), "count": count, "experiment": int(experiment)}
    in_database(database, [REPLICA, *INSERTS.split(";\n")], values)


def in_database(database: str, statements: Sequence[str], values: Mapping[str, int] | None = None) -> None:
    """Execute SQL, each statement by itself."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(database, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            taken = {name: value for name, value in (values or {}).items() if f":{name}" in statement}
            connection.execute(sqlalchemy.text(statement), taken)
    engine.dispose()


def in_turns(experiment: str, rounds: int, uris: list[str]) -> list[dict[str, list[float]]]:
    """Return the milliseconds of each call for each server; the first round fills caches."""
    from mlflow_projects.tracking.connect import connect
    from mlflow_projects.tracking.server import TrackingSettings

    clients = [connect(TrackingSettings(uri)) for uri in uris]
    measured: list[dict[str, list[float]]] = [{} for _ in clients]
    for number in range(rounds + 1):
        for client, figures in zip(clients, measured, strict=True):
            one_round(client, experiment, figures if number else {})
    return measured


def one_round(client: TrackingClient, experiment: str, figures: dict[str, list[float]]) -> None:
    """Measure each call once, with runs of a new DAG run."""
    from mlflow_projects.tracking.ended_dag_run import EndedDagRun, settle
    from mlflow_projects.tracking.janitor import close_leftovers
    from mlflow_projects.tracking.lookup import parents_of_task
    from mlflow_projects.tracking.record import Outcome, RunRecord, SourceTags, TaskIdentity

    def timed(what: str, work: Callable[[], object]) -> None:
        figures.setdefault(what, []).append(Bench.timed(work) * 1000)

    def record(dag_run: str, task: str, parent: Run | None = None) -> RunRecord:
        identity = TaskIdentity(
            "growth", dag_run, f"pipeline.{task}", 1, uuid.uuid4().hex, url=f"{AIRFLOW}/dags/growth/runs/{dag_run}"
        )
        role, above = ("step", parent.run_id) if parent else ("parent", None)
        source = SourceTags("/projects/echo")
        return RunRecord(client, experiment, task, identity, source, role=role, parent_run_id=above)

    def stop(_: Run) -> None:
        """Nothing runs outside."""

    def is_over() -> bool:
        return True

    first, second = f"manual__{uuid.uuid4()}", f"manual__{uuid.uuid4()}"
    start = record(first, "start_run")
    parent = start.open()
    step = record(first, "step_1", parent)
    timed("opening a step", step.open)
    timed("closing a step", lambda: step.close(Outcome("FINISHED")))
    found: list[Run] = []
    timed("finding the parent", lambda: found.extend(parents_of_task(client, start.task.tags())))
    ensure([run.run_id for run in found] == [parent.run_id], f"the parent was not found, but {found}")
    lost = [record(first, f"step_{number}", parent) for number in (2, 3)]
    for one in lost:
        one.open()
    ended = EndedDagRun("growth", first, "failed", "FAILED", "it failed", None, airflow_url=AIRFLOW)
    changed: list[int] = []
    timed("closing a DAG run", lambda: changed.append(settle(client, ended, is_over, stop, lambda *_: None)))
    ensure(changed == [3], f"a parent and two steps were open, {changed} were closed")
    left = record(second, "start_run").open()
    record(second, "step_1", left).open()
    closed: list[object] = []
    timed("the janitor", lambda: closed.extend(close_leftovers(client, lambda *_: "failed", AIRFLOW, stop)))
    ensure(len(closed) == 2, f"two runs were left, the janitor closed {closed}")


if __name__ == "__main__":
    print(json.dumps(in_turns(sys.argv[1], int(sys.argv[2]), sys.argv[3:])))
