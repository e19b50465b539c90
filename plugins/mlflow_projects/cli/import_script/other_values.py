"""Values that an option of a script may have besides its own: made up, or those that the script's code compares."""

from __future__ import annotations

import ast
from typing import Any

from mlflow_projects.cli.import_script.plan import Option
from mlflow_projects.cli.import_script.recording import Recorded, Script


def unlike(option: Option, number: int, attempt: int, *, again: bool = False) -> Any:
    """Return a value of the option's type that stands nowhere by chance.

    :param attempt: 0 for one that is unlike its own, else one that is near to it
    :param again: one more
    """
    value = option.value
    if option.kind == "integer":
        small = value if isinstance(value, int) else 1
        if again:
            return (3_000_000 + 211 * number, small + 2, max(small - 2, 0))[attempt]
        return (7_000_000 + 101 * number, small + 1, max(small - 1, 0))[attempt]
    if option.kind == "number":
        rate = value if isinstance(value, float) else 0.5
        if again:
            return (round(0.3917509 + number / 10_007, 7), round(rate * 0.7919, 9), round(rate * 1.2173, 9))[attempt]
        return (round(0.7310917 + number / 10_007, 7), round(rate * 0.8137, 9), round(rate * 1.1931, 9))[attempt]
    suffix = f"zq{number}zq"
    if again:
        return (suffix, f"{suffix}/{value or ''}", f"{suffix}zw")[attempt]
    return (f"{value or ''}{suffix}", f"{suffix}{value or ''}", suffix)[attempt]


def compared_with(script: Script, recorded: Recorded) -> dict[str, list[Any]]:
    """Return the constants that the script's own code compares names with; None where it asks for truth."""
    files = {place[0] for node in recorded.calls for place in node["stack"]}
    found: dict[str, list[Any]] = {}

    def add(node: ast.AST, value: Any) -> None:
        name = getattr(node, "attr", getattr(node, "id", None))
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            name = node.slice.value
        if isinstance(name, str) and value not in found.setdefault(name.replace("-", "_"), []):
            found[name.replace("-", "_")].append(value)

    for file in files:
        try:
            tree = ast.parse((script.root / file).read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                for one in sides:
                    for other in sides:
                        for part in ast.walk(other) if other is not one else ():
                            if isinstance(part, ast.Constant) and type(part.value) in (str, int, float):
                                add(one, part.value)
            elif isinstance(node, ast.BoolOp):
                for one in node.values:
                    add(one, None)
            elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
                add(node.operand, None)
            elif isinstance(node, ast.If | ast.IfExp | ast.While):
                add(node.test, None)
    return found
