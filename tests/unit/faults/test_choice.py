"""Which named faults a run takes, and what it says at its end."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest

from tests.faults import choice, run, verdict
from tests.stack import faults as stack_faults

TABLES = {
    "faults": (run.TABLES["all"], choice.FAILED_BEFORE),
    "stack": (stack_faults.FAULTS, stack_faults.FAILED_BEFORE),
}
tables = pytest.mark.parametrize("name", TABLES)


def names(faults: list[verdict.Fault]) -> list[str]:
    return [fault.name for fault in faults]


@tables
def test_no_two_faults_have_one_name(name: str) -> None:
    table, _ = TABLES[name]
    assert len(set(names(table))) == len(table)


@tables
def test_the_thirds_are_the_whole_table_and_do_not_overlap(name: str, tmp_path: Path) -> None:
    table, _ = TABLES[name]
    nothing = tmp_path / "nothing.txt"
    nothing.touch()
    thirds = [names(choice.choose(table, third, nothing)) for third in range(choice.THIRDS)]
    assert sorted(chain(*thirds)) == sorted(names(table))
    assert max(map(len, thirds)) - min(map(len, thirds)) <= 1
    assert names(choice.choose(table, None, nothing)) == names(table)


@tables
def test_what_has_failed_before_is_in_each_third(name: str) -> None:
    table, record = TABLES[name]
    always = choice.names_in(record)
    assert always == sorted(set(always))
    for third in range(choice.THIRDS):
        assert set(always) < set(names(choice.choose(table, third, record)))


def test_a_name_that_no_fault_has_is_an_error(tmp_path: Path) -> None:
    record = tmp_path / "failed_before.txt"
    record.write_text("# why\nnothing goes wrong\nthe moon falls down\n")
    with pytest.raises(SystemExit, match=r"failed_before\.txt names no fault of the table: the moon falls down"):
        choice.choose(run.TABLES["all"], 0, record)


@pytest.mark.parametrize(
    ("problems", "expected", "line"), [([], 2, "2 of 2"), (["x"], 2, "1 of 2"), ([], 9, "2 of 9")]
)
def test_the_last_line_says_how_many_hold(
    problems: list[str], expected: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    verdicts = [verdict.secrets_kept([]), verdict.secrets_kept(problems)]
    status = verdict.conclude(verdicts, expected)
    assert capsys.readouterr().out == f"{line} hold\n"
    assert status == (0 if line == "2 of 2" else 1)
