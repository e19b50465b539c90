"""Whether a script reads as code what one of its variables, or a file that it writes, holds.

A value that is safe where it stands may come to such a place later: ``A={x}; [[ $A -gt 5 ]]`` runs the commands in a
value like ``a[$(…)]``, and ``A={x}; bash -c "show $A"`` any. A file is a variable here, named by a slash and its name
without the folder.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Container, Iterator, Mapping
from typing import TYPE_CHECKING

from mlflow_projects.project import interpreters
from mlflow_projects.project.shell_syntax import (
    around,
    commands_in,
    functions_in,
    is_literal,
    is_read_twice,
    parse,
    root_of,
    runs_input,
    static,
    statics,
    text_of,
    walk,
    words_of,
    writes_file,
)

if TYPE_CHECKING:
    from tree_sitter import Node

_ARITHMETIC = ("-eq", "-ne", "-lt", "-le", "-gt", "-ge")
_OF_NAMES = ("-v", "-R")  # which read a subscript as code, also in [ … ]
_ARGUMENTS = frozenset("0123456789@*")  # of a function, of a script or of "set"
_CODE_FILE = re.compile(r".*\.(py|sh|bash|R|r|sql|pl|rb|js|jl|lua|mk)|(GNU)?[Mm]akefile")
_RENAMES = ("cp", "install", "ln", "mv")
_WRITES_TEXT = ("echo", "printf", "cat", "tee", "sed", "awk", "envsubst", "tr", "cut", "head", "tail", "sort", "grep")
# The shell, or what it starts, runs what these hold.
_RUN = frozenset(
    (
        "BASH_ENV", "ENV", "PS4", "PROMPT_COMMAND", "IFS", "LD_PRELOAD", "GIT_SSH_COMMAND", "GIT_SSH", "GIT_EDITOR",
        "GIT_PAGER", "PAGER", "EDITOR", "VISUAL", "RSYNC_RSH", "PYTHONSTARTUP", "PERL5OPT", "RUBYOPT", "NODE_OPTIONS",
    )
)  # fmt: skip

_once = functools.lru_cache(maxsize=4)  # the same for each place of a script


def is_read_as_code(root: Node, node: Node) -> bool:
    """Tell whether what stands at a node of a script comes into a variable that the script reads as code."""
    names = _holders(root, node)
    return bool(names & _RUN) or (bool(names) and not names.isdisjoint(_code_names(root)))


def is_run_as_file(root: Node, node: Node) -> bool:
    """Tell whether what stands at a node of a script is written, as text, to a file of code or one that is run."""
    written = {name[1:] for name in _holders(root, node) if name.startswith("/")}
    return _are_code(root, written, {outer.id for outer in around(node)})


@_once
def _holders(root: Node, node: Node) -> set[str]:
    """Return the variables and files of a script that hold what stands at a node, by the end of the script."""
    names = {*_variables_of(node), *(f"/{file}" for file in _files_of(node))}
    if not names:
        return names
    known, (has_arguments, assignments) = 0, _assigned(root)
    if has_arguments:
        names |= _ARGUMENTS
    while known < len(names):  # what is set from them holds them too
        known = len(names)
        names |= {name for name, sources in assignments if names & sources}
    return names


@_once
def _assigned(root: Node) -> tuple[bool, list[tuple[str, set[str]]]]:
    """Return whether a script sets its arguments, and each variable and file that it sets with its sources."""
    commands = [found for found in walk(root) if found.type == "command"]
    sets = functions_in(root) or any(_program(found) == "set" or _gives_arguments(found) for found in commands)
    return bool(sets), [(name, _names_in(text)) for name, text in _assignments(root)]


@_once
def _code_names(root: Node) -> set[str]:
    """Return the variables and files that a script reads as code."""
    return set().union(*map(_names_in, _read_as_code(root)))


@_once
def _commands_and_readers(root: Node) -> tuple[list[list[str | None]], list[tuple[int, str]]]:
    """Return the words of a script's commands, and id and text of each statement that runs what it reads."""
    commands = [statics(found) for found in walk(root) if found.type == "command"]
    statements = [found for found in walk(root) if found.type in ("redirected_statement", "pipeline")]
    return commands, [(found.id, text_of(found)) for found in statements if runs_input(found)]


def _files_of(node: Node) -> Iterator[str]:
    """Yield the files to which what stands at a node is written."""
    for outer in around(node):
        if outer.type in ("redirected_statement", "pipeline"):
            yield from _written_by(outer)


