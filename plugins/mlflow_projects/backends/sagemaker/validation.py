"""Check a request against SageMaker's own model before it is sent.

botocore checks names and types, but neither lengths, patterns nor enumerations: such a request travels to
AWS and comes back as a ValidationException, after the project was packed and uploaded. The limits are in the
model that botocore carries, so they can be checked here, at no cost and with a sentence that names the field.

In doubt a request passes: AWS has the last word. A pattern that Python cannot compile is left to AWS too.
"""

from __future__ import annotations

import datetime
import difflib
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

# Limits that the service has and the model has not, by the model's shape names.
# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html
_DOCUMENTED: Mapping[str, Mapping[str, int]] = {
    "HyperParameters": {"max": 100},
    "HyperParameterValue": {"max": 256},  # the model says 2500; what images get to see is 256
    "TrainingEnvironmentMap": {"max": 100},
    "TrainingEnvironmentValue": {"max": 512},
    "TrainingInstanceCount": {"min": 1},
    "OptionalVolumeSizeInGB": {"min": 1},
    "MaxRuntimeInSeconds": {"max": 28 * 24 * 3600},
}
# Their values may be private: no message shows them.
_PRIVATE_MAPS = frozenset({"HyperParameters", "Environment"})
_SHORT = 60

_TYPES: Mapping[str, tuple[type, ...]] = {
    "structure": (Mapping,),
    "map": (Mapping,),
    "list": (list, tuple),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "timestamp": (datetime.datetime, int, float, str),
}


def problems(operation: str, request: Mapping[str, Any]) -> list[str]:
    """Return what SageMaker would refuse, one line a problem; empty when nothing is known against it.

    :param operation: for example ``CreateTrainingJob``
    """
    found = list(_check(_service_model().operation_model(operation).input_shape, request, "", False))
    if operation == "CreateTrainingJob" and not found:  # these read the request and need its types right
        found += _training_job_rules(request)
    return found


@functools.lru_cache(maxsize=1)
def _service_model() -> Any:
    # The loader alone costs a third of a whole botocore session.
    from botocore.loaders import Loader
    from botocore.model import ServiceModel

    return ServiceModel(Loader().load_service_model("sagemaker", "service-2"), "sagemaker")


def _check(shape: Any, value: Any, path: str, private: bool) -> Iterator[str]:
    kinds = _TYPES.get(shape.type_name)
    if kinds is None:
        return
    # To Python True is an int, to SageMaker it is not.
    wrong_bool = isinstance(value, bool) and shape.type_name != "boolean"
    if wrong_bool or not isinstance(value, kinds):
        shown = "" if private else f" ({_shorten(value)})"
        yield f"{path or 'request'}: must be {_article(shape.type_name)}, not {type(value).__name__}{shown}"
        return
    if check := _CHECKS.get(shape.type_name):
        yield from check(shape, value, path, private)


def _check_structure(shape: Any, value: Mapping[str, Any], path: str, private: bool) -> Iterator[str]:
    prefix = f"{path}." if path else ""
    for name in shape.required_members:
        if name not in value:
            yield f"{prefix}{name}: is missing"
    for name, member in value.items():
        if name in shape.members:
            yield from _check(shape.members[name], member, f"{prefix}{name}", private)
        else:
            near = difflib.get_close_matches(name, shape.members, 1)
            yield f"{prefix}{name}: no such field" + (f"; {near[0]} was meant?" if near else "")


def _check_map(shape: Any, value: Mapping[str, Any], path: str, private: bool) -> Iterator[str]:
    private = private or path.rpartition(".")[2] in _PRIVATE_MAPS
    yield from _check_size(shape, len(value), path, "entries")
    for key, entry in value.items():
        entry_path = f"{path}.{_shorten(key, quoted=False)}"
        yield from _check(shape.key, key, f"{entry_path} (the key)", False)
        yield from _check(shape.value, entry, entry_path, private)


def _check_list(shape: Any, value: list[Any] | tuple[Any, ...], path: str, private: bool) -> Iterator[str]:
    yield from _check_size(shape, len(value), path, "entries")
    for number, item in enumerate(value):
        yield from _check(shape.member, item, f"{path}[{number}]", private)


def _check_string(shape: Any, value: str, path: str, private: bool) -> Iterator[str]:
    if shape.enum and value not in shape.enum:
        shown = "the value" if private else _shorten(value)
        if len(shape.enum) <= 12:
            yield f"{path}: {shown} is none of {', '.join(shape.enum)}"
        else:
            near = difflib.get_close_matches(value, shape.enum, 3)
            hint = f", such as {', '.join(near)}" if near else ""
            yield f"{path}: {shown} is none of the {len(shape.enum)} values that this botocore knows{hint}"
        return
    too_long = list(_check_size(shape, len(value), path, "characters", "" if private else _shorten(value)))
    yield from too_long
    pattern = shape.metadata.get("pattern")
    if pattern and not too_long and not _matches(pattern, value):
        shown = f"the value ({len(value)} characters)" if private else _shorten(value)
        if pattern in (".*", ".+"):
            yield f"{path}: {shown} holds a line break, which is not taken"
        else:
            yield f"{path}: {shown} does not match {pattern}"


