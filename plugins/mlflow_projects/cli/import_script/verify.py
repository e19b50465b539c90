"""The script and its DAG, both run once on databases of their own, and what they did side by side.

Both start their steps with ``bash -c COMMAND``; a bash of ours, first on the PATH, notes the command, and runs it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_projects.cli.import_script.dag_source import DagSource
from mlflow_projects.cli.import_script.plan import Plan
from mlflow_projects.cli.import_script.recording import Script, ScriptError, copy_folder

_BASH = """\
#!{python} -SE
import json, os, sys
if len(sys.argv) == 3 and sys.argv[1] == "-c" and "MLFLOW_RUN_ID" in os.environ:
    with open({file!r}, "a") as file:
        file.write(json.dumps({{"run_id": os.environ["MLFLOW_RUN_ID"], "command": sys.argv[2]}}) + "\\n")
os.execv({bash!r}, ["bash", *sys.argv[1:]])
"""
_BY_HAND = re.compile(r"[^\s'\"=,]*\bRUN/artifacts")
_ACTIVATION = re.compile(r"^(?:source|\.|conda) .*? && ", re.DOTALL)


@dataclass(frozen=True)
class Row:
    """What a step is in both: its name, and whether command and records agree; "" where they do.

    :param problems: what differs, with both sides
    """

    name: str
    command: str
    problems: Sequence[str]


def verify(script: Script, python: str, plan: Plan, dag_id: str, folder: Path) -> list[Row]:
    """Run both; return a row for each step and each parent run.

    :param python: that runs the script
    :param folder: an empty one, for databases, artifacts and logs
    :raises ScriptError: one of them did not end well, or the script names a tracking server
    """
    _check_server(script, plan)
    files = {Path(path).name for node in plan.nodes for path in node.get("files") or ()}
    theirs = _Side("script", folder / "script", script.root, files)
    ours = _Side("DAG", folder / "dag", script.root, files)
    copy = theirs.home / "copy"
    copy_folder(script.root, copy)
    theirs.other_root = copy
    theirs.run(
        [python, str(copy / script.file.relative_to(script.root)), *script.args, *plan.arguments],
        copy / script.folder.relative_to(script.root),
        {},
    )
    dag = DagSource(plan, script, dag_id, ours.home / "dags" / f"{dag_id}.py")
    dag.write()
    ours.run_dag(dag_id, dag.file.parent)
    # Another value each time: only where it goes can be compared.
    drawn = {name.partition(".")[2] for _, name in plan.variable if name.startswith("parameters.")}
    return _compare(theirs.runs(), ours.runs(), drawn)


def _check_server(script: Script, plan: Plan) -> None:
    """Refuse a script that names a tracking server: run for real, it would write there."""
    for event in plan.own:
        said = str(event.get("what"))
        # The import's own database is what a script sees as MLFLOW_TRACKING_URI.
        if event.get("does") == "sets" and "the tracking server" in said and "/mlflow-projects-import-" not in said:
            sentence = (
                f"sets {said}, and --verify would write there; take the address from the variable "
                "MLFLOW_TRACKING_URI, or leave --verify out"
            )
            raise ScriptError(f"{script.said({**event, 'sentence': sentence})}. Nothing was written.")


class _Side:
    """One of the two, with a tracking database of its own.

    :param files: names of those that the script makes for a step; the DAG has them elsewhere
    """

    def __init__(self, name: str, home: Path, root: Path, files: Collection[str]) -> None:
        self.name, self.home, self.root, self.other_root, self.files = name, home, root, root, files
        home.mkdir(parents=True)
        self.commands = home / "commands"
        bash = home / "bin" / "bash"
        bash.parent.mkdir()
        bash.write_text(_BASH.format(python=sys.executable, file=str(self.commands), bash=shutil.which("bash")))
        bash.chmod(bash.stat().st_mode | stat.S_IXUSR)
        self.uri = f"sqlite:///{home}/mlflow.db"

    def run(self, command: Sequence[str], folder: Path, more: Mapping[str, str]) -> None:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "AIRFLOW_"))
        }
        environment.update(
            more,
            MLFLOW_TRACKING_URI=self.uri,
            MLFLOW_DISABLE_TELEMETRY="true",
            PATH=f"{self.home / 'bin'}{os.pathsep}{Path(command[0]).parent}{os.pathsep}{os.environ['PATH']}",
        )
        log = self.home / "log"
        with log.open("a") as file:
            status = subprocess.call(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
        if status:
            lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            raise ScriptError(
                f"The {self.name} does not end well (exit status {status}): {' | '.join(lines[-3:])[-600:]}"
            )

    def run_dag(self, dag_id: str, dags: Path) -> None:
        """Run a DAG as `airflow dags test` does, with an Airflow of its own."""
        program = shutil.which("airflow", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        if program is None:
            raise ScriptError(
                "The program airflow is not on the PATH, so the DAG cannot be run; nothing was compared."
            )
        plugins = os.environ.get("AIRFLOW__CORE__PLUGINS_FOLDER", str(self.home / "plugins"))
        more = {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home}/airflow.db",
            "AIRFLOW__CORE__PLUGINS_FOLDER": plugins,
        }
        self.run([program, "db", "migrate"], self.home, more)
        self.run([program, "dags", "test", dag_id], self.home, more)

    def runs(self) -> list[dict[str, Any]]:
        """Return name, parent's name, parameters, metrics, artifacts and command of all runs, the oldest first."""
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=self.uri)
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        runs = client.search_runs(experiments, order_by=["attributes.start_time ASC"], max_results=1000)
        commands: dict[str, str] = {}
        if self.commands.exists():
            for line in self.commands.read_text().splitlines():
                said = json.loads(line)
                commands[said["run_id"]] = _ACTIVATION.sub("", said["command"])
        places = [(str(self.other_root), "ROOT"), (str(self.root), "ROOT")]
        for run in runs:
            places.append((run.info.artifact_uri, "ARTIFACTS"))
            places.append((run.info.artifact_uri.removeprefix("file://"), "ARTIFACTS"))
            places.append((run.info.run_id, "RUN"))
        numbers = re.compile(
            rf"(?<!\w)(?:{'|'.join(experiment for experiment in experiments if len(experiment) > 3) or 'none'})(?!\w)"
        )

        made = re.compile(rf"[^\s'\"=,]*/({'|'.join(map(re.escape, self.files)) or '(?!)'})(?![\w.])")

        def alike(text: str) -> str:
            text = made.sub(r"FILE/\1", text)
            for place, name in sorted(places, key=lambda pair: -len(pair[0])):
                text = text.replace(place, name)
            # Scripts build such a path by hand too, from where they believe the artifacts to be.
            return _BY_HAND.sub("ARTIFACTS", numbers.sub("EXPERIMENT", text))

        return [
            {
                "id": run.info.run_id,
                "name": run.info.run_name,
                "parent": run.data.tags.get("mlflow.parentRunId"),
                "params": {key: alike(value) for key, value in run.data.params.items()},
                "metrics": sorted(run.data.metrics),
                "artifacts": sorted(_files(client, run.info.run_id)),
                "command": alike(commands.get(run.info.run_id, "")),
            }
            for run in runs
        ]


