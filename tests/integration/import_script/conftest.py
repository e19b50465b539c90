"""What the tests of this folder share."""

from tests.support.importing import imported, recorder  # noqa: F401
