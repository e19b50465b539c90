"""What we tell Airflow's providers manager: in its form, and all that is public."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.resources import files

import jsonschema
import pytest
from airflow.sdk import BaseHook, BaseOperator, BaseSensorOperator
from airflow.triggers.base import BaseTrigger

import mlflow_projects
from mlflow_projects.provider_info import PROVIDER_INFO

KINDS = {"sensors": BaseSensorOperator, "operators": BaseOperator, "hooks": BaseHook, "triggers": BaseTrigger}


def modules(kind: str) -> list[str]:
    return [name for entry in PROVIDER_INFO[kind] for name in entry["python-modules"]]


def test_it_has_the_form_that_airflow_checks() -> None:
    schema = json.loads(files("airflow").joinpath("provider_info.schema.json").read_text())
    jsonschema.validate(PROVIDER_INFO, schema)
    known = {entry["integration-name"] for entry in PROVIDER_INFO["integrations"]}
    assert {entry["integration-name"] for kind in KINDS for entry in PROVIDER_INFO[kind]} == known


@pytest.mark.parametrize("kind", KINDS)
def test_each_module_has_such_a_class(kind: str) -> None:
    for name in modules(kind):
        classes = [value for value in vars(import_module(name)).values() if isinstance(value, type)]
        own = [found for found in classes if found.__module__ == name]
        assert any(issubclass(found, KINDS[kind]) for found in own), name


def test_each_public_class_is_told() -> None:
    public = [getattr(mlflow_projects, name) for name in mlflow_projects.__all__]
    for found in filter(lambda value: isinstance(value, type), public):
        kind = next((kind for kind, base in KINDS.items() if issubclass(found, base)), None)
        assert kind is None or found.__module__ in modules(kind), found