def _files(client: Any, run_id: str, path: str = "") -> list[str]:
    found: list[str] = []
    for file in client.list_artifacts(run_id, path):
        found += _files(client, run_id, file.path) if file.is_dir else [file.path]
    return found


def _compare(
    theirs: Sequence[Mapping[str, Any]], ours: Sequence[Mapping[str, Any]], drawn: Collection[str]
) -> list[Row]:
    """Pair the runs that have a command: those with the same one, the others in their order.

    :param drawn: parameters whose values are drawn at random
    """
    left = [run for run in ours if run["command"]]
    steps = [run for run in theirs if run["command"]]
    rows = []
    parents = {run["id"]: run for run in theirs}, {run["id"]: run for run in ours}
    pairs: dict[str, Mapping[str, Any]] = {}
    for step in steps:
        if same := [run for run in left if run["command"] == step["command"]]:
            pairs[step["id"]] = same[0]
            left.remove(same[0])
    for step in steps:
        run = pairs.get(step["id"])
        if run is None and left:
            step, alike = _without(step, drawn), [_without(run, drawn) for run in left]
            at = next((at for at, one in enumerate(alike) if one["command"] == step["command"]), 0)
            run = alike[at]
            del left[at]
        if run is None:
            rows.append(Row(step["name"], step["command"], ["the DAG has no such step"]))
            continue
        problems = [
            f"{what}: {step[what]!r} and {run[what]!r}"
            for what in ("command", "params", "metrics", "artifacts")
            if not _is_equal(what, step[what], run[what])
        ]
        has = [bool(one["parent"] in side) for one, side in zip((step, run), parents, strict=True)]
        if has[0] and not has[1]:
            problems.append("the DAG's step is below no parent run")
        rows.append(Row(run["name"], step["command"], problems))
    rows += [Row(run["name"], run["command"], ["the script has no such step"]) for run in left]
    return rows


def _without(run: Mapping[str, Any], drawn: Collection[str]) -> Mapping[str, Any]:
    """Return what a run is but for values that are drawn at random."""
    params, command = dict(run["params"]), run["command"]
    for name in {*drawn} & {*params}:
        command = command.replace(params[name], f"RANDOM-{name}")
        params[name] = f"RANDOM-{name}"
    return {**run, "params": params, "command": command}


def _is_equal(what: str, theirs: Any, ours: Any) -> bool:
    if what != "params":
        return bool(theirs == ours)
    # MLflow records a parameter as it is quoted for the shell, here it is as it was given.
    import shlex

    return {key: shlex.quote(value) for key, value in ours.items()} == {
        key: value if value == shlex.quote(value) or value[:1] == "'" else shlex.quote(value)
        for key, value in theirs.items()
    }
