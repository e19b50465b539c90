"""Row 14: making a project's environment for the first time, using it again, and making one that is nearly alike."""

from __future__ import annotations

import json
import os
import shutil
from importlib.metadata import version
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.row import Bench, Row, medians
from mlflow_projects.backends.local.environments import EnvironmentBuilder
from mlflow_projects.backends.local.withheld_variables import worker_variables
from mlflow_projects.project.cache import Cache
from mlflow_projects.project.spec import load_project
from tests.support.conda_channel import MINOR, make_channel

UV, VIRTUALENV, CONDA, VARIANT = "ours: uv", "ours: virtualenv", "ours: conda", "ours: uv, one package more"
THEIRS = "mlflow run --env-manager uv", "mlflow run --env-manager virtualenv"
GOAL_RATIO, GOAL_AGAIN, GOAL_VARIANT = 1.0, 0.05, 10.0


def measure(bench: Bench) -> Row:
    """Make environments of scikit-learn and mlflow, each in a process of its own, with packages downloaded before."""
    packages = bench.size([f"scikit-learn=={version('scikit-learn')}", f"mlflow=={version('mlflow')}"], ["packaging"])
    channel = make_channel(bench.folder("channel"))
    plain = _project(bench, "plain", "python_env", {"dependencies": packages})
    variant = _project(bench, "variant", "python_env", {"dependencies": [*packages, "six"]})
    conda = _project(bench, "conda", "conda_env", {
        "channels": [channel.address, "nodefaults"], "dependencies": [f"python={MINOR}", {"pip": packages}],
    })  # fmt: skip
    numbers = count()

    def ours(project: Path, manager: str, cache: Path) -> float:
        environment = bench.environment(AIRFLOW__MLFLOW_PROJECTS__CACHE_DIR=str(cache))
        argv = ["mlflow-projects", "environments", "build", str(project), "--env-manager", manager]
        return bench.command(argv, environment)

    def first(project: Path, manager: str) -> float:
        return ours(project, manager, bench.folder(f"cache-{next(numbers)}"))

    def one_more() -> float:
        cache = bench.folder(f"cache-{next(numbers)}")
        ours(plain, "uv", cache)
        return ours(variant, "uv", cache)

    def theirs(manager: str) -> float:
        folder = bench.folder(f"theirs-{next(numbers)}")
        environment = bench.environment(MLFLOW_TRACKING_URI=bench.tracking_uri, MLFLOW_ENV_ROOT=str(folder))
        return bench.command(["mlflow", "run", str(plain), "--env-manager", manager], environment)

    ways = {
        UV: lambda: first(plain, "uv"),
        VIRTUALENV: lambda: first(plain, "virtualenv"),
        CONDA: lambda: first(conda, "conda"),
        VARIANT: one_more,
        THEIRS[0]: lambda: theirs("uv"),
    }
    if shutil.which("pyenv"):  # without it, MLflow's virtualenv manager does not work
        ways[THEIRS[1]] = lambda: theirs("virtualenv")
    figures = bench.in_turns(ways, rounds=3)
    seconds, again = medians(figures, 2), _again(bench, plain)
    return Row(
        number=14,
        name="first environment by uv, over MLflow's by uv",
        unit="ratio",
        ours=round(seconds[UV] / seconds[THEIRS[0]], 2),
        limit=0.0,
        goal=GOAL_RATIO,
        peers={},
        conditions={
            f"used again in at most {GOAL_AGAIN} s": again <= GOAL_AGAIN,
            f"with one package more in at most {GOAL_VARIANT:g} s": seconds[VARIANT] <= GOAL_VARIANT,
        },
        details={"seconds": seconds, "used again": again, "samples": figures},
    )


def _project(bench: Bench, name: str, kind: str, environment: dict[str, Any]) -> Path:
    folder = bench.folder(f"project-{name}")
    (folder / "MLproject").write_text(
        f"name: {name}\n{kind}: env.yaml\nentry_points: {{main: {{command: 'true'}}}}\n"
    )
    (folder / "env.yaml").write_text(json.dumps(environment))
    return folder


def _again(bench: Bench, project: Path) -> float:
    """Return the seconds that a step takes to find an environment that is there."""
    cache, variables = Cache(bench.folder("cache-again")), worker_variables(os.environ)
    seconds = []
    for _ in range(bench.size(21, 3)):
        builder = EnvironmentBuilder(cache, variables, lambda _: None)
        with_it = builder.activation(load_project(project), "uv")
        seconds.append(bench.timed(with_it.__enter__))
        with_it.__exit__(None, None, None)
    return round(median(seconds[1:]), 4)
