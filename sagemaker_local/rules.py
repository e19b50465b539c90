"""What SageMaker refuses of a request: by its own model, which botocore carries, and by its documentation.

The model becomes a JSON Schema. This is on purpose not how a client here checks its requests: the stand-in has to
find what a client overlooks.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Request = Mapping[str, Any]

_SIMPLE: Mapping[str, Mapping[str, Any]] = {
    "string": {"type": "string"},
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer"},
    "long": {"type": "integer"},
    "float": {"type": "number"},
    "double": {"type": "number"},
    "timestamp": {"type": ["number", "string"]},
}
# The ends of a shape's range are other words for each kind of value.
_ENDS = {"structure": "Properties", "map": "Properties", "list": "Items", "string": "Length"}
# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html and the pages of its fields.
# The model takes hyperparameters of 2500 characters; of these a container has seen 256.
_DOCUMENTED: Mapping[str, Mapping[str, int]] = {
    "HyperParameters": {"maxProperties": 100},
    "HyperParameterValue": {"maxLength": 256},
    "TrainingEnvironmentMap": {"maxProperties": 100},
    "TrainingEnvironmentValue": {"maxLength": 512},
    "TrainingInstanceCount": {"minimum": 1},
    "OptionalVolumeSizeInGB": {"minimum": 1},
    "MaxRuntimeInSeconds": {"maximum": 2419200},
}


def refusals(operation: str, request: Request) -> list[str]:
    """Return what is wrong with a request, one phrase a fault; empty if the service takes it.

    :param operation: for example ``CreateTrainingJob``
    """
    found = [
        f"at '{'.'.join(map(str, error.absolute_path)) or 'request'}': {_constraint(error)}"
        for error in _validator(operation).iter_errors(request)
    ]
    if operation == "CreateTrainingJob" and not found:
        found += [f"{field}: {rule}" for field, rule, is_broken in _RULES if is_broken(request)]
    return found


def _constraint(error: Any) -> str:
    """Say what a value fails, without the value: it may be private."""
    if error.validator in ("required", "additionalProperties", "dependentRequired"):
        return str(error.message)
    limit = str(error.validator_value)
    return f"fails {error.validator} {limit if len(limit) < 300 else '(see the documentation)'}"


@functools.lru_cache(maxsize=8)
def _validator(operation: str) -> Any:
    from botocore.loaders import Loader
    from botocore.model import ServiceModel
    from jsonschema import Draft202012Validator

    model = ServiceModel(Loader().load_service_model("sagemaker", "service-2"), "sagemaker")
    shapes: dict[str, Any] = {}
    root = _reference(model.operation_model(operation).input_shape, shapes)
    return Draft202012Validator({**root, "$defs": shapes})


def _reference(shape: Any, shapes: dict[str, Any]) -> dict[str, Any]:
    """Return a reference to a shape's schema, which is added to all; a shape may hold itself."""
    if shape.name not in shapes:
        shapes[shape.name] = {}
        shapes[shape.name] = _schema(shape, shapes)
    return {"$ref": f"#/$defs/{shape.name}"}


def _schema(shape: Any, shapes: dict[str, Any]) -> dict[str, Any]:
    kind, facts = shape.type_name, shape.metadata
    if kind == "structure":
        members = {name: _reference(member, shapes) for name, member in shape.members.items()}
        schema = {"type": "object", "properties": members, "additionalProperties": False}
        schema["required"] = list(shape.required_members)
    elif kind == "map":
        schema = {"type": "object", "additionalProperties": _reference(shape.value, shapes)}
        schema["propertyNames"] = _reference(shape.key, shapes)
    elif kind == "list":
        schema = {"type": "array", "items": _reference(shape.member, shapes)}
    else:
        schema = dict(_SIMPLE.get(kind, {}))
    if "enum" in facts:
        schema["enum"] = list(facts["enum"])
    if "pattern" in facts and _is_pattern(facts["pattern"]):
        schema["pattern"] = rf"\A(?:{facts['pattern']})\Z"
    for end in ("min", "max"):
        if end in facts:
            schema[f"{end}{_ENDS[kind]}" if kind in _ENDS else f"{end}imum"] = facts[end]
    return {**schema, **_DOCUMENTED.get(shape.name, {})}


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:  # \p{L} and its like are Java's
        return False
    return True


def _field(request: Request, *names: str) -> Any:
    found: Any = request
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _has_double(items: Sequence[Mapping[str, Any]] | None, key: str) -> bool:
    return any(count > 1 for count in Counter(item[key] for item in items or ()).values())


def _wait(request: Request) -> Any:
    return _field(request, "StoppingCondition", "MaxWaitTimeInSeconds")


def _waits_too_short(request: Request) -> bool:
    runtime = _field(request, "StoppingCondition", "MaxRuntimeInSeconds") or 86400
    return bool(_field(request, "EnableManagedSpotTraining")) and (_wait(request) or 0) < runtime


def _has_no_instances(request: Request) -> bool:
    resources = _field(request, "ResourceConfig") or {}
    if "InstanceGroups" in resources or "InstancePreferences" in resources:
        return False
    return not ("InstanceType" in resources and "InstanceCount" in resources)


def _has_not_one_algorithm(request: Request) -> bool:
    algorithm = _field(request, "AlgorithmSpecification") or {}
    return len({"TrainingImage", "AlgorithmName"} & set(algorithm)) != 1


# What the pages of the fields say and the model does not: (field, rule, whether a request breaks it).
_RULES: Sequence[tuple[str, str, Callable[[Request], bool]]] = (
    (
        "AlgorithmSpecification",
        "one of TrainingImage and AlgorithmName is required",
        lambda request: "ServerlessJobConfig" not in request and _has_not_one_algorithm(request),
    ),
    (
        "ResourceConfig",
        "InstanceType and InstanceCount are required",
        lambda request: "ServerlessJobConfig" not in request and _has_no_instances(request),
    ),
    (
        "StoppingCondition.MaxWaitTimeInSeconds",
        "must be at least MaxRuntimeInSeconds for managed spot training",
        _waits_too_short,
    ),
    (
        "StoppingCondition.MaxWaitTimeInSeconds",
        "is allowed for managed spot training only",
        lambda request: not _field(request, "EnableManagedSpotTraining") and _wait(request) is not None,
    ),
    (
        "ResourceConfig.KeepAlivePeriodInSeconds",
        "is not allowed for managed spot training",
        lambda request: bool(
            _field(request, "EnableManagedSpotTraining")
            and _field(request, "ResourceConfig", "KeepAlivePeriodInSeconds")
        ),
    ),
    (
        "Tags",
        "keys must not begin with aws:",
        lambda request: any(tag["Key"].lower().startswith("aws:") for tag in request.get("Tags", ())),
    ),
    ("Tags", "keys must be unique", lambda request: _has_double(request.get("Tags"), "Key")),
    (
        "InputDataConfig",
        "channel names must be unique",
        lambda request: _has_double(request.get("InputDataConfig"), "ChannelName"),
    ),
)
