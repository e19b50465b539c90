"""What all modules of integration tests share."""

from tests.support.logs import pytest_runtest_makereport  # noqa: F401
