"""Where the options of a script and the results of its steps go: read from runs of it with other values.

A script is run again with a value that stands nowhere else. Where that value turns up, the option goes; where only
other words turn up, they depend on it; where there are other steps, it decides on them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlflow_projects.cli.import_script.marks import NOT_IN_THE_DAG, leaves_of, marker, marks_in, nodes_of, put
from mlflow_projects.cli.import_script.other_values import compared_with
from mlflow_projects.cli.import_script.plan import Option, Plan
from mlflow_projects.cli.import_script.recording import Recorded, Recorder, Script, ScriptError
from mlflow_projects.cli.import_script.tracing import Tracing


def trace(
    recorder: Recorder,
    script: Script,
    given: Mapping[str, Any],
    arguments: Callable[[Mapping[str, Any]], list[str]] | None = None,
    declared: Sequence[Mapping[str, Any]] | None = None,
    *,
    partial: bool = False,
) -> Plan:
    """Run a script as often as it takes to know where its options go.

    :param given: values of options
    :param arguments: makes arguments of all values, where not the script's parser but an MLproject names the options
    :param declared: these options
    :param partial: take what came before the place where the script decides on a result
    :raises ScriptError: it cannot be recorded, or decides on a result
    """
    tracing = Tracing(recorder, script, given, arguments)
    first = tracing.record({}, keeps=True)
    if first.stopped and not (partial and first.stopped.get("decides") and first.calls):
        raise ScriptError(_refusal(script, first))
    options = [_option(one, given) for one in (first.inputs if declared is None else declared)]
    names = {option.name for option in options}
    options += [_variable(name, value) for name, value in first.variables.items() if name not in names]
    tracing.variables = {option.name for option in options if option.is_variable}
    if missing := [option.name for option in options if option.fixed == "missing"]:
        raise ScriptError(f"{script.name} needs a value for {missing[0]!r}: pass -P {missing[0]}=VALUE.")
    tracing.stopped = first.stopped
    tracing.default = {option.name: option.value for option in options}
    tracing.base = nodes_of(first, script)
    if not any(node["kind"] == "call" for node in tracing.base):
        raise ScriptError(
            f"{script.name} runs no project with these options: neither by mlflow.run or mlflow.projects.run, nor "
            "by 'mlflow run'. Options are passed as -P NAME=VALUE, other arguments after --."
        )
    tracing.leaves = leaves_of(tracing.base)
    tracing.find_random()
    tracing.find_caches(first)
    fixed = {"array": "is a list", "other": "is counted, or stands for a value"}
    free = [option for option in options if not option.choices and option.kind not in ("boolean", *fixed)]
    tracing.follow(free)
    for option in options:
        if option.kind in fixed:
            option.fixed = fixed[option.kind]
        elif option.choices or option.kind == "boolean":
            tracing.try_each(option)
    tracing.check([option for option in options if not option.fixed])
    tracing.compare([option for option in free if not option.fixed], compared_with(script, first))
    tracing.find_relative([option for option in free if option.kind == "string"])
    put(tracing.base, tracing.texts)
    used = {
        name if kind == "p" else tracing.choices[int(name)][0]
        for text in tracing.texts.values()
        for kind, name in marks_in(text)
        if kind in "pc"
    }
    for option in options:
        option.is_used = option.name in used
    if any(key[1] in NOT_IN_THE_DAG for key in tracing.leaves):
        tracing.find_in_files([one for one in free if not (one.is_used or one.is_in_file or one.fixed)])
    with_marks = marker(first, script)
    own = [with_marks(event) for event in first.events if event["kind"] == "own"]
    argued = arguments(given) if arguments else first.arguments
    return Plan(tracing.base, own, options, tracing.variable, tracing.choices, argued, first.stopped)


def _refusal(script: Script, recorded: Recorded) -> str:
    assert recorded.stopped is not None
    said = script.said(recorded.stopped)
    if not recorded.stopped.get("decides"):
        return f"{said}. Nothing was written."
    return (
        f"{said}, which is not known before it has run. Three ways on: decide in a @task.branch of the DAG, make "
        "what follows a second DAG, or keep the script as one step. --partial writes what comes before. Nothing was "
        "written."
    )


def _option(declared: Mapping[str, Any], given: Mapping[str, Any]) -> Option:
    name, kind = declared["name"], declared["type"]
    value = given.get(name, declared["default"])
    option = Option(name, _typed(value, kind), kind, declared["choices"], " ".join(declared["help"].split()))
    if name not in given and declared["required"]:
        option.fixed = "missing"
    return option


def _variable(name: str, value: Any) -> Option:
    kind = {bool: "boolean", int: "integer", float: "number"}.get(type(value), "string")
    return Option(name, value, kind, help="a variable of the script's environment", is_variable=True)


def _typed(value: Any, kind: str) -> Any:
    """Return a value that was typed as text as the option's type has it."""
    try:
        if isinstance(value, str) and kind in ("integer", "number"):
            return int(value) if kind == "integer" else float(value)
    except ValueError:
        return value
    if isinstance(value, str) and kind == "boolean":
        return value.lower() in ("true", "1", "yes", "on")
    return value
