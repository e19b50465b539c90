"""Unit tests start no server, ask none, and leave Airflow's database alone; one that does fails here."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

OF_OTHERS = frozenset({"airflow_db", "base_image", "engine", "mlflow_server", "sagemaker", "server", "tracking_uri"})
_of_a_unit_test = False


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if not _of_a_unit_test:
        return
    if event in ("socket.connect", "socket.bind") and arguments[0].family in (socket.AF_INET, socket.AF_INET6):
        raise AssertionError(
            f"a unit test uses the network ({event} {arguments[1]}); it belongs to tests/integration"
        )
    if event == "sqlite3.connect" and str(arguments[0]).endswith("airflow.db"):
        raise AssertionError("a unit test opens Airflow's database; it belongs to tests/integration")


sys.addaudithook(_refuse)


@pytest.fixture(autouse=True)
def _alone(request: pytest.FixtureRequest) -> Iterator[None]:
    global _of_a_unit_test
    assert not OF_OTHERS & set(request.fixturenames), "a unit test asks for a server; it belongs to tests/integration"
    _of_a_unit_test = True
    yield
    _of_a_unit_test = False
