"""What a DAG is written from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Option:
    """An option of the script.

    :param value: its default, or the one that was asked for
    :param kind: JSON's name of its type
    :param fixed: why the DAG has no param for it; "" if it has one
    :param is_variable: it is one of the environment
    :param may_be_empty: an empty text is as good as another
    :param may_be_absolute: a path that begins with a slash is as good as another
    """

    name: str
    value: Any
    kind: str
    choices: Sequence[Any] = ()
    help: str = ""
    is_used: bool = False
    is_in_file: bool = False
    fixed: str = ""
    is_variable: bool = False
    may_be_empty: bool = True
    may_be_absolute: bool = True


@dataclass
class Plan:
    """What a DAG is written from.

    :param nodes: the script's own runs and its steps, in their order; texts have marks
    :param own: what else it does
    :param variable: nodes' values that are drawn at random, as (index of the node, name)
    :param choices: what a mark of kind ``c`` stands for: (option, {value: text})
    :param arguments: the script's, for the values that were asked for
    :param stopped: why the plan has no end; None if it has
    """

    nodes: list[dict[str, Any]]
    own: list[Mapping[str, Any]]
    options: list[Option]
    variable: list[tuple[int, str]] = field(default_factory=list)
    choices: list[tuple[str, dict[Any, str]]] = field(default_factory=list)
    arguments: Sequence[str] = ()
    stopped: Mapping[str, Any] | None = None
