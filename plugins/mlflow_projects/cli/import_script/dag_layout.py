"""Which groups and steps a DAG has, and which comes after which."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlflow_projects.cli import python_source as py
from mlflow_projects.cli.import_script.marks import MARK, marks_in


@dataclass
class Step:
    """A task of the DAG: one call, or several that differ in parameters only."""

    calls: list[dict[str, Any]]
    indexes: list[int]
    task_id: str = ""
    variable: str = ""
    group: Group | None = None

    @property
    def path(self) -> str:
        """The task's id in the DAG."""
        return f"{self.group.path}.{self.task_id}" if self.group and self.group.path else self.task_id


@dataclass
class Group:
    """What has one parent run; the outermost has none."""

    node: dict[str, Any] | None = None
    index: int = -1
    group_id: str = ""
    variable: str = ""
    outer: Group | None = None
    items: list[Step | Group] = field(default_factory=list)

    @property
    def path(self) -> str:
        """The group's id in the DAG."""
        return f"{self.outer.path}.{self.group_id}" if self.outer and self.outer.path else self.group_id

    def steps(self) -> list[Step]:
        """Return all steps in it, those of inner groups too."""
        return [one for item in self.items for one in (item.steps() if isinstance(item, Group) else [item])]

    def groups(self) -> list[Group]:
        """Return all groups in it, inner ones too."""
        return [inner for item in self.items if isinstance(item, Group) for inner in (item, *item.groups())]


def layout(nodes: Sequence[dict[str, Any]]) -> Group:
    """Return groups and steps for the script's own runs and its calls."""
    top = Group()
    groups: dict[int, Group] = {}
    given = {node["run_id"]: index for index, node in enumerate(nodes) if node.get("given_run")}
    for index, node in enumerate(nodes):
        outer = top
        parent = node["parent"]
        if parent is not None and (found := MARK.fullmatch(parent)):
            outer = groups.get(int(found[2]), top)
        if node["kind"] == "call":
            outer.items.append(Step([node], [index], group=outer))
        elif node["run_id"] not in given:
            groups[index] = Group(node, index, outer=outer)
            outer.items.append(groups[index])
    _drop_empty(top)
    passed_on = [node.get(name) for node in nodes for name in ("uri", "parameters", "run_name")]
    needed = {int(number) for kind, number in marks_in(passed_on) if kind == "r"}
    _join_loops(top, needed)
    return top


def order_of(group: Group) -> list[str]:
    """Return lines that put a group's items in the script's order, without what follows from others."""
    items = group.items
    if len(items) < 2:
        return []
    before: dict[int, set[int]] = {}
    for later, item in enumerate(items):
        before[later] = {
            earlier for earlier in range(len(items)) if earlier != later and _is_before(items[earlier], item)
        }
    direct = {
        later: {one for one in found if not any(one in before[other] for other in found)}
        for later, found in before.items()
    }
    names = [item.variable for item in items]
    layers: dict[tuple[int, ...], list[int]] = {}
    for later, found in before.items():
        layers.setdefault(tuple(sorted(found)), []).append(later)
    if _is_chain(layers):
        return _wrapped([_listed(names, later) for later in layers.values()])
    lines: dict[tuple[int, ...], list[int]] = {}
    for later, found in direct.items():
        if found:
            lines.setdefault(tuple(sorted(found)), []).append(later)
    return [f"{_listed(names, earlier)} >> {_listed(names, later)}" for earlier, later in lines.items()]


def _is_chain(layers: Mapping[tuple[int, ...], Sequence[int]]) -> bool:
    """Tell whether each layer of items waits for all before it, and Airflow's ``>>`` can say so in one line."""
    seen: list[int] = []
    for earlier, items in layers.items():
        if list(earlier) != sorted(seen):
            return False
        seen += items
    sizes = [len(items) for items in layers.values()]
    return len(layers) > 1 and not any(one > 1 and other > 1 for one, other in itertools.pairwise(sizes))


def _listed(names: Sequence[str], numbers: Sequence[int]) -> str:
    return names[numbers[0]] if len(numbers) == 1 else f"[{', '.join(names[number] for number in numbers)}]"


def _wrapped(names: Sequence[str]) -> list[str]:
    lines, line = [], names[0]
    for number, name in enumerate(names[1:], 1):
        if len(line) + len(name) + 12 > py.WIDTH:
            lines.append(line)
            line = names[number - 1]
        line += f" >> {name}"
    return [*lines, line]


def _is_before(earlier: Step | Group, later: Step | Group) -> bool:
    """Tell whether all of one item had ended when the other began."""
    done = {
        call["run_id"]
        for step in (earlier.steps() if isinstance(earlier, Group) else [earlier])
        for call in step.calls
    }
    steps = later.steps() if isinstance(later, Group) else [later]
    return bool(steps) and all(done <= set(call["after"]) for step in steps for call in step.calls)


def _drop_empty(group: Group) -> None:
    for item in list(group.items):
        if isinstance(item, Group):
            _drop_empty(item)
            if not item.items:
                group.items.remove(item)


def _join_loops(group: Group, needed: set[int]) -> None:
    """Join calls of one place in the script that differ in parameters only, if nobody needs one of them alone."""
    joined: list[Step | Group] = []
    for item in group.items:
        if isinstance(item, Group):
            _join_loops(item, needed)
        last = joined[-1] if joined else None
        if (
            isinstance(item, Step)
            and isinstance(last, Step)
            and _is_same_but_parameters(last.calls[0], item.calls[0])
            and not needed & {*last.indexes, *item.indexes}
        ):
            last.calls += item.calls
            last.indexes += item.indexes
        else:
            joined.append(item)
    group.items = joined


def _is_same_but_parameters(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    names = (
        "uri",
        "entry_point",
        "version",
        "stack",
        "backend",
        "backend_config",
        "env_manager",
        "experiment_id",
        "run_name",
    )
    return all(one[name] == other[name] for name in names) and one["parameters"].keys() == other["parameters"].keys()
