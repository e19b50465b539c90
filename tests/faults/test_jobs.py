"""A quick part of the faults of training jobs; `make faults TABLE=jobs` runs them all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.invariants import leaks
from tests.faults.jobs import JOB_FAULTS
from tests.faults.stack import Stack
from tests.faults.verdict import Verdict, run_all

QUICK = (
    "job deferred: the project fails",
    "job deferred: a person marks the step failed while its job runs",
    "job watched: SIGKILL to the worker while the job is being created, then a retry",
    "job deferred: the triggerer is killed and started again",
)

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Verdict]]:
    chosen = [fault for fault in JOB_FAULTS if fault.name in QUICK]
    assert len(chosen) == len(QUICK)
    with Stack(tmp_path_factory.mktemp("jobs") / "home", with_sagemaker=True) as stack:
        found = {verdict.fault: verdict for verdict in run_all(stack, chosen)}
        found["leaks"] = Verdict("leaks", "", "", 0, 0, leaks(stack))
        yield found


@pytest.mark.parametrize("name", [*QUICK, "leaks"])
def test_both_records_agree_after(name: str, verdicts: dict[str, Verdict]) -> None:
    assert verdicts[name].problems == []
