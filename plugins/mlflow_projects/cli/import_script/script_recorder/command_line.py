"""A project that a script runs by the command ``mlflow run``."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from .state import recording

ELSEWHERE = re.compile(r"[A-Za-z0-9+.-]+:|[\w.-]+@[\w.-]+:")
_TEXT_OPTIONS = {
    "-e": "entry_point", "--entry-point": "entry_point", "-v": "version", "--version": "version",
    "--experiment-name": "experiment_name", "--experiment-id": "experiment_id", "-b": "backend",
    "--backend": "backend", "-c": "backend_config", "--backend-config": "backend_config",
    "--env-manager": "env_manager", "--storage-dir": "storage_dir", "--run-id": "run_id", "--run-name": "run_name",
}  # fmt: skip


def from_command_line(words: list[str], folder: Any, environment: Any) -> None:
    """Record a project that the script runs by ``mlflow run``."""
    import mlflow

    arguments: dict[str, Any] = {"parameters": {}}
    rest = iter(words)
    for word in rest:
        option, has_value, value = word.partition("=")
        if word in ("-P", "--param-list"):
            name, _, text = next(rest, "").partition("=")
            arguments["parameters"][name] = text
        elif word.startswith("-P"):
            name, _, text = word[2:].partition("=")
            arguments["parameters"][name] = text
        elif word == "--no-conda":
            arguments["env_manager"] = "local"
        elif option in _TEXT_OPTIONS:
            arguments[_TEXT_OPTIONS[option]] = value if has_value else next(rest, "")
        elif word.startswith("-"):
            recording().stop(f"runs 'mlflow run' with {word!r}, which an import does not know")
        else:
            arguments["uri"] = word
    config = arguments.get("backend_config")
    if config and not config.endswith(".json"):
        arguments["backend_config"] = json.loads(config)
    uri = arguments.get("uri", "")
    if folder and not ELSEWHERE.match(uri):
        arguments["uri"] = os.path.join(os.fspath(folder), uri)
    if environment and "MLFLOW_EXPERIMENT_NAME" in environment:
        arguments.setdefault("experiment_name", environment["MLFLOW_EXPERIMENT_NAME"])
    before = dict(os.environ)
    os.environ.update({name: value for name, value in (environment or {}).items() if not name.startswith("MLFLOW_")})
    try:
        mlflow.run(**arguments)
    finally:
        for name in {*os.environ} - {*before}:
            del os.environ[name]
        os.environ.update(before)
