"""README.md is short, and the front pages in Japanese and Korean keep in step with it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
# They are about others, in words that a translation would have to follow with each measurement.
ONLY_IN_ENGLISH = "What it does that others do not"
OTHER_LANGUAGES = ("README.ja.md", "README.ko.md")


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "tools")
    import pages

    return pages


def sections(text: str) -> Iterator[tuple[str, str]]:
    """Yield title and text of each part, that before the first heading of level 2 included."""
    before, *rest = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    yield "", before
    yield from zip(rest[::2], rest[1::2], strict=True)


def commands(text: str) -> list[str]:
    """Return the code blocks, without the comments of shells, which are translated."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [f"{kind}\n{re.sub(r' +# .*$', '', code, flags=re.MULTILINE)}" for kind, code in blocks]


def in_step(text: str, pages: ModuleType) -> dict[str, object]:
    """Return what of a section is the same in every language; the order of words in a sentence is not."""
    outside = "".join(line for line, is_code in pages.lines_of(text) if not is_code)
    return {
        "code blocks": commands(text),
        "code in sentences": set(re.findall(r"`[^`]+`", outside)),
        "rows": [re.findall(r"`[^`]+`", row) for row in re.findall(r"^\|.*$", outside, re.MULTILINE)],
        "items": len(re.findall(r"^- ", outside, re.MULTILINE)),
        "links": Counter(link for link in pages.links(text) if not link.startswith("README")),
    }


def test_readme_has_150_lines_at_most() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("name", OTHER_LANGUAGES)
def test_each_language_has_the_same_parts_commands_and_links(name: str, pages: ModuleType) -> None:
    wanted = [(title, text) for title, text in sections(README) if title != ONLY_IN_ENGLISH]
    found = list(sections((ROOT / name).read_text(encoding="utf-8")))
    assert len(found) == len(wanted)
    for (title, text), (own_title, own) in zip(wanted, found, strict=True):
        assert in_step(own, pages) == in_step(text, pages), f"{name}: {own_title!r} is not in step with {title!r}"
        assert [level for level, _ in pages.headings(own)] == [level for level, _ in pages.headings(text)]


def test_each_front_page_leads_to_the_others() -> None:
    names = ("README.md", *OTHER_LANGUAGES)
    for name in names:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert {other for other in names if f"]({other})" in text} == {*names} - {name}


def test_the_dag_is_that_of_the_page_which_makes_its_project() -> None:
    [dag] = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert f"```python\n{dag}```" in (ROOT / "docs" / "first_dag.md").read_text(encoding="utf-8")
