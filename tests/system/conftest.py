"""What all modules of system tests share."""

from tests.support.logs import pytest_runtest_makereport  # noqa: F401
