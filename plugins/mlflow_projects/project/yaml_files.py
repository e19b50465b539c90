"""The files that a project's author wrote, read within limits: what is in them may be meant to stop the worker.

The limits are of size, of nodes and of depth, none of time: the same file is refused everywhere. An alias counts as
often as it stands for something, since that is what becomes of it. Whatever is within the limits is read as MLflow
reads it, by PyYAML's safe loader.
"""

from __future__ import annotations

import codecs
import os
import re
import stat
from pathlib import Path
from typing import Any

import yaml

from mlflow_projects.exceptions import ProjectError

# A thousand times what people write; more is no project, or a list that belongs into a file of data.
MAX_BYTES = 2**20
MAX_NODES = 50_000
MAX_DEPTH = 100
_MAX_BITS = 1000  # of a whole number
_MAX_SCALAR = 1000  # characters of a number or date; one of base 60 takes time by the square
_MAX_TAG = 200  # characters; a file names a tag's beginning once, and uses it often
_MAX_WHOLE_KEY = 15  # characters; of larger numbers many have one hash, so that a mapping of them takes hours
_SHORT = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp", "bool", "null"))
_WHOLE = "tag:yaml.org,2002:int"
_TOO_LONG = "a number has more than 300 digits; write it in quotes"
_MAX_PROBLEM = 300  # characters of a sentence's middle
_SURROGATE = re.compile("[\ud800-\udfff]")
# What PyYAML's constructors raise for a scalar that is none of its kind, such as the date 2020-99-99.
_NO_SCALAR = (ValueError, AttributeError, LookupError, ArithmeticError, TypeError)


class SpecError(ProjectError):
    """A file of a project, such as its MLproject file, that cannot be used.

    :param message: begins with the file's path
    :param key: where in the file, as keys from the top; empty for the file as a whole
    :param line: the line, counted from 1, if only the YAML parser knows it
    """

    def __init__(self, message: str, key: tuple[str, ...] = (), line: int | None = None) -> None:
        super().__init__(message)
        self.key = key
        self.line = line


def read_yaml(file: Path) -> dict[str, Any]:
    """Read an MLproject file, or the file of its environment.

    :raises SpecError: it cannot be read, is no YAML mapping, or is beyond the limits
    """
    content = _read(file, _Loader)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SpecError(f"{file}: the file must be a mapping, lines of 'key: value'.")
    return content


def read_yaml_texts(file: Path) -> Any:
    """Read a YAML file of which each scalar stays the text that is written there (``3.10``).

    :raises SpecError: as :func:`read_yaml`
    """
    return _read(file, _TextLoader)


def compose_yaml(file: Path) -> yaml.Node | None:
    """Return the nodes of a YAML file, which know their lines.

    :raises SpecError: as :func:`read_yaml`
    """
    node: yaml.Node | None = _read(file, _NodeLoader)
    return node


def read_text(file: Path, max_bytes: int = MAX_BYTES) -> str:
    """Return the text of a project's file; PowerShell's ``>`` writes UTF-16, with a mark at its beginning.

    :raises SpecError: it is no file, too large, or no UTF-8
    """
    try:
        content = read_bytes(file, max_bytes)
        is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if is_wide else "utf-8")
    except (OSError, ValueError) as error:
        remedy = "; save it as UTF-8" if isinstance(error, UnicodeDecodeError) else ""
        raise SpecError(f"{file} cannot be read: {error}{remedy}.") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")  # as Python reads text


