"""A few examples of what `make fuzz` tries by the million; see :mod:`tests.security.fuzz`."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.security.fuzz import EXAMPLES, TARGETS, run_example


@pytest.mark.parametrize("name", TARGETS)
def test_only_sentences_come_of_what_a_stranger_writes(name: str) -> None:
    # The same examples each time; new ones are what `make fuzz` is for.
    @settings(
        max_examples=25, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(EXAMPLES[name])
    def example(data: bytes) -> None:
        run_example(TARGETS[name], data)

    example()


def test_another_exception_is_noticed() -> None:
    def target(data: bytes) -> None:
        raise ValueError(data)

    with pytest.raises(ValueError, match="x"):
        run_example(target, b"x")


def test_every_target_has_examples() -> None:
    assert TARGETS.keys() == EXAMPLES.keys()
    assert all(isinstance(examples, st.SearchStrategy) for examples in EXAMPLES.values())
