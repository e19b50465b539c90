"""A shell command as bash reads it: its statements, its simple commands and their words.

tree-sitter's grammar of bash parses it; nothing is run. What a value becomes in it is the matter of :mod:`.quoting`.
"""

from __future__ import annotations

import functools
import itertools
import re
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mlflow_projects.project import interpreters

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

# What may stand around a word or around its quotes.
STRUCTURE = frozenset(
    (
        "program", "list", "pipeline", "command", "command_name", "redirected_statement", "file_redirect", "subshell",
        "compound_statement", "if_statement", "elif_clause", "else_clause", "while_statement", "for_statement",
        "do_group", "case_statement", "case_item", "function_definition", "negated_command", "variable_assignment",
        "variable_assignments", "declaration_command", "array", "concatenation", "string", "translated_string",
        "command_substitution", "process_substitution", "herestring_redirect", "heredoc_redirect", "test_command",
        "binary_expression", "unary_expression", "parenthesized_expression", "c_style_for_statement",
    )
)  # fmt: skip
PLAIN_DECLARATION = re.compile(r"(export|readonly|local|declare|typeset)(\s+-[rxgl]+)*\s+[^-\s]")
# Begins the words that stand for values while a command is judged.
MARK = "mlflowvalue"
_ARITHMETIC = ("-eq", "-ne", "-lt", "-le", "-gt", "-ge")
OF_NAMES = ("-v", "-R")  # which read a subscript as code, also in [ … ]
# Of bash itself (its manual, "Shell Builtin Commands"), all that may read their words as code, names or numbers; of
# eval, trap and source it is the script, or the file, that counts.
BUILTINS = frozenset(
    (
        "alias", "bg", "bind", "builtin", "caller", "command", "compgen", "complete", "compopt", "coproc", "declare",
        "disown", "enable", "exec", "export", "fc", "fg", "getopts", "hash", "help", "history", "jobs", "let",
        "local", "logout", "mapfile", "read", "readarray", "readonly", "set", "shopt", "suspend", "typeset", "ulimit",
        "unalias", "unset", "wait",
    )
)  # fmt: skip
WORDS = ("word", "number", "extglob_pattern")
# How words are written, which a value may change; all other nodes must stay.
_WRITING = frozenset(
    (
        "concatenation", "string", "string_content", "raw_string", "translated_string", "word", "number", "regex",
        "extglob_pattern", "heredoc_body", "heredoc_content", "simple_expansion", "variable_name",
    )
)  # fmt: skip
_DOCUMENT = re.compile(r"(?<![<(\d])<<(-?)[ \t]*(?:('[^'\n]*'|\"[^\"\n]*\")|([\\\w.-]+))")
_CONTINUED_END = re.compile(r"(?<!\\)(\\\n\s*)+\Z")
# What is judged. The grammar takes time by the square for some of what it cannot read (16 KiB of "a | ": seconds),
# and our questions do for the words of a command and the commands of a script.
_MAX_UNQUOTED = 16 * 1024  # characters outside of quotes
_MAX_WORK = 30_000  # marks times nodes of a command
_MAX_LENGTH = 256 * 1024  # characters, those in quotes too: what Linux takes, and the marks
_MAX_NODES = 40_000  # each apostrophe of a value is five
_MAX_DEPTH = 200
_MAX_COMMANDS = 200
_MAX_WORDS = 300  # of one command
_QUOTED = re.compile(r"'[^']*'|\"[^\"\\$`]*\"")


class TooComplexError(Exception):
    """A command is so long, or nested so deeply, that it is not judged; the text completes "it stands …"."""

    def __init__(self) -> None:
        super().__init__("in a command that is too long or nested too deeply to be judged")


def is_plain(value: str) -> bool:
    """Tell whether the shell does nothing special of any character of a value: it needs no quotes anywhere."""
    return shlex.quote(value) == value


def shape(command: str) -> list[str]:
    """Return what the shell sees in a command besides words, in its order, and the ends of its here-documents."""
    kinds = [node.type for node in walk(parse(command)) if node.is_named and node.type not in _WRITING]
    return [*kinds, *ending_lines(command)]


def ending_lines(command: str) -> list[str]:
    """Return the lines of a command that end a here-document."""
    ends = _ends_of_documents(command)
    return [line for line in command.split("\n") if line.strip() in ends]


def ends_otherwise(command: str) -> bool:
    """Tell whether a line that goes on in another moves the end of a here-document, which the grammar passes over."""
    ends = _ends_of_documents(command)
    lines = re.findall(r"(?:[^\n]*\\\n)+[^\n]*", command) if ends else []
    return any({line.replace("\\\n", "").strip(), line.rpartition("\n")[2].strip()} & ends for line in lines)


def _ends_of_documents(command: str) -> set[str]:
    return {(quoted or bare).strip("'\"").replace("\\", "") for _, quoted, bare in _DOCUMENT.findall(command)}


