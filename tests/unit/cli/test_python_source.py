"""Source that we write is what a formatter would leave."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_projects.cli.python_source import Call, Name, identifier, param, source, text, title

values = st.recursive(
    st.one_of(
        st.text(max_size=30),
        st.integers(),
        st.booleans(),
        st.none(),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
)


@given(values)
def test_what_is_read_back_is_the_value(value: object) -> None:
    assert ast.literal_eval(source(value)) == value


@pytest.mark.parametrize("width", range(55, 75))
def test_a_formatter_changes_nothing(width: int, tmp_path: Path) -> None:
    call = Call("call", [("", "x" * width), ("b", {"k": ["v", Name("other")]}), ("quotes", 'it\'s "x"')])
    (tmp_path / "file.py").write_text(f"with {source(call, 0, 5, 1)}:\n    one = {source(call, 4, 6)}\n")
    ruff = [sys.executable, "-m", "ruff", "format", "--isolated", "--check", str(tmp_path)]
    done = subprocess.run(ruff, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (tmp_path / "file.py").read_text()


@pytest.mark.parametrize(
    ("given_text", "literal"),
    [
        ("a", '"a"'),
        ('a"b', "'a\"b'"),
        ("a'b", '"a\'b"'),
        ("'\"", '"\'\\""'),
        ("\\\n\t\x00\u2028é", '"\\\\\\n\\t\\x00\\u2028é"'),
    ],
)
def test_literals(given_text: str, literal: str) -> None:
    assert text(given_text) == literal


def test_names() -> None:
    taken = ["train"]
    assert identifier("Train", taken) == "train_2"
    assert identifier("3 steps!") == "step_3_steps"
    assert identifier("class") == "step_class"
    assert identifier("学習") == "step"
    assert (param("rows"), param("etl.rows")) == ("params.rows", "params['etl.rows']")
    assert title("etl.min_rows") == "Etl min rows"
