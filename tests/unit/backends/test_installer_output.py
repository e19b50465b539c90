"""What installers say when they fail: as they were seen to."""

from __future__ import annotations

import pytest

from mlflow_projects.backends.local.installer_output import InstallerOutput


def taken(text: str) -> InstallerOutput:
    output = InstallerOutput()
    for line in text.splitlines():
        output.take(line)
    return output


UV = """Using Python 3.11.7 environment at: /x
error: No solution found when resolving dependencies
  cause: Because six was not found and you require six==99, we can conclude that your requirements are unsatisfiable.

hint: An index (https://me:p4ss@h.example/) could not be queried"""
OLD_UV = """  × No solution found when resolving dependencies:
  ╰─▶ Because you require six==1 and
      six==2, it is unsatisfiable."""
PIP = """Looking in links: /x
ERROR: Could not find a version that satisfies the requirement six==99 (from versions: 1.0, 1.1)
ERROR: No matching distribution found for six==99

[notice] A new release of pip is available: 23.2.1 -> 26.0"""


@pytest.mark.parametrize(("text", "words"), [
    (UV, "No solution found when resolving dependencies cause: Because six was not found and you require six==99"),
    (OLD_UV, "No solution found when resolving dependencies: Because you require six==1 and six==2, it is unsat"),
    (PIP, "Could not find a version that satisfies the requirement six==99 (from versions: 1.0, 1.1) ERROR: No"),
    ('error: Couldn\'t parse requirement in `x` at position 0\n  cause: no\n   six=1\n      ^^', "cause: no six=1."),
    ("ERROR: Invalid requirement: 'six=1'", "Invalid requirement: 'six=1'."),
    ("ERROR: Cannot install a and b because these package versions have conflicting dependencies.\n\nmore", "more."),
    ("No interpreter found for Python 3.99 in search path", "search path; install that Python, or change the"),
    ("error    libmamba Could not solve for environment specs", "Could not solve for environment specs."),
])  # fmt: skip
def test_what_no_other_try_can_help_is_a_refusal(text: str, words: str) -> None:
    assert words in taken(text).refusal
    assert "p4ss" not in taken(text).refusal


@pytest.mark.parametrize("text", [
    "error: Request failed after 3 retries\n  cause: Failed to fetch: http://h.example/simple/six/",
    "ERROR: Could not find a version that satisfies the requirement six (from versions: none)",
    f"WARNING: Retrying (Retry(total=4)) after connection broken\n{PIP}",
    "error: Failed to build `x`", "",
])  # fmt: skip
def test_what_another_try_may_help_is_none(text: str) -> None:
    assert taken(text).refusal == ""


def test_the_last_words_are_no_hint() -> None:
    assert taken(PIP).last == "ERROR: No matching distribution found for six==99"
    assert taken("why\n      ^^^\n\nhint: This usually indicates a problem with the package\n").last == "why"


def test_long_reasons_are_cut() -> None:
    assert len(taken("Invalid requirement: " + "x" * 5000).refusal) < 1000
