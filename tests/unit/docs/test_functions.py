"""docs/functions.md shows the example of notices as it is."""

from __future__ import annotations

from tests.conftest import ROOT


def test_the_example_is_that_of_the_tests() -> None:
    page = (ROOT / "docs" / "functions.md").read_text(encoding="utf-8")
    example = (ROOT / "docs" / "examples" / "notices.py").read_text(encoding="utf-8")
    assert f"```python\n{example}```\n" in page
