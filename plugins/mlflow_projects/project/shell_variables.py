"""Whether a script reads as code what one of its variables holds.

A value that is safe where it stands may come to such a place later: ``A={x}; [[ $A -gt 5 ]]`` runs the commands in a
value like ``a[$(…)]``, and ``A={x}; bash -c "show $A"`` any.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mlflow_projects.project import interpreters
from mlflow_projects.project.shell_syntax import around, parse, static, text_of, walk, words_of

if TYPE_CHECKING:
    from tree_sitter import Node

ARITHMETIC = ("-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-v", "-R")
_ARGUMENTS = frozenset("123456789@*")  # of a function, of a script or of "set"
_READ = ("read", "mapfile", "readarray")
# The shell, or what it starts, runs what these hold.
_RUN = frozenset(("BASH_ENV", "ENV", "PS4", "PROMPT_COMMAND", "IFS", "PATH", "LD_PRELOAD"))


def is_read_as_code(root: Node, node: Node) -> bool:
    """Tell whether what stands at a node of a script comes into a variable that the script reads as code."""
    names = set(_variables_of(root, node))
    if not names:
        return False
    commands = [found for found in walk(root) if found.type == "command"]
    is_any = "" in names or any(_program(command) in _READ for command in commands)
    if any(found.type == "function_definition" for found in walk(root)):
        names |= _ARGUMENTS
    known = 0
    while known < len(names):  # what is set from them holds them too
        known = len(names)
        for name, value in _assignments(root):
            if names & _names_in(text_of(value)):
                names.add(name)
    return bool(names & _RUN) or any(
        found if is_any else found & names for found in map(_names_in, _read_as_code(root))
    )


def _variables_of(root: Node, node: Node) -> Iterator[str]:
    """Yield the variables that hold what stands at a node; "" if it may be any."""
    functions = {
        text_of(name)
        for found in walk(root)
        if found.type == "function_definition" and (name := found.child_by_field_name("name"))
    }
    has_read = any(found.type == "command" and _program(found) in _READ for found in walk(root))
    inner = node
    for outer in around(node):
        is_value = inner in outer.children_by_field_name("value")
        if outer.type == "variable_assignment" or (outer.type == "for_statement" and is_value):
            yield _name(outer)
        elif outer.type == "command" and inner in words_of(outer):
            before = [static(word) for word in words_of(outer)[: words_of(outer).index(inner)]]
            is_argument = any(interpreters.is_script(before, index) for index in range(1, len(before)))
            if is_argument or _program(outer) in {*functions, "set", ".", "source"}:
                yield ""
        elif (
            outer.type in ("pipeline", "redirected_statement", "herestring_redirect", "heredoc_redirect") and has_read
        ):
            yield ""
        inner = outer


def _assignments(root: Node) -> Iterator[tuple[str, Node]]:
    for found in walk(root):
        if found.type in ("variable_assignment", "for_statement"):
            for value in found.children_by_field_name("value"):
                yield _name(found), value


def _read_as_code(root: Node) -> Iterator[str]:
    """Yield the parts of a script in which bash, or a program that it starts, reads variables as code."""
    for node in walk(root):
        text = text_of(node)
        if node.type in ("arithmetic_expansion", "c_style_for_statement") or text.startswith("(("):
            yield text
        elif node.type in ("binary_expression", "unary_expression"):
            if any(text_of(child) in ARITHMETIC for child in node.children):
                yield text
        elif node.type == "subscript":
            yield from map(text_of, node.children_by_field_name("index"))
        elif node.type == "expansion":
            if re.match(r"\$\{!|\$\{\w+(@|:[^-+=?])", text):
                yield text
        elif node.type == "declaration_command":
            if re.match(r"\w+\s+-", text):
                yield text
        elif node.type == "command":
            yield from _read_by_command(node)


def _read_by_command(command: Node) -> Iterator[str]:
    nodes = words_of(command)
    words = [static(node) for node in nodes]
    program = _program(command)
    if words and words[0] is None:
        yield text_of(nodes[0])
    if interpreters.runs_input(words):
        readers = [text_of(node) for node in around(command) if node.type in ("pipeline", "redirected_statement")]
        yield from readers or [text_of(command)]
    if program in ("make", "gmake"):
        yield text_of(command)
    for at, (node, word) in enumerate(zip(nodes, words, strict=True)):
        if at == 0:
            continue
        if interpreters.is_script(words, at):
            yield from [text_of(node)] if word is None else _read_as_code(parse(word))
        elif (word is None or program == "let") and (
            interpreters.reads_words(words, at) or interpreters.may_be_code(words, at)
        ):
            yield text_of(node)


def _program(command: Node) -> str:
    words = [static(word) for word in words_of(command)]
    first = interpreters.program_index(words)
    return interpreters.name_of(words[first]) if first < len(words) else ""


def _name(node: Node) -> str:
    found = node.child_by_field_name("name") or node.child_by_field_name("variable")
    return re.sub(r"\W.*", "", text_of(found), flags=re.DOTALL) if found else ""


def _names_in(text: str) -> set[str]:
    return {name.lstrip("${!#") for name in re.findall(r"[A-Za-z_]\w*|\$\{?[!#]?[\d@*]", text)}
