"""Run one DAG with ``airflow dags test`` and show its run tree in MLflow.

Usage: DAG=echo_zip CONF='{"text": "hello", "num": 3}' python tools/demo.py
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from home import BIN, HOME, ROOT, environment, prepare

# "2026-01-01T02:00:00Z [info     ] message   [logger] key=value …"
LINE = re.compile(r"^\S+ \[(?P<level>\w+)\s*\] (?P<message>.*?)\s+\[(?P<logger>[\w.]+)\](?: \w+=|$)")
FINISHED = re.compile(r"DagRun Finished: .*\brun_id=(?P<run>[^\s,]+)")
# What a DAG needs to run in minutes, without a network and without a container engine.
DEMO_CONF = {
    "cifar10": {"preprocess_data": "sample", "train_model_type": "simple", "train_num_workers": 0,
                "building_mode": "process"},
}  # fmt: skip
TASK_STARTS = re.compile(r"\[DAG TEST\] starting task_id=(?P<task>\S+)")


def main() -> int:
    return run(environment())


def run(env: dict[str, str], more_conf: dict[str, str] | None = None) -> int:
    """Run the DAG that DAG and CONF name in an environment; return the exit status.

    :param more_conf: params that CONF may overrule, as it may those of DEMO_CONF
    """
    dag = os.environ.get("DAG") or "echo_zip"
    try:
        given = json.loads(os.environ.get("CONF") or "{}")
        if not isinstance(given, dict):
            raise ValueError("not an object")
    except ValueError as error:
        return fail(f'CONF must be a JSON object such as \'{{"text": "hello", "num": 3}}\' ({error}).')
    ours = {**DEMO_CONF.get(dag, {}), **(more_conf or {})}
    conf = json.dumps({**ours, **given})
    prepare(env)
    log = HOME / "logs" / f"demo-{dag}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"Running the DAG {dag} with airflow dags test ...", flush=True)
    if small := {name: value for name, value in DEMO_CONF.get(dag, {}).items() if name not in given}:
        print(f"For a quick demo, not the DAG's defaults (CONF overrules): {json.dumps(small)}", flush=True)
    with log.open("w", encoding="utf-8") as file:
        airflow = subprocess.Popen(
            [BIN / "airflow", "dags", "test", dag, "--conf", conf],
            env=env,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert airflow.stdout is not None
        run_id = None
        try:
            for line in airflow.stdout:
                file.write(line)
                show(line.rstrip("\n"))
                if finished := FINISHED.search(line):
                    run_id = finished["run"]
        except KeyboardInterrupt:
            airflow.wait()  # Airflow got Ctrl-C too; the task closes its run first
            return fail("Stopped.")
        failed = airflow.wait() != 0
    print(flush=True)
    if run_id:
        tree = [BIN / "mlflow-projects", "tree", dag, run_id]
        failed = subprocess.run(tree, env=env, cwd=ROOT, check=False).returncode != 0 or failed
    print(f"\nThe whole log: {os.path.relpath(log, ROOT)}")
    if failed and not run_id and dag not in (known := dag_ids()):
        return fail(f"There is no DAG {dag}; there are {', '.join(known)}.")
    if failed:
        return fail(f"The DAG run of {dag} failed; the reason is in the lines above and in the log.")
    print("Look further: make up (Airflow and MLflow in the browser)")
    return 0


def show(line: str) -> None:
    """Print what concerns a person: which task starts, what it says, and errors."""
    if started := TASK_STARTS.search(line):
        print(f"[{started['task']}]", flush=True)
    elif found := LINE.match(line):
        ours = found["logger"].startswith("airflow.task")
        if ours or found["level"] in ("error", "critical"):
            print(f"    {found['message']}", flush=True)
    elif re.match(r"(airflow|mlflow_projects)\.\S*(Exception|Error)\b.*: ", line) or "could not be found" in line:
        print(f"    {line}", flush=True)


def dag_ids() -> list[str]:
    """Return the ids that the DAG files of this checkout name."""
    texts = (file.read_text(encoding="utf-8") for file in sorted((Path(ROOT) / "dags").glob("*.py")))
    return [name for text in texts for name in re.findall(r"\bDAG\(\s*[\"'](\w+)", text)]


def fail(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
