"""Row 6: what a project's own environment costs a step once it is built."""

from __future__ import annotations

import shutil

from benchmarks.row import PROJECTS, Bench, Row, medians

OURS, LOCAL = "ours: uv", "ours: local"


def measure(bench: Bench) -> Row:
    """Run a project that needs no package with and without its environment, by us and by ``mlflow run``."""
    # MLflow's virtualenv manager works with pyenv only, even where no Python is to be installed.
    other = "virtualenv" if shutil.which("pyenv") else "uv"
    environments = bench.folder("mlflow-environments")
    environment = bench.environment(MLFLOW_TRACKING_URI=bench.tracking_uri, MLFLOW_ENV_ROOT=str(environments))

    def mlflow_run(manager: str) -> float:
        argv = ["mlflow", "run", str(PROJECTS / "environment"), "--env-manager", manager]
        return bench.command(argv, environment)

    with bench.airflow() as warm:
        warm.run("environments.with_uv")  # builds it
        mlflow_run(other)
        figures = bench.in_turns(
            {
                OURS: lambda: warm.seconds("environments.with_uv"),
                LOCAL: lambda: warm.seconds("environments.with_local"),
                "mlflow run: environment": lambda: mlflow_run(other),
                "mlflow run: local": lambda: mlflow_run("local"),
            },
            rounds=5,
        )
    seconds = medians(figures)
    return Row(
        number=6,
        name="known environment, uv over local",
        unit="s",
        ours=round(seconds[OURS] - seconds[LOCAL], 3),
        limit=0.0,
        goal=0.3,
        peers={f"mlflow run --env-manager {other}": round(
            seconds["mlflow run: environment"] - seconds["mlflow run: local"], 3
        )},
        details={"medians": seconds, "samples": figures},
    )  # fmt: skip
