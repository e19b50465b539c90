"""The fixtures of tests with projects and repositories."""

from tests.support.project_fixtures import *  # noqa: F403
