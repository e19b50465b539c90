"""Recordings of a script made alike: marks stand for what is new in each run of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mlflow_projects.cli.import_script.recording import Recorded, Script
from mlflow_projects.cli.import_script.script_recorder.state import FIRST_EXPERIMENT

# Marks in texts, for what the DAG writes in another way: private characters, which no script holds.
OPEN, CLOSE = "\ue000", "\ue001"
MARK = re.compile(f"{OPEN}(.)([^{CLOSE}]*){CLOSE}")
ROOT = f"{OPEN}/{CLOSE}"
_LEAVES = (
    "uri",
    "entry_point",
    "version",
    "parameters",
    "backend",
    "backend_config",
    "env_manager",
    "run_name",
    "storage_dir",
    "docker_args",
    "tags",
    "experiment",
    "environment",
    "files",
)
NOT_IN_THE_DAG = ("files", "environment", "storage_dir", "docker_args")
Leaves = dict[tuple[Any, ...], Any]


def mark(kind: str, content: object) -> str:
    """Return a mark: ``p`` for an option, ``c`` for a choice, ``r`` for a run, ``e`` for an experiment."""
    return f"{OPEN}{kind}{content}{CLOSE}"


def nodes_of(recorded: Recorded, script: Script) -> list[dict[str, Any]]:
    """Return the script's runs and steps with marks for what differs from one run to the next."""
    with_marks = marker(recorded, script)
    named = {number: name for number, name in recorded.experiments.items() if int(number) > FIRST_EXPERIMENT}
    return [
        {**with_marks(node), "experiment": named.get(node["experiment_id"], "")}
        for node in recorded.events
        if node["kind"] in ("open", "call")
    ]


def marker(recorded: Recorded, script: Script) -> Callable[[Any], Any]:
    """Return what puts marks into a value of a recording."""
    nodes = [event for event in recorded.events if event["kind"] in ("open", "call")]
    names = {node["run_id"]: mark("r", index) for index, node in enumerate(nodes)}
    first = FIRST_EXPERIMENT
    names.update({number: mark("e", int(number) - first) for number in recorded.experiments if int(number) > first})
    names[str(script.root)] = ROOT
    pattern = re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))))

    def with_marks(value: Any) -> Any:
        if isinstance(value, str):
            return pattern.sub(lambda found: names[found.group()], value)
        if isinstance(value, dict):
            return {with_marks(key): with_marks(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [with_marks(inner) for inner in value]
        return value

    return with_marks


def shape_of(nodes: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    return [
        (node["kind"], node["parent"], sorted(node["after"]), node.get("given_run"), len(node.get("stack", ())))
        for node in nodes
    ]


def leaves_of(nodes: Sequence[Mapping[str, Any]]) -> Leaves:
    """Return {(index of the node, key, …): value} of all that a DAG says of the nodes."""
    found: Leaves = {}

    def add(key: tuple[Any, ...], value: Any) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                add((*key, name), inner)
        else:
            found[key] = value

    for index, node in enumerate(nodes):
        for name in _LEAVES:
            if name in node:
                add((index, name), node[name])
    return found


def put(nodes: list[dict[str, Any]], texts: Leaves) -> None:
    for (index, *path, last), text in texts.items():
        inner = nodes[index]
        for name in path:
            inner = inner.setdefault(name, {})
        inner[last] = text


def marks_in(content: Any) -> Iterator[tuple[str, str]]:
    """Yield (kind, content) of the marks in a value."""
    if isinstance(content, str):
        yield from MARK.findall(content)
    elif isinstance(content, dict):
        for value in content.values():
            yield from marks_in(value)
    elif isinstance(content, list):
        for value in content:
            yield from marks_in(value)
