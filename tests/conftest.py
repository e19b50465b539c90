"""One Airflow home and one MLflow server for all tests of a session; both real, both in a temporary folder."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("tests.contract", "tests.support", "mlflow_projects.testing")
from tests.support.shared import (  # noqa: E402
    end_shared_servers,
    migrated_airflow_database,
    shared_mlflow_server,
)

ROOT = Path(__file__).resolve().parents[1]
_INHERITED = os.environ.get("TESTS_HOME")


def _folder_of_this_run() -> Path:
    """Return the folder that all processes of a run share; the one that makes it ends what runs in it."""
    if inherited := os.environ.get("TESTS_RUN"):
        return Path(inherited)
    folder = Path(tempfile.mkdtemp(prefix="mlflow-projects-tests-"))
    os.environ.update(TESTS_RUN=str(folder), TESTS_RUN_OWNER=str(os.getpid()))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(end_shared_servers, folder)
    return folder


RUN = _folder_of_this_run()
# A process of pytest-xdist has a home of its own; one that a test starts may import this module too and works in its
# parent's.
HOME = Path(_INHERITED or RUN / os.environ.get("PYTEST_XDIST_WORKER", "main"))


def _isolate() -> None:
    """Cut the tests off from the user's own Airflow and MLflow, before anything imports airflow."""
    for name in list(os.environ):
        if name.startswith(("AIRFLOW_", "MLFLOW_")):
            del os.environ[name]
    dags = HOME / "dags"
    dags.mkdir(parents=True)
    (dags / "repository").symlink_to(ROOT / "dags")
    (dags / "tests").symlink_to(ROOT / "tests" / "integration" / "dags")
    os.environ.update(
        AIRFLOW_HOME=str(HOME),
        AIRFLOW__CORE__DAGS_FOLDER=str(dags),
        AIRFLOW__CORE__PLUGINS_FOLDER=str(ROOT / "plugins"),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__CORE__UNIT_TEST_MODE="False",
        # The processes of a run share a tracking server: a janitor must take no other Airflow's runs for its own.
        AIRFLOW__API__BASE_URL=f"http://airflow-{HOME.name}.test:8080",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="2",
        # Its threads read a variable that others of MLflow's remove: a KeyError that fails a command now and then.
        MLFLOW_DISABLE_TELEMETRY="true",
    )


if not _INHERITED:
    _isolate()
_capture: Any = None
# The files that take longest (minutes of one process), about the longest first: if one of them began last, the other
# processes of pytest-xdist would wait for it. Those of the faults stand apart, as each starts a whole Airflow.
LONGEST = (
    "system/test_cifar10.py",
    "system/test_ui.py",
    "system/test_make.py",
    "faults/test_faults.py",
    "system/import_script/test_command.py",
    "system/test_package.py",
    "system/test_cifar10_serving.py",
    "system/test_cifar10_projects.py",
    "system/test_tracking_setups.py",
    "system/test_sagemaker.py",
    "system/test_introduction.py",
    "system/test_model_events.py",
    "system/test_hands_on.py",
    "system/test_references.py",
    "system/test_lineage.py",
    "system/test_aws_check.py",
    "system/test_release.py",
    "system/test_sweeps.py",
    "system/test_wine_sweep.py",
    "system/test_containers.py",
    "system/test_sagemaker_fidelity.py",
    "system/test_reuse_waiting.py",
    "system/test_lean_task.py",
    "integration/import_script/test_shapes.py",
    "integration/test_attempts.py",
    "unit/project/test_differential.py",  # while the one before makes the server and the database of this run
    "unit/project/test_identity.py",
    "integration/test_models.py",
    "integration/backends/test_environments.py",
    "unit/project/test_quoting.py",
    "integration/test_reuse.py",
    "integration/import_script/test_refusals.py",
    "integration/backends/test_conda_environments.py",
    "integration/test_functions.py",
    "integration/tracking/test_clients.py",
    "integration/test_migrating.py",
    "integration/test_git_projects.py",
    "integration/test_echo_zip.py",
    "integration/backends/test_runner.py",
    "integration/project/test_repository.py",
)
IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.6-cpu-py312"


