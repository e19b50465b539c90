"""docs/importing.md shows scripts and DAGs as they are."""

from __future__ import annotations

import re

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "importing.md").read_text(encoding="utf-8")
SCRIPTS = ROOT / "tests" / "projects" / "drivers"
DAGS = ROOT / "tests" / "integration" / "import_script" / "expected"


def test_each_script_and_each_dag_is_that_of_the_tests() -> None:
    shown = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    names = ("local_or_aws.py", "four_steps.py")
    assert shown == [(folder / name).read_text(encoding="utf-8") for name in names for folder in (SCRIPTS, DAGS)]


def test_migrating_names_each_option_of_the_command() -> None:
    import argparse

    from mlflow_projects.cli import import_script

    parser = argparse.ArgumentParser(add_help=False)
    import_script.add_arguments(parser)
    page = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")
    table = page.partition("### What the command does")[2].partition("### What becomes what")[0]
    named = re.findall(r"^\| `(-[^-\s`]|--[a-z-]+)[ `]", table, re.MULTILINE)
    assert sorted(named) == sorted(action.option_strings[0] for action in parser._actions if action.option_strings)
