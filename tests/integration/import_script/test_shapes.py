"""Scripts of many shapes, each with the DAG that a person would have written: it stands in expected/.

After a change that is meant: IMPORT_EXPECTED=write pytest tests/integration/import_script, and read the difference.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.importing import Import

DRIVERS = ROOT / "tests" / "projects" / "drivers"
EXPECTED = Path(__file__).parent / "expected"
SHAPES: dict[str, dict[str, str]] = {
    "four_steps": {},
    "local_or_aws": {},
    "cached_steps": {},
    "random_search": {},
    "commands": {},
    "listed_steps": {},
    "flame": {"data": "raw.csv"},
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_dag_is_the_expected_one(name: str, imported: Import) -> None:
    for package in {"listed_steps": ["hydra"], "flame": ["fire"]}.get(name, []):
        pytest.importorskip(package)
    dag = imported(DRIVERS / f"{name}.py", **SHAPES[name])
    made = {f"{name}.py": dag.text(), **{f"{name}_files/{file}": text for file, text in dag.files.items()}}
    for file, text in made.items():
        if os.environ.get("IMPORT_EXPECTED") == "write":
            (EXPECTED / file).parent.mkdir(exist_ok=True, parents=True)
            (EXPECTED / file).write_text(text, encoding="utf-8")
        assert text == (EXPECTED / file).read_text(encoding="utf-8")


def test_every_expected_dag_is_made() -> None:
    assert {file.stem for file in EXPECTED.glob("*.py")} == {*SHAPES}
