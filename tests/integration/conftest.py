"""What several modules of integration tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.cifar10 import CACHE


@pytest.fixture(scope="module")
def server(airflow_db: None, mlflow_server: str) -> Iterator[str]:
    """Yield the tracking server that DAGs log to, which take their environments from the cache of all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
        patch.setenv("AIRFLOW__MLFLOW_PROJECTS__CACHE_DIR", str(CACHE))
        yield mlflow_server
