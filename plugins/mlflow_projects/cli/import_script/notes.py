"""What a person should know of an import: what the DAG does not do, or not as the script does it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow_projects.cli.import_script.marks import MARK, ROOT
from mlflow_projects.cli.import_script.plan import Plan
from mlflow_projects.cli.import_script.recording import Script
from mlflow_projects.cli.import_script.tracing import REFUSED

_SHOWN = 8
_TRACKING = "MLFLOW_TRACKING_URI"
# What reads a script's arguments, and is not followed.
_OTHER_PARSERS = re.compile(r"\b(?:import|from)\s+(optparse|docopt|getopt|absl|tyro|plac)\b|\b(sys\.argv)\b")


def notes(plan: Plan, script: Script, calls: Sequence[Mapping[str, Any]], files: Sequence[str]) -> list[str]:
    """Return a sentence for each thing.

    :param calls: those of the DAG's steps
    :param files: those that are written beside the DAG's
    """
    found = []
    if plan.stopped:
        found.append(f"It holds only the script's first part: {script.said(plan.stopped)}.")
    found += [*_of_options(plan, script)]
    for name in dict.fromkeys(name for _, name in plan.variable):
        here = "it is left to MLflow" if name == "run_name" else "it stays as it was"
        found.append(f"{name} is new in each run of the script (a clock, random numbers); here {here}.")
    environment = sorted({name for call in calls for name in call["environment"]} - {_TRACKING})
    if environment:
        found.append(f"The script sets {', '.join(environment)} for its steps; set them on the workers.")
    if any(_TRACKING in call["environment"] for call in calls):
        found.append(
            f"The script names a tracking server in {_TRACKING}; the steps use that of Airflow's connection."
        )
    if any(call["storage_dir"] for call in calls):
        found.append("storage_dir is left out: artifacts of path parameters are downloaded into the cache.")
    for name in ("docker_args", "build_image"):
        if any(call[name] for call in calls):
            found.append(f"{name} is left out: the operator has no such argument.")
    found += [f"{name} is what the script writes for a step, as it was at the import." for name in files]
    if in_files := [option.name for option in plan.options if option.is_in_file and not option.fixed]:
        folders = {Path(name).parent.name for name in files}
        left_out = [name for name in ("storage_dir", "docker_args") if any(call[name] for call in calls)]
        in_environment = any(call["environment"] for call in calls)
        places = [*(["the environment"] if in_environment else []), *folders, *left_out]
        found.append(f"A change of {_some(in_files)} has no effect in {' and '.join(places)}.")
    passed_on = {path for call in calls for path in call["files"]}
    experiments = {node["experiment_id"] for node in plan.nodes}  # which the DAG makes, too
    own = dict.fromkeys(
        _own(event, script)
        for event in plan.own
        if f"{ROOT}/{event.get('what')}" not in passed_on
        and not event.get("is_of_run")
        and event.get("makes") not in experiments
    )
    return [*found, *own]


def _of_options(plan: Plan, script: Script) -> list[str]:
    found = []
    for option in plan.options:
        if option.fixed and not (option.is_variable and option.fixed == REFUSED):
            found.append(f"The option {option.name} {option.fixed}; here it is {_shortened(repr(option.value))}.")
    if unused := [
        option.name
        for option in plan.options
        if not (option.is_used or option.fixed or option.is_in_file or option.is_variable)
    ]:
        found.append(f"No step gets the option {_some(unused)}.")
    parser = _OTHER_PARSERS.search(script.file.read_text(encoding="utf-8", errors="replace"))
    if parser and not any(not option.is_variable for option in plan.options):
        found.append(
            f"The script reads its arguments with {parser[1] or parser[2]}, which an import does not follow; here "
            f"they are {_shortened(repr(' '.join(script.args)))}."
        )
    return found


def _own(event: Mapping[str, Any], script: Script) -> str:
    place = event["where"]
    where = f"{os.path.relpath(script.root / place[0], script.folder)}:{place[1]}" if place else script.name
    what = MARK.sub(lambda found: "." if found[1] == "/" else "…", event["what"])
    return f"{where} {event['does']} {what}, which no step here does."


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"
