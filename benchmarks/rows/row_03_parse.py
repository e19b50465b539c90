"""Row 3: what 50 steps cost when Airflow parses the DAG file, against 50 tasks that are nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.row import Bench, Row, medians

STEPS = 50
GOAL_SECONDS = 0.1
OURS, EMPTY, BASH = "ours", "EmptyOperator", "BashOperator"

# One pipeline each, of the same shape.
FILES = {
    OURS: f"""
from airflow.sdk import DAG
from mlflow_projects import MLflowProjectOperator, mlflow_run

with DAG("parse_ours", schedule=None, params={{"num": 3}}):
    with mlflow_run("pipeline", experiment_name="bench"):
        for number in range({STEPS}):
            MLflowProjectOperator(
                task_id=f"step_{{number}}",
                uri="/projects/echo",
                parameters={{"text": f"hello {{number}}", "num": "{{{{ params.num }}}}"}},
            )
""",
    EMPTY: f"""
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, TaskGroup

with DAG("parse_empty", schedule=None, params={{"num": 3}}):
    with TaskGroup("pipeline"):
        start = EmptyOperator(task_id="start")
        end = EmptyOperator(task_id="end").as_teardown(setups=start)
        for number in range({STEPS}):
            start >> EmptyOperator(task_id=f"step_{{number}}") >> end
""",
    BASH: f"""
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, TaskGroup

with DAG("parse_bash", schedule=None, params={{"num": 3}}):
    with TaskGroup("pipeline"):
        start = EmptyOperator(task_id="start")
        end = EmptyOperator(task_id="end").as_teardown(setups=start)
        for number in range({STEPS}):
            command = f"mlflow run /projects/echo -P text='hello {{number}}' -P num={{{{{{{{ params.num }}}}}}}}"
            start >> BashOperator(task_id=f"step_{{number}}", bash_command=command) >> end
""",
}


def measure(bench: Bench) -> Row:
    """Let one process, in which all modules are loaded already, parse all files in turns."""
    folder = bench.folder("parse")
    for way, text in FILES.items():
        (folder / f"{way}.py").write_text(text)
    rounds = bench.size(30, 3)
    environment = bench.environment(AIRFLOW_HOME=str(bench.airflow_home))
    command = [sys.executable, "-m", "benchmarks.rows.row_03_parse", str(folder), str(rounds)]
    measured = json.loads(bench.output(command, environment).splitlines()[-1])
    parse, serialize = medians(measured["parse"], 4), medians(measured["serialize"], 4)
    return Row(
        number=3,
        name=f"DAG parse, {STEPS} steps over {STEPS} EmptyOperators",
        unit="ratio",
        ours=round(parse[OURS] / parse[EMPTY], 2),
        limit=1.0,
        goal=1.3,
        peers={BASH: round(parse[BASH] / parse[EMPTY], 2)},
        conditions={f"at most {GOAL_SECONDS} s in all": parse[OURS] <= GOAL_SECONDS},
        details={"seconds": parse, "seconds to serialize": serialize, "rounds": rounds},
    )


def parse_in_turns(folder: Path, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of parsing and of serializing, by file; the first round fills caches."""
    from airflow.dag_processing.dagbag import DagBag
    from airflow.serialization.serialized_objects import DagSerialization

    parse: dict[str, list[float]] = {way: [] for way in FILES}
    serialize: dict[str, list[float]] = {way: [] for way in FILES}
    for number in range(rounds + 1):
        for way in FILES:
            bag = DagBag(dag_folder=str(folder), collect_dags=False)
            file = str(folder / f"{way}.py")
            found = []
            seconds = Bench.timed(lambda bag=bag, file=file, found=found: found.extend(bag.process_file(file)))
            (dag,) = found
            assert len(dag.tasks) == STEPS + 2, (bag.import_errors, dag.tasks)
            if number:
                parse[way].append(seconds)
                serialize[way].append(Bench.timed(lambda dag=dag: DagSerialization.to_dict(dag)))
    return {"parse": parse, "serialize": serialize}


if __name__ == "__main__":
    print(json.dumps(parse_in_turns(Path(sys.argv[1]), int(sys.argv[2]))))