def _are_code(root: Node, written: set[str], writers: Container[int]) -> bool:
    """Tell whether one of the files that a script writes is a file of code, or run by it.

    :param writers: ids of the statements that write them
    """
    if not written:
        return False
    commands, readers = _commands_and_readers(root)
    read = " ".join(text for found, text in readers if found not in writers)
    return any(
        _CODE_FILE.fullmatch(file)
        or file in read
        or any(interpreters.runs_file_named(words, file) for words in commands)
        for file in written
    )


def is_arithmetic(expression: Node) -> bool:
    """Tell whether a part of a test reads its words as arithmetic, or as names; ``[ … ]`` does only the latter."""
    operators = {text_of(child) for child in expression.children}
    test = next((outer for outer in around(expression) if outer.type == "test_command"), None)
    is_double = test is None or text_of(test).startswith("[[")
    return bool(operators & set(_OF_NAMES)) or (is_double and bool(operators & set(_ARITHMETIC)))


def _written_by(statement: Node) -> Iterator[str]:
    """Yield the names of the files to which a statement writes text, without their folders."""
    if not any(_program(found) in _WRITES_TEXT for found in commands_in(statement)):
        return
    for found in walk(statement):
        if writes_file(found):
            for destination in found.children_by_field_name("destination")[:1]:
                yield interpreters.name_of(static(destination)) or "?"
        elif found.type == "command" and _program(found) == "tee":
            yield from (interpreters.name_of(word) for word in statics(found)[1:] if word and word[0] != "-")


def _variables_of(node: Node) -> Iterator[str]:
    """Yield the variables that hold what stands at a node."""
    functions, inner = functions_in(node), node
    for outer in around(node):
        is_value = inner in outer.children_by_field_name("value")
        if outer.type == "file_redirect" and inner.type != "process_substitution":
            return  # a file's name
        if outer.type == "variable_assignment" or (outer.type == "for_statement" and is_value):
            yield _name(outer)
        elif outer.type == "binary_expression" and "=~" in map(text_of, outer.children):
            yield "BASH_REMATCH"
        elif outer.type == "command" and inner in words_of(outer):
            yield from _set_by(outer, words_of(outer).index(inner), functions)
        elif outer.type == "pipeline":
            for child in outer.children:
                if child.start_byte >= inner.end_byte:
                    yield from _read_in(child)
        elif outer.type == "redirected_statement" and inner != outer.child_by_field_name("body"):
            yield from _read_in(outer)
        elif outer.type in ("herestring_redirect", "heredoc_redirect"):
            yield from _read_in(outer.parent or outer)
        inner = outer


def _set_by(command: Node, at: int, functions: Mapping[str, Node]) -> Iterator[str]:
    """Yield the variables that a command sets to one of its words."""
    words = statics(command)
    program = interpreters.program_of(words)
    if program == "cd":
        yield from ("PWD", "OLDPWD")
    is_argument = any(interpreters.is_script(words, index) for index in range(1, at))
    if is_argument or program in ("set", ".", "source"):
        yield from _ARGUMENTS
    elif program in functions:
        is_shifted = any(_program(found) == "shift" for body in functions.values() for found in commands_in(body))
        yield from _ARGUMENTS if is_shifted else (str(at), "@", "*")
    if setting := re.match(r"(\w+)=", text_of(words_of(command)[at]).lstrip("\"'")):  # env A=…, docker run -e A=…
        yield setting[1]


def _read_in(statement: Node) -> Iterator[str]:
    """Yield the variables that ``read`` sets in a statement."""
    for found in walk(statement):
        if found.type == "command" and _program(found) in interpreters.READ:
            yield from (word for word in statics(found)[1:] if word and word.isidentifier())
            yield from ("REPLY", "MAPFILE")


def _assignments(root: Node) -> Iterator[tuple[str, str]]:
    """Yield each variable that is set, with the text of what it is set to."""
    for found in walk(root):
        text = text_of(found)
        if found.type in ("variable_assignment", "for_statement"):
            for value in found.children_by_field_name("value"):
                yield _name(found), text_of(value)
        elif found.type == "expansion" and (default := re.match(r"\$\{(\w+):?=(.*)\}", text, re.DOTALL)):
            yield default[1], default[2]
        elif found.type == "binary_expression" and "=~" in text:
            yield "BASH_REMATCH", text
        elif found.type == "redirected_statement":
            redirects = " ".join(map(text_of, found.children_by_field_name("redirect")))
            yield from ((name, redirects) for name in _read_in(found))
            yield from ((f"/{file}", _with_exported(found)) for file in _written_by(found))
        elif found.type == "pipeline":
            sources = " ".join(map(text_of, found.named_children[:-1]))
            yield from ((name, sources) for name in _read_in(found.named_children[-1]))
            yield from ((f"/{file}", _with_exported(found)) for file in _written_by(found))
        elif found.type == "command":
            if "<<<" in text:
                yield from ((name, text) for name in _read_in(found))
            if _program(found) == "getopts":
                yield "OPTARG", "$@ $1"
            elif _program(found) == "cd":
                yield "PWD", text
            elif _program(found) in _RENAMES:
                yield f"/{interpreters.name_of(statics(found)[-1])}", text