def _check_number(shape: Any, value: float, path: str, private: bool) -> Iterator[str]:
    low, high = _limits(shape)
    shown = "the value" if private else f"{value}"
    if low is not None and value < low:
        yield f"{path}: {shown} is less than {low}"
    if high is not None and value > high:
        yield f"{path}: {shown} is more than {high}"


def _check_size(shape: Any, size: int, path: str, unit: str, shown: str = "") -> Iterator[str]:
    low, high = _limits(shape)
    shown = f" ({shown})" if shown else ""
    if low is not None and size < low:
        yield f"{path}: {size} {unit}, at least {low} are needed{shown}"
    if high is not None and size > high:
        yield f"{path}: {size} {unit}, at most {high} are taken{shown}"


_CHECKS: Mapping[str, Callable[[Any, Any, str, bool], Iterator[str]]] = {
    "structure": _check_structure,
    "map": _check_map,
    "list": _check_list,
    "string": _check_string,
    "integer": _check_number,
    "long": _check_number,
    "float": _check_number,
    "double": _check_number,
}


def _limits(shape: Any) -> tuple[int | None, int | None]:
    documented = _DOCUMENTED.get(shape.name, {})
    low, high = (documented.get(end, shape.metadata.get(end)) for end in ("min", "max"))
    return low, high


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern)
    except re.error:  # \p{Alnum} and its like are Java's
        return None


def _matches(pattern: str, value: str) -> bool:
    compiled = _compiled(pattern)
    return compiled is None or compiled.fullmatch(value) is not None


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _shorten(value: object, quoted: bool = True) -> str:
    text = value if isinstance(value, str) else repr(value)
    if len(text) > _SHORT:
        text = f"{text[: _SHORT - 1]}…"
    return repr(text) if quoted and isinstance(value, str) else text


def _training_job_rules(request: Mapping[str, Any]) -> Iterator[str]:
    """Yield breaches of documented rules that bind more than one field."""
    serverless = "ServerlessJobConfig" in request  # such a job has neither image nor instances
    algorithm, resources = request.get("AlgorithmSpecification"), request.get("ResourceConfig")
    if not serverless:
        if algorithm is None:
            yield "AlgorithmSpecification: is missing"
        elif ("TrainingImage" in algorithm) == ("AlgorithmName" in algorithm):
            yield "AlgorithmSpecification: needs either TrainingImage or AlgorithmName"
        if resources is None:
            yield "ResourceConfig: is missing"
        elif not {"InstanceGroups", "InstancePreferences"} & set(resources):
            for name in ("InstanceType", "InstanceCount"):
                if name not in resources:
                    yield f"ResourceConfig.{name}: is missing"
    yield from _spot_rules(request)
    for number, tag in enumerate(request.get("Tags", ())):
        if tag["Key"].lower().startswith("aws:"):
            yield f"Tags[{number}].Key: {_shorten(tag['Key'])} begins with 'aws:', which AWS keeps for itself"
    yield from _doubles("Tags", "Key", request)
    yield from _doubles("InputDataConfig", "ChannelName", request)


def _spot_rules(request: Mapping[str, Any]) -> Iterator[str]:
    stopping = request.get("StoppingCondition", {})
    wait, runtime = stopping.get("MaxWaitTimeInSeconds"), stopping.get("MaxRuntimeInSeconds", 24 * 3600)
    if not request.get("EnableManagedSpotTraining"):
        if wait is not None:
            yield "StoppingCondition.MaxWaitTimeInSeconds: is for spot only; EnableManagedSpotTraining is not set"
        return
    if wait is None:
        yield "StoppingCondition.MaxWaitTimeInSeconds: is missing; EnableManagedSpotTraining needs it"
    elif wait < runtime:
        yield f"StoppingCondition.MaxWaitTimeInSeconds: {wait} is less than MaxRuntimeInSeconds, {runtime}"
    if request.get("ResourceConfig", {}).get("KeepAlivePeriodInSeconds"):
        yield "ResourceConfig.KeepAlivePeriodInSeconds: a warm pool cannot be had with EnableManagedSpotTraining"


def _doubles(field: str, key: str, request: Mapping[str, Any]) -> Iterator[str]:
    seen: set[str] = set()
    for number, item in enumerate(request.get(field, ())):
        if item[key] in seen:
            yield f"{field}[{number}].{key}: {_shorten(item[key])} is there twice"
        seen.add(item[key])
