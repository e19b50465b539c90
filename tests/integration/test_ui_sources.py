"""Where the pages read from, and what they say when that cannot be reached."""

from __future__ import annotations

from typing import Any

import pytest

from mlflow_projects.ui.sources import PageProblem, tracking
from tests.support.servers import free_port


@pytest.mark.usefixtures("airflow_db")
@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("http://127.0.0.1:{port}", "does not answer"),
        ("sqlite:///{port}/none.db", "no connection mlflow_default, and no MLFLOW_TRACKING_URI"),
    ],
)
def test_trouble_is_a_sentence_without_addresses(uri: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(port=port))
    with pytest.raises(PageProblem, match=words) as caught:
        with tracking("mlflow_default") as client:
            client.experiment_ids()
    assert str(port) not in str(caught.value)


def test_a_missing_connection_is_named(airflow_db: Any) -> None:
    with pytest.raises(PageProblem, match="finds no connection no_such_conn"):
        with tracking("no_such_conn"):
            pass