def _gives_arguments(command: Node) -> bool:
    """Tell whether a command is a shell's script with arguments."""
    words = statics(command)
    return any(interpreters.is_script(words, at) for at in range(1, len(words) - 1))


def _read_as_code(root: Node) -> Iterator[str]:
    """Yield the parts of a script in which bash, or a program that it starts, reads variables as code."""
    for node in walk(root):
        text = text_of(node)
        if node.type == "arithmetic_expansion" or text.startswith("(("):
            yield text
        elif node.type == "c_style_for_statement":
            for field in ("initializer", "condition", "update"):
                yield from map(text_of, node.children_by_field_name(field))
        elif node.type in ("binary_expression", "unary_expression"):
            if is_arithmetic(node):
                yield text
        elif node.type == "subscript":
            yield from map(text_of, node.children_by_field_name("index"))
        elif node.type == "expansion":
            if offsets := re.match(r"\$\{[\w@*]+(?:\[[^]]*\])?:([^-+=?].*)\}", text, re.DOTALL):
                yield offsets[1]
            elif re.match(r"\$\{!|\$\{[\w@*]+(\[[^]]*\])?@", text):
                yield text
        elif node.type == "declaration_command":
            kinds = {child.type for child in node.named_children}
            if kinds - {"variable_assignment", "variable_name", "word"} or re.match(r"\w+\s+-\w*[in]", text):
                yield text
        elif is_read_twice(node):
            yield text
        elif node.type == "command":
            yield from _read_by_command(node)


def _read_by_command(command: Node) -> Iterator[str]:
    nodes, words = words_of(command), statics(command)
    functions, is_let = functions_in(command), interpreters.program_of(words) == "let"
    if words and words[0] is None and not text_of(nodes[0]).startswith('"'):  # it is split into words
        yield text_of(nodes[0])
    statements = [node for node in around(command) if node.type in ("pipeline", "redirected_statement")]
    if interpreters.runs_input(words, functions):
        readers = list(map(_with_exported, statements))
        yield from readers or ([text_of(command)] if "<<" in text_of(command) else [])
    root = root_of(command)
    if statements and _are_code(root, {*_written_by(statements[0])}, {statements[0].id}):
        yield _expanded_text(statements[0])
    if interpreters.may_be_made(words):
        yield f"{text_of(command)} {_exported(root)}"
    is_data = interpreters.takes_data(words, functions)
    unsplit = len(words) if interpreters.reads_options(words) else interpreters.program_index(words) + 1
    for at, (node, word) in enumerate(zip(nodes, words, strict=True)):
        if at == 0:
            continue
        if interpreters.is_script(words, at):
            yield from [text_of(node)] if word is None else _read_as_code(parse(word))
        elif (word is None or is_let) and (
            interpreters.reads_words(words, at)
            or interpreters.may_be_code(words, at)
            or (not is_data and re.search(r"\s", text_of(node)))
            or (at < unsplit and not text_of(node).startswith('"'))  # it is split into words
        ):
            yield text_of(node)


def _expanded_text(statement: Node) -> str:
    """Return the text of a statement without here-documents in which nothing is expanded."""
    text = text_of(statement)
    for found in walk(statement):
        if found.type == "heredoc_redirect" and is_literal(found):
            for body in (child for child in found.children if child.type == "heredoc_body"):
                text = text.replace(text_of(body), "")
    return text


def _with_exported(statement: Node) -> str:
    """Return :func:`_expanded_text`, and what is exported if one of its programs puts that into its output."""
    reads = any(_program(found) == "envsubst" for found in commands_in(statement))
    return f"{_expanded_text(statement)} {_exported(root_of(statement)) if reads else ''}"


def _exported(root: Node) -> str:
    return " ".join(text_of(found) for found in walk(root) if re.match("(export|declare -x) ", text_of(found)))


def _program(command: Node) -> str:
    return interpreters.program_of(statics(command))


def _name(node: Node) -> str:
    found = node.child_by_field_name("name") or node.child_by_field_name("variable")
    return re.sub(r"\W.*", "", text_of(found), flags=re.DOTALL) if found else ""


def _names_in(text: str) -> set[str]:
    variables = {name.lstrip("${!") for name in re.findall(r"[A-Za-z_]\w*|\$\{?!?[\d@*]", text)}
    return variables | {f"/{word}" for word in re.findall(r"[\w.%+@,:-]+", text)}
