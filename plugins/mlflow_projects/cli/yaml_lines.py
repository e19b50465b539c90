"""Where the keys of a YAML file stand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from mlflow_projects.project.yaml_files import compose_yaml


class Lines:
    """The line of each key of a YAML file."""

    def __init__(self, file: Path) -> None:
        self._top = compose_yaml(file)
        self._pairs: dict[int, dict[str, tuple[yaml.Node, yaml.Node]]] = {}  # of each mapping, by its id

    def of(self, key: Sequence[str]) -> int:
        """Return the line of a key, or of the nearest one above it that the file spells out."""
        node, line = self._top, 1
        for part in key:
            found = self._pairs_of(node).get(part)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        return line

    def _pairs_of(self, node: yaml.Node | None) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            return {}
        if id(node) not in self._pairs:
            pairs = [(key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)]
            self._pairs[id(node)] = {key.value: (key, value) for key, value in reversed(pairs)}  # the first counts
        return self._pairs[id(node)]

    def repeated(self) -> Iterator[tuple[int, str, int]]:
        """Yield (line, key, line of the first) of every key that its mapping has twice."""
        todo, seen = [self._top], set()
        while todo:
            node = todo.pop()
            if id(node) in seen or not isinstance(node, yaml.CollectionNode):
                continue
            seen.add(id(node))
            if isinstance(node, yaml.SequenceNode):
                todo += node.value
                continue
            first: dict[str, int] = {}
            for key, value in node.value:
                todo.append(value)
                line = key.start_mark.line + 1
                if isinstance(key, yaml.ScalarNode) and first.setdefault(key.value, line) != line:
                    yield line, key.value, first[key.value]
