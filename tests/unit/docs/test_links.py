"""Every link and anchor of the pages leads somewhere; every page of docs/ is in the index and in the site."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import ROOT

PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        ROOT / "custom_images" / "README.md",
        ROOT / "tests" / "aws" / "README.md",
    ],
    key=lambda page: page.as_posix(),
)
DOCS = {page.relative_to(ROOT / "docs").as_posix() for page in PAGES if page.is_relative_to(ROOT / "docs")}
CONFIG = (ROOT / "zensical.toml").read_text(encoding="utf-8")


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "tools")
    import pages

    return pages


def broken(page: Path, pages: ModuleType) -> list[str]:
    """Return the links of a page that lead to no file, or to no heading of a page."""
    found = []
    for link in pages.links(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        to = page.parent / path if path else page
        if not to.exists() or (anchor and anchor not in pages.anchors(to.read_text(encoding="utf-8"))):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path, pages: ModuleType) -> None:
    assert broken(page, pages) == []


def test_a_broken_link_or_anchor_is_found(tmp_path: Path, pages: ModuleType) -> None:
    (tmp_path / "other.md").write_text("# Other words\n\n## `code` and more …\n\n## Twice\n\n## Twice\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Page\n[1](other.md) [2](other.md#code-and-more-) [3](other.md#twice-1) [4](#page) [5](https://example.com)\n"
        "[6](gone.md) [7](other.md#gone) [8](#gone) ![9](gone.png) `[10](code.md)`\n"
        '<img src="gone.svg" alt="">\n```text\n[11](code.md)\n```\n'
    )
    assert broken(page, pages) == ["gone.md", "other.md#gone", "#gone", "gone.png", "gone.svg"]


def test_pages_that_code_and_other_files_name_are_there() -> None:
    """Such as a docstring's "see docs/reuse.md", or a message that sends its reader to a page."""
    files = [ROOT / name for name in ("Makefile", "docker-compose.yaml", "CHANGELOG.md", "CONTRIBUTING.md")]
    for folder in ("plugins", "dags", "sample_projects", "custom_images", "tools", "tests", "benchmarks"):
        files += [file for file in (ROOT / folder).rglob("*") if file.suffix in (".py", ".yaml", ".sh")]
    page = re.compile(r"(?<![\w/.])docs/[\w/]+\.(?:md|py|yaml)")
    named = {name for file in files for name in page.findall(file.read_text(encoding="utf-8"))}
    assert len(named) > 20
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert {name for name in DOCS - {"index.md"} if f"]({name}" not in index} == set()


def test_every_page_is_once_in_the_navigation_of_the_site() -> None:
    named = re.findall(r'"([\w/]+\.md)"', CONFIG.partition("\nnav = [")[2].partition("\n]")[0])
    assert len(named) == len(set(named))
    assert set(named) >= DOCS


def test_the_pages_of_the_reference_are_those_that_the_public_names_make() -> None:
    import mlflow_projects

    homes = [mlflow_projects._HOMES[name].split(".") for name in mlflow_projects.__all__]
    kinds = {module if module == "retry_policy" else kind for _, kind, module in homes}
    assert {*re.findall(r'"reference/(\w+)\.md"', CONFIG)} == kinds


def test_no_picture_has_a_semicolon_in_its_words(pages: ModuleType) -> None:
    """Mermaid begins a new statement there: a state diagram shows the rest as states, a sequence not at all."""
    for page in PAGES:
        for block in re.findall(r"```mermaid\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.splitlines():
                assert ";" not in line.partition(": ")[2], f"{posixpath.basename(page)}: {line}"
