"""A handful of the named faults that take seconds each; `make faults` runs all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.invariants import leaks
from tests.faults.jobs import JOB_FAULTS
from tests.faults.stack import Stack
from tests.faults.table import FAULTS
from tests.faults.verdict import Verdict, run_all, secrets_kept

QUICK = (
    "the project crashes with a nested run open",
    "a person marks the running step failed",
    "SIGKILL to the task process, then a retry",
    "the answer to every first runs/create is lost",
    "job deferred: a person marks the step failed while its job runs",
    "job watched: SIGKILL to the worker while it waits, then a retry",
)
SECRETS = secrets_kept([]).fault

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Verdict]]:
    chosen = [fault for fault in FAULTS + JOB_FAULTS if fault.name in QUICK]
    assert len(chosen) == len(QUICK)
    with Stack(tmp_path_factory.mktemp("faults") / "home", with_sagemaker=True) as stack:
        yield {verdict.fault: verdict for verdict in [*run_all(stack, chosen), secrets_kept(leaks(stack))]}


@pytest.mark.parametrize("name", [*QUICK, SECRETS])
def test_both_records_agree_after(name: str, verdicts: dict[str, Verdict]) -> None:
    verdict = verdicts[name]
    assert not verdict.problems, "\n".join([str(verdict), *verdict.logs])
