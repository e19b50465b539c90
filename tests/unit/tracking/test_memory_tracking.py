"""The client in memory that other tests rely on passes the cases of the real ones."""

from __future__ import annotations

import pytest

from tests.contract.registry import *  # noqa: F403
from tests.contract.store import Store, memory_store
from tests.contract.tracking import *  # noqa: F403


@pytest.fixture
def store() -> Store:
    return memory_store()


def test_a_search_that_is_not_understood_is_refused(store: Store) -> None:
    for query in ("metrics.x > 1", "tags.a = 'b' or tags.c = 'd'", "tags.a LIKE 'b%'"):
        with pytest.raises(AssertionError, match="not understood"):
            store.client.search_runs([store.experiment], query)
