"""A quick part of the table of faults; `make faults` runs it whole."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.invariants import leaks
from tests.faults.stack import Stack
from tests.faults.table import FAULTS
from tests.faults.verdict import Verdict, run_all

QUICK = (
    "the project crashes with a nested run open",
    "the first try fails, the second succeeds",
    "a person marks the running step failed",
    "a person clears the running step",
    "execution_timeout, and the command ignores SIGTERM",
    "dagrun_timeout",
    "SIGTERM to the task process, then a retry",
    "SIGKILL to the task process, then a retry",
    "SIGKILL to the minder",
    "SIGKILL to the supervisor, then a retry",
    "the tracking server is away when the step ends",
    "the answer to every first runs/create is lost",
)

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Verdict]]:
    chosen = [fault for fault in FAULTS if fault.name in QUICK]
    assert len(chosen) == len(QUICK)
    with Stack(tmp_path_factory.mktemp("faults") / "home") as stack:
        found = {verdict.fault: verdict for verdict in run_all(stack, chosen)}
        found["leaks"] = Verdict("leaks", "", "", 0, 0, leaks(stack))
        yield found


@pytest.mark.parametrize("name", [*QUICK, "leaks"])
def test_both_records_agree_after(name: str, verdicts: dict[str, Verdict]) -> None:
    assert verdicts[name].problems == []
