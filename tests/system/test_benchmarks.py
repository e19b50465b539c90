"""``make bench``: its harness and two cheap rows in small sizes. How fast anything is, no test says."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.row import Row
from benchmarks.run import as_json
from tests.conftest import ROOT

pytestmark = pytest.mark.system

FAST = Row(
    number=1, name="overhead", unit="s", ours=0.1, limit=0.0, goal=0.3, peers={"mlflow run": 2.9, "main.py": 1.5}
)  # fmt: skip
BIG = Row(number=10, name="speed", unit="MB/s", ours=3.0, limit=90.0, goal=4.0, peers={}, at_least=True)


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.run", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def result_of(*rows: Row) -> dict[str, object]:
    about = {"cpu": "a processor", "cores": 2, "memory_gb": 8, "system": "Linux"}
    measured = {str(row.number): as_json(row, 1.0) for row in rows}
    return {"machine": about, "versions": {"python": "3.11"}, "quick": False, **measured}


@pytest.mark.nightly
def test_a_quick_run_of_two_rows_is_valid(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    done = bench("3", "5", "--quick", "--result", str(file))
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(file.read_text())
    assert result["quick"] is True
    assert result["versions"]["mlflow"]
    assert set(result) == {"machine", "versions", "quick", "3", "5"}
    for key in ("3", "5"):
        row = result[key]
        assert row["number"] == int(key)
        assert min(row["ours"], row["limit"], row["goal"], *row["peers"].values()) > 0
        assert isinstance(row["met"], bool)
        assert row["peers"], "nothing to compare with"
    assert result["5"]["details"]["fetches of parallel tasks"] == 1
    assert "DAG parse, 50 steps" in done.stdout
    assert "worth nothing" in done.stdout


def test_a_row_that_does_not_exist_is_named() -> None:
    done = bench("99")
    assert done.returncode == 2
    assert "There is no row 99; there are 1, 2, " in done.stderr


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (FAST, True),
        (replace(FAST, ours=0.31), False),
        (replace(FAST, conditions={"one connection": False}), False),
        (BIG, False),
        (replace(BIG, ours=4.0), True),
    ],
)
def test_a_goal_is_met_with_all_its_conditions(row: Row, met: bool) -> None:
    assert row.met is met


def test_a_result_is_written_into_the_docs(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    unmet = replace(FAST, number=4, conditions={"one connection": False})
    report.write(result_of(FAST, BIG, unmet), tmp_path)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert rows == [
        "| 1 | overhead | s | 0 | **0.1** | ≤ 0.3 | yes | mlflow run: 2.9; main.py: 1.5 |",
        "| 4 | overhead | s | 0 | **0.1** | ≤ 0.3 | no: one connection | mlflow run: 2.9; main.py: 1.5 |",
        "| 10 | speed | MB/s | 90 | **3** | ≥ 4 | no |  |",
    ]
    drawing = (tmp_path / "images" / "benchmarks.svg").read_text()
    assert "10  speed" in drawing
    report.write(result_of(FAST, BIG, unmet), tmp_path)
    assert (tmp_path / "images" / "benchmarks.svg").read_text() == drawing, "a repeated drawing is no change"


def test_a_page_without_a_place_for_the_table_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "benchmarks.md").write_text("nothing here\n")
    with pytest.raises(ValueError, match="has no place for the table"):
        report.write(result_of(FAST), tmp_path)


def test_the_page_in_docs_has_a_place_for_the_table() -> None:
    text = (report.DOCS / "benchmarks.md").read_text()
    assert text.count(report.BEGIN) == text.count(report.END) == 1