def commands(command: str) -> Iterator[tuple[list[str | None], bool]]:
    """Yield the words of each simple command, in the order of the text; None for one that only the shell knows.

    Of ``[ … ]`` and ``[[ … ]]`` it is only the first; one that writes a file has ``>`` as its first. With each comes
    whether the whole fails if it fails.
    """
    root = parse(command)
    statements = [child for child in root.named_children if child.type != "comment"]
    goes_on = len(statements) > 1 and not re.match(r"set\s+-\w*e", text_of(statements[0]))  # after a failure
    goes_on = goes_on or any(child.type == "&" for child in root.children)
    for node in walk(root):
        if node.type == "command":
            writes = node.parent is not None and any(map(writes_file, node.parent.children))
            yield [*([">"] if writes else []), *statics(node)], not goes_on and all(map(_joins, around(node)))
        elif node.type == "test_command":
            yield ["["], False


def _joins(node: Node) -> bool:
    """Tell whether a node fails as soon as one of its commands does."""
    if node.type == "list":
        return all(child.type == "&&" for child in node.children if not child.is_named)
    return node.type in ("program", "redirected_statement")


def takes_arguments(command: str) -> bool:
    """Tell whether words that are added to the end of a command are arguments of its last program."""
    mark = "mlflowargument"
    added = f"{command} {mark}"
    root = parse(added)
    start = len(added.encode()) - len(mark)
    node = root.descendant_for_byte_range(start, start + len(mark))
    if root.has_error or node is None:  # then nothing can be told, and MLflow adds them
        return parse(command).has_error and not re.search(r"<<|#", command)
    parents = [outer.type for outer in around(node)]
    if node.type not in WORDS or parents[0] not in ("command", "file_redirect", "declaration_command"):
        return False
    owner = next((outer for outer in around(node) if outer.type == "command"), None)
    words = statics(owner) if owner else []
    return interpreters.program_of(words) not in interpreters.READ_WORDS  # which would make shell of them


def words_of(command: Node) -> list[Node]:
    """Return the words of a simple command; some may stand behind a redirection (``bash >log -c x``)."""
    words = [*command.children_by_field_name("name"), *command.children_by_field_name("argument")]
    if command.parent is None or command.parent.type != "redirected_statement":
        return words
    for redirect in command.parent.children_by_field_name("redirect"):
        words += words_behind(redirect)
    return words


def words_behind(redirect: Node) -> list[Node]:
    """Return the words of a command that stand behind a redirection."""
    destinations = redirect.children_by_field_name("destination")
    is_closed = any(child.type.endswith("&-") for child in redirect.children)  # ">&-" has no destination
    return [*redirect.children_by_field_name("argument"), *destinations[not is_closed :]]


@functools.lru_cache(maxsize=256)  # asked for each place of a script
def statics(command: Node) -> list[str | None]:
    """Return the words of a simple command, None for one that only the shell knows.

    Of a program in a folder that only the shell knows (``"$HOME/bin/python"``) the name is known.
    """
    nodes = words_of(command)
    words = [static(node) for node in nodes]
    if words and words[0] is None and (found := re.search(r"/([\w.-]+)\"?$", text_of(nodes[0]))):
        words[0] = f"?/{found[1]}"
    return words


def commands_in(node: Node) -> Iterator[Node]:
    """Yield the simple commands of a node, but for those in a here-document, whose arithmetic looks like some."""
    for found in walk(node):
        if found.type == "command":
            outside = itertools.takewhile(lambda outer: outer != node, around(found))
            if not any(outer.type == "heredoc_body" for outer in outside):
                yield found


def functions_in(node: Node) -> dict[str, Node]:
    """Return the functions of the script that a node is part of, by name."""
    return {
        text_of(name): found
        for found in walk(root_of(node))
        if found.type == "function_definition" and (name := found.child_by_field_name("name"))
    }


def runs_input(node: Node) -> bool:
    """Tell whether one of a node's commands runs what it reads from its input."""
    functions = functions_in(node)
    commands = [*commands_in(node)]
    if any(interpreters.program_of(statics(command)) in functions for command in commands):  # which read it too
        commands += [found for body in functions.values() for found in commands_in(body)]
    return any(interpreters.runs_input(statics(command), functions) for command in commands)


def writes_file(redirect: Node) -> bool:
    """Tell whether a node sends output to a file."""
    return redirect.type == "file_redirect" and bool(re.match(r"\d*(&>|>)", text_of(redirect)))


def is_read_twice(redirect: Node) -> bool:
    """Tell whether a node is a redirection such as ``>&``, of which the shell expands the name twice."""
    return redirect.type == "file_redirect" and bool(re.match(r"\d*[<>]&", text_of(redirect)))