def pytest_configure(config: pytest.Config) -> None:
    global _capture
    _capture = config.pluginmanager.getplugin("capturemanager")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the longest files; leave out what takes many minutes.

    Without a word: under REQUIRE_ALL=1 a skip would be a failure.
    """
    place = {ROOT / "tests" / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(LONGEST)))
    marks = {"FULL_SIZE": "full_size", "STACK": "stack", "NIGHTLY": "nightly"}
    away = [mark for variable, mark in marks.items() if os.environ.get(variable) != "1"]
    left_out = [item for item in items if any(item.get_closest_marker(mark) for mark in away)]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let no part of the tests be missing under REQUIRE_ALL=1: a skip is a failure there."""
    report = yield
    if os.environ.get("REQUIRE_ALL") == "1" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"REQUIRE_ALL=1 and the test was skipped: {reason}"
    return report


def output_so_far() -> str:
    """Return what was printed (Airflow's task log among it) since the last call; needs pytest's capture."""
    assert _capture.is_globally_capturing(), "run pytest without -s"
    captured = _capture.read_global_capture()
    return str(captured.out + captured.err)


@pytest.fixture(scope="session")
def repository_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def airflow_db() -> None:
    """Make this process's metadata database of Airflow, from the one that is migrated once in a run."""
    migrated_airflow_database(RUN, HOME / "airflow.db")


@pytest.fixture(scope="session")
def mlflow_server() -> str:
    """Return the URI of the run's one tracking server; a test makes experiments of its own there."""
    return shared_mlflow_server(RUN)


@pytest.fixture(scope="session")
def sagemaker_server() -> Iterator[Any]:
    """Run the stand-in for SageMaker."""
    from tests.support.sagemaker import running_sagemaker

    with running_sagemaker(HOME / "sagemaker") as stand_in:
        yield stand_in


@pytest.fixture
def sagemaker(sagemaker_server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Point AWS's clients at the stand-in, and set the defaults of the SageMaker backend."""
    for name, value in sagemaker_server.environment.items():
        monkeypatch.setenv(name, value)
    defaults = {"role": sagemaker_server.role, "s3_uri": f"s3://{sagemaker_server.bucket}/mlflow", "image_uri": IMAGE}
    monkeypatch.setenv("AIRFLOW__MLFLOW_PROJECTS__SAGEMAKER", json.dumps(defaults))
    return sagemaker_server


@pytest.fixture(scope="session")
def engine_server(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Run a container engine ("podman", or "docker" as the parameter says); see tests/support/engine.py."""
    from tests.support.engine import running_engine

    with running_engine(getattr(request, "param", "podman")) as engine:
        yield engine


@pytest.fixture
def engine(engine_server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Point DOCKER_HOST at a real container engine (tests.support.engine.Engine)."""
    for name, value in engine_server.environment.items():
        monkeypatch.setenv(name, value)
    return engine_server


@pytest.fixture(scope="session")
def base_image(engine_server: Any) -> str:
    """Return the name of a Debian 12 image with Python that the engine has."""
    from tests.support.engine import ensure_base_image

    return ensure_base_image(engine_server)


@pytest.fixture
def tracking_uri(mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Point MLFLOW_TRACKING_URI at the session's server."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    return mlflow_server


@pytest.fixture(scope="module")
def server(airflow_db: None, mlflow_server: str) -> Iterator[str]:
    """Return the tracking server that DAGs log to, which take their environments from the cache of all tests."""
    from tests.support.cifar10 import CACHE

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
        patch.setenv("AIRFLOW__MLFLOW_PROJECTS__CACHE_DIR", str(CACHE))
        yield mlflow_server
