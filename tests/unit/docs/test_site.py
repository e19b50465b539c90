"""tools/docs.py: what the generator gets to read, and which faults of the built site end `make docs`."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import ROOT


@pytest.fixture
def docs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "tools")
    import docs

    monkeypatch.setattr(docs, "ROOT", tmp_path)
    monkeypatch.setattr(docs, "SITE", tmp_path / "site")
    (tmp_path / "site").mkdir()
    return docs


def test_each_page_of_the_navigation_is_given_to_the_generator(
    docs: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docs, "ROOT", ROOT)
    staged = docs.staged()
    navigation = (ROOT / "zensical.toml").read_text(encoding="utf-8").partition("\nnav = [")[2].partition("\n]")[0]
    assert {*re.findall(r'"([\w/]+\.md)"', navigation)} - {*staged} == set()
    assert b"mlflow_projects.operators.project.MLflowProjectOperator\n" in staged["reference/operators.md"]


def test_links_out_of_docs_become_pages_of_the_site(docs: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "a.py").write_text('TEXT = "````"\n')
    (tmp_path / "dags" / "picture.bin").write_bytes(b"\0")
    (tmp_path / "SECURITY.md").write_text("# Security\n")
    (tmp_path / "docs" / "index.md").write_text(
        "[a](../dags/a.py) [all](../dags) [own](#own) [s](../SECURITY.md#security) [web](https://example.com/a.md)\n"
    )
    names = {"docs/index.md": "index.md", "SECURITY.md": "security_policy.md"}
    assert docs.page_of("docs/index.md", "index.md", names) == (
        "[a](files/dags/a_py.md) [all](files/dags.md) [own](#own) [s](security_policy.md#security) "
        "[web](https://example.com/a.md)\n"
    )
    assert docs.source_page("dags/a.py") == '# dags/a.py\n\n`````python\nTEXT = "````"\n`````\n'
    folder = docs.source_page("dags")
    assert folder.startswith("# dags\n\n## a.py\n")
    assert "picture" not in folder


def test_a_link_to_a_file_that_is_gone_ends_it(docs: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[a](../gone.py)\n")
    with pytest.raises(SystemExit, match=re.escape("docs/index.md links to ../gone.py, which is not there.")):
        docs.page_of("docs/index.md", "index.md", {"docs/index.md": "index.md"})


def test_an_anchor_that_is_gone_is_found(docs: ModuleType) -> None:
    (docs.SITE / "a.html").write_text(
        '<h1 id="here"></h1><a class="x" href="b.html#there">b</a><a href="#here">a</a>'
    )
    (docs.SITE / "b.html").write_text(
        '<h1 id="there"></h1><a href="a.html#gone">a</a><a href="https://example.com#x">'
    )
    assert docs.missing_anchors() == ["build/site/b.html links to a.html#gone, which is not there."]


def test_what_a_browser_would_load_from_elsewhere_is_found(docs: ModuleType) -> None:
    (docs.SITE / "a.html").write_text(
        '<a href="https://example.com">x</a><script src="assets/x.js"></script><link rel="canonical" href="https://e.org">'
        '<script async src="https://cdn.example.com/x.js"></script><img alt="" src="//img.example.com/x.png">'
    )
    assert docs.foreign_hosts() == [
        "site/a.html loads https://cdn.example.com/x.js from a foreign host.",
        "site/a.html loads //img.example.com/x.png from a foreign host.",
    ]