def is_literal(redirect: Node) -> bool:
    """Tell whether nothing is expanded in a here-document: its end stands in quotes."""
    start = next((text_of(child) for child in redirect.children if child.type == "heredoc_start"), "")
    return bool(set(start) & set("\"'\\"))


def is_literal_body(body: Node) -> bool:
    """Tell whether nothing is expanded in the body of a here-document."""
    return body.parent is not None and is_literal(body.parent)


def is_arithmetic(expression: Node) -> bool:
    """Tell whether a part of a test reads its words as arithmetic, or as names; ``[ … ]`` does only the latter."""
    operators = {text_of(child) for child in expression.children}
    test = next((outer for outer in around(expression) if outer.type == "test_command"), None)
    is_double = test is None or text_of(test).startswith("[[")
    return bool(operators & set(OF_NAMES)) or (is_double and bool(operators & set(_ARITHMETIC)))


def is_in_document(command: str, mark: str) -> bool:
    """Tell whether a mark stands in a line of a here-document, read without the grammar, which loses some."""
    ends: list[tuple[str, bool]] = []
    for line in command.split("\n"):
        if ends:
            end, is_indented = ends[0]
            if (line.lstrip("\t") if is_indented else line) == end:
                ends.pop(0)
            elif mark in line:
                return True
            continue
        for dash, quoted, bare in _DOCUMENT.findall(line):
            ends.append(((quoted or bare).strip("'\"").replace("\\", ""), bool(dash)))
    return False


def static(node: Node) -> str | None:
    """Return the word that the shell makes of a node; None if it depends on more than the text."""
    text = text_of(node)
    if node.type in ("command_name", "concatenation"):
        parts = [static(child) for child in node.children]
        return None if None in parts else "".join(part or "" for part in parts)
    if node.type == "raw_string":
        return text[1:-1]
    if node.type in WORDS:
        return None if re.search(r"[*?\[~]|\{[^{}]*[,.]", text) else re.sub(r"\\(.)", r"\1", text.replace("\\\n", ""))
    if node.type == "string" and all(child.type in ("string_content", '"') for child in node.children):
        return re.sub(r'\\([$`"\\])', r"\1", text[1:-1].replace("\\\n", "")) if "`" not in text else None
    return None


def is_escaped(before: bytes) -> bool:
    """Tell whether what follows a text stands behind a backslash that counts."""
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 1


def text_of(node: Node) -> str:
    """Return the text of a node."""
    return (node.text or b"").decode()


def around(node: Node) -> Iterator[Node]:
    """Yield what stands around a node, from the inside."""
    while node.parent is not None:
        node = node.parent
        yield node


def root_of(node: Node) -> Node:
    """Return the whole script that a node is part of."""
    return [node, *around(node)][-1]


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and all that it holds, in the order of the text."""
    todo = [node]  # no recursion: a long list of commands is as deep as it is long
    while todo:
        found = todo.pop()
        yield found
        todo += reversed(found.children)


@functools.cache
def _parser() -> Parser:
    import tree_sitter_bash
    from tree_sitter import Language, Parser

    return Parser(Language(tree_sitter_bash.language()))


def _is_too_complex(root: Node) -> bool:
    """Tell whether a tree is beyond the limits."""
    if root.descendant_count > _MAX_NODES:
        return True
    cursor, seen = root.walk(), 0
    while True:
        if cursor.depth > _MAX_DEPTH:
            return True
        if cursor.node is not None and cursor.node.type in ("command", "test_command"):
            seen += 1
            if seen > _MAX_COMMANDS or cursor.node.child_count > _MAX_WORDS:
                return True
        if cursor.goto_first_child() or cursor.goto_next_sibling():
            continue
        while cursor.goto_parent():
            if cursor.goto_next_sibling():
                break
        else:
            return False


def parse_marked(command: str, marks: int) -> Node:
    """Return the tree of a command in which so many marks are judged, each by a look at all nodes.

    :raises TooComplexError: it is beyond the limits
    """
    root = parse(command)
    if root.descendant_count * marks > _MAX_WORK:
        raise TooComplexError
    return root


@functools.lru_cache(maxsize=8)  # asked for again by each question
def parse(command: str) -> Node:
    """Return the tree of a command.

    :raises TooComplexError: it is beyond the limits
    """
    if len(command) > _MAX_LENGTH or len(_QUOTED.sub("", command)) > _MAX_UNQUOTED:
        raise TooComplexError
    # A block command may end with a line that goes on nowhere, which the grammar takes for an error.
    end = len(command.rstrip("\\ \t\n\r\f\v"))
    command = command[:end] + _CONTINUED_END.sub(lambda found: " " * len(found.group()), command[end:])
    if is_escaped(command.encode("utf-8", "replace")):  # the last character is a backslash, which stands for itself
        command = f"{command[:-1]}x"
    root = _parser().parse(command.encode("utf-8", "replace")).root_node
    if _is_too_complex(root):
        raise TooComplexError
    return root
