"""The house's own rules that no linter knows: CONTRIBUTING.md and docs/backends.md promise them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "plugins" / "mlflow_projects"
# They run beside the library, in other Pythons, and print what went wrong.
OUTSIDE = ("backends/sagemaker/runner", "backends/local/conda_builder", "cli/import_script/script_recorder")
# An error that cannot say what it is: there is no sentence to find the trace of.
SPEECHLESS = "attempt/function.py"


@pytest.mark.parametrize(
    ("pattern", "most"),
    [
        ("plugins/**/*.py", 400),
        ("sagemaker_local/**/*.py", 400),
        ("tests/toy_backend/*.py", 150),
        ("docs/backends.md", 80),
        ("docs/architecture.md", 120),
    ],
)
def test_no_file_is_too_long(pattern: str, most: int) -> None:
    files = [*ROOT.glob(pattern)]
    assert files
    long = {str(file.relative_to(ROOT)) for file in files if len(file.read_text("utf-8").splitlines()) > most}
    assert not long, f"more than {most} lines; split what is in them"


def test_the_page_of_the_architecture_has_its_three_drawings() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    kinds = [block.split()[0] for block in page.split("```mermaid\n")[1:]]
    assert kinds == ["flowchart", "stateDiagram-v2", "sequenceDiagram"]


def _handlers() -> Iterator[tuple[str, ast.ExceptHandler]]:
    for file in sorted(LIBRARY.rglob("*.py")):
        name = file.relative_to(LIBRARY).as_posix()
        if not name.startswith((*OUTSIDE, SPEECHLESS)):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.ExceptHandler):
                    yield f"{name}:{node.lineno}", node


def _loses_the_cause(handler: ast.ExceptHandler) -> bool:
    """Tell whether a handler raises ``from None``, or goes on after any exception there is."""
    raised = [node for node in ast.walk(handler) if isinstance(node, ast.Raise)]
    if any(isinstance(node.cause, ast.Constant) for node in raised):
        return True
    takes_all = handler.type is None or ast.unparse(handler.type) in ("Exception", "BaseException")
    return takes_all and not raised


def _keeps_the_trace(handler: ast.ExceptHandler) -> bool:
    """Tell whether a handler logs the trace, or hands the exception itself on."""
    text = "\n".join(map(ast.unparse, handler.body))
    hands_on = handler.name is not None and any(
        sign in text for sign in (f"set_exception({handler.name})", f"= {handler.name}", f"or {handler.name}")
    )
    return "exc_info=True" in text or "tell(" in text or hands_on  # tell: of triggers/model_events.py


def test_an_error_that_becomes_a_sentence_leaves_its_trace() -> None:
    """Whoever is on call finds where it came from, with Airflow's log level DEBUG at the latest."""
    lost = [place for place, handler in _handlers() if _loses_the_cause(handler) and not _keeps_the_trace(handler)]
    assert not lost