def read_bytes(file: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """Return what is in a project's file; a device or pipe, which may never end, is not waited for.

    :raises SpecError: it is no file, or too large
    :raises OSError: it cannot be read
    :raises ValueError: no file can have this name
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise SpecError(f"{file} is no file but a folder, pipe or device; put a file of text there.")
        content = b""
        while state.st_size <= max_bytes >= len(content) and (more := os.read(descriptor, max_bytes + 1)):
            content += more
    finally:
        os.close(descriptor)
    if state.st_size > max_bytes or len(content) > max_bytes:
        raise SpecError(
            f"{file} has more than {max_bytes} bytes; at most so many are read. Move data into other files."
        )
    return content


class _TooMuchError(yaml.MarkedYAMLError):
    """A file beyond the limits."""


class _Limits(yaml.composer.Composer):
    """What composes nodes and counts them: as they are written, and as aliases and merge keys multiply them."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)  # type: ignore[call-arg]  # of the loader that it is mixed into
        self._level = 0
        self._composed = 0
        self._sizes: dict[yaml.Node, tuple[int, int, int]] = {}  # nodes, characters and levels of each node

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[attr-defined]
        mark = event.start_mark
        if len(getattr(event, "tag", None) or "") > _MAX_TAG:
            problem = f"a tag has more than {_MAX_TAG} characters; write a short one"
            raise yaml.constructor.ConstructorError(None, None, problem, mark)
        is_alias = self.check_event(yaml.AliasEvent)  # type: ignore[attr-defined]
        self._level += 1
        self._composed += 1
        self._check(mark, self._composed, 0, self._level)
        node = super().compose_node(parent, index)
        self._level -= 1
        if node is None or node in self._sizes:
            return node
        if is_alias:
            raise _TooMuchError(None, None, "an alias inside of what it stands for", mark)
        if isinstance(node, yaml.ScalarNode):
            size = (1, len(node.value), 1)
            if len(node.value) > _MAX_SCALAR and node.tag in _SHORT:
                raise yaml.constructor.ConstructorError(None, None, _TOO_LONG, mark)
        else:
            self._check_numbers(node)
            children = [child for item in node.value for child in (item if isinstance(item, tuple) else (item,))]
            nodes, characters, levels = zip((0, 0, 0), *(self._sizes[child] for child in children), strict=True)
            size = (1 + sum(nodes), sum(characters), 1 + max(levels))
        self._check(mark, *size)
        self._sizes[node] = size
        return node

    @staticmethod
    def _check_numbers(node: yaml.Node) -> None:
        """Refuse a mapping or list that is called a number, and keys that are large whole numbers."""
        if node.tag in _SHORT:  # PyYAML takes the value of its key "=", however long that is
            problem = f"a mapping or list is no {node.tag.rpartition(':')[2]}; write the value by itself"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key.tag == _WHOLE and len(key.value) > _MAX_WHOLE_KEY:
                problem = f"a whole number as a key has more than {_MAX_WHOLE_KEY} characters; write it in quotes"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)

    @staticmethod
    def _check(mark: Any, nodes: int, characters: int, levels: int) -> None:
        for found, most, what in (
            (nodes, MAX_NODES, "values, aliases and merged keys counted as often as they stand for something"),
            (characters, MAX_BYTES, "characters, aliases counted as often as they stand for something"),
            (levels, MAX_DEPTH, "levels of lists and mappings"),
        ):
            if found > most:
                raise _TooMuchError(None, None, f"more than {most} {what}", mark)


class _Loader(_Limits, yaml.SafeLoader):
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            made = super().construct_object(node, deep)
        except _NO_SCALAR as error:
            reason = f": {error}" if isinstance(error, (ValueError, ArithmeticError)) else ""
            kind = node.tag.rpartition(":")[2]
            problem = f"{str(node.value)[:50]!r} is no {kind}{reason}; write what is no number or date in quotes"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error
        if isinstance(made, str) and _SURROGATE.search(made):
            problem = f"{made[:100]!r} holds half a character; write it as it is, not as \\ud83d\\ude00"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        if isinstance(made, int) and made.bit_length() > _MAX_BITS:
            raise yaml.constructor.ConstructorError(None, None, _TOO_LONG, node.start_mark)
        return made


class _TextLoader(_Limits, yaml.BaseLoader):
    pass


class _NodeLoader(_Loader):
    def get_single_data(self) -> yaml.Node | None:
        return self.get_single_node()


def _read(file: Path, loader: type[_Loader] | type[_TextLoader]) -> Any:
    text = read_text(file)
    try:
        reader = loader(text)
        try:
            return reader.get_single_data()
        finally:
            reader.dispose()
    except yaml.YAMLError as error:
        raise _spec_error(file, text, error) from error


def _spec_error(file: Path, text: str, error: yaml.YAMLError) -> SpecError:
    # A quote or bracket that has no end is noticed lines later; where it begins is in the context.
    began = str(getattr(error, "context", "")).startswith(("while scanning", "while parsing a flow"))
    mark = (began and getattr(error, "context_mark", None)) or getattr(error, "problem_mark", None)
    line = mark.line + 1 if mark else None
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
    where = f"{file}:{line}" if line else str(file)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    if len(problem) > _MAX_PROBLEM:  # it repeats what is in the file; the remedy stands at its end
        problem = f"{problem[: _MAX_PROBLEM - 100]}…{problem[-100:]}"
    if isinstance(error, _TooMuchError):
        return SpecError(f"{where}: the file holds {problem}; put data into other files.", line=line)
    remedy = "" if "; write" in problem else "; mend this line"
    return SpecError(f"{where}: not valid YAML ({problem}){remedy}.", line=line)
