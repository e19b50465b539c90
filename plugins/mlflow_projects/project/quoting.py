"""Where in a shell command a value is to stand, and how it is written there so that it can never become shell.

MLflow quotes each value for a place outside of quotes. Inside of quotes, in a here-document or in another shell's
script this is wrong: ``"{value}"`` lets ``$(touch x)`` run. Here the command is parsed (by tree-sitter's grammar of
bash) with a mark at each place, and what stands around the mark tells how to write the value. A place that is not
surely understood takes no value but one of which the shell does nothing special.
"""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow_projects.project import interpreters, shell_and_python
from mlflow_projects.project.shell_misreading import why_misread
from mlflow_projects.project.shell_safety import is_misused, why_unsafe
from mlflow_projects.project.shell_syntax import (
    MARK,
    PLAIN_DECLARATION,
    STRUCTURE,
    WORDS,
    TooComplexError,
    around,
    functions_in,
    is_arithmetic,
    is_escaped,
    is_in_document,
    is_literal,
    is_plain,
    is_read_twice,
    parse_marked,
    runs_input,
    shape,
    statics,
    text_of,
    walk,
    words_of,
)

if TYPE_CHECKING:
    from tree_sitter import Node

_EXPANDED = ("\\", "$", "`")  # in a here-document
# A command that cannot be parsed is safe if there is nothing in it but words.
_ONLY_WORDS = re.compile(r"[\w@%+=:,./\s{}-]*")


class PlaceError(Exception):
    """A value cannot be written safely at its place; the text completes "it stands …"."""


@dataclass(frozen=True)
class Place:
    """Where a mark stands.

    :param write: returns the text that stands for a value there; raises :class:`PlaceError`
    :param around: what ends and begins the quotes around it, where another word may stand between these
    :param quoted: whether MLflow's quotes would be wrong there
    """

    write: Callable[[str], str]
    around: tuple[str, str] | None = None
    quoted: bool = True


class Marks:
    """What fills a parameter's places in a format with marks, another one in each."""

    def __init__(self) -> None:
        self.given: list[str] = []

    def __format__(self, spec: str) -> str:
        self.given.append(f"{MARK}{len(self.given)}z")
        return format(self.given[-1], spec)

    def __str__(self) -> str:
        return format(self)

    __repr__ = __str__


def places(command: str, marks: Sequence[str]) -> list[Place]:
    """Return where each mark stands.

    :param command: it holds each mark once
    :param marks: words of letters and digits, none of them a part of another
    """
    try:
        root, source = parse_marked(command, len(marks)), command.encode("utf-8", "replace")
    except TooComplexError as error:
        return [Place(functools.partial(_refuse, PlaceError(str(error))))] * len(marks)
    found = []
    for mark in marks:
        try:
            found.append(_place(root, source, mark))
        except (PlaceError, TooComplexError) as error:  # of a script inside of it
            found.append(Place(functools.partial(_refuse, PlaceError(str(error)))))
    return found


def _place(root: Node, source: bytes, mark: str) -> Place:
    start = source.index(mark.encode())
    node = root.descendant_for_byte_range(start, start + len(mark))
    before = source[:start]
    if node is None or root.has_error:
        if not _ONLY_WORDS.fullmatch(source.decode()):
            raise PlaceError("in a command that cannot be parsed")
        return Place(shlex.quote, ("", ""), quoted=False)
    if why := why_misread(root, node) or why_unsafe(root, mark):
        raise PlaceError(why)
    if node.type not in ("heredoc_body", "heredoc_content") and is_in_document(source.decode(), mark):
        raise PlaceError("in a here-document that cannot be read")  # the grammar takes it for a command
    above = list(around(node))
    if node.type == "comment":
        place = _in_comment(source, node)
    elif node.type == "variable_name" and above[0].type == "simple_expansion":  # written "${x}": a "$", then {x}
        node, above = above[0], above[1:]
        in_string = above[0].type == "string"
        place = _between('"', '"') if in_string else Place(_after_dollar)
        node, above = (above[0], above[1:]) if in_string else (node, above)
    elif node.type == "string_content":
        node, above, place = above[0], above[1:], _between('"', '"')
        if is_escaped(before):
            raise PlaceError("after a backslash")
    elif node.type == "raw_string":
        place = _between("'", "'")
    elif node.type in ("heredoc_body", "heredoc_content"):
        if node.type == "heredoc_content":
            node, above = above[0], above[1:]
        place = _in_document(above[0], node, before)
    elif node.type in WORDS:
        if is_escaped(before) or before.endswith(b"$"):
            raise PlaceError("after a backslash or a dollar sign")
        place = Place(shlex.quote, ("", ""), quoted=False)
    else:
        raise PlaceError("where the shell reads more than a word")
    for outer in above:
        place = _within(place, outer, node, mark)
        node = outer
    return place


def _within(place: Place, outer: Node, inner: Node, mark: str) -> Place:
    """Return what becomes of a place by what stands around it."""
    kind, text = outer.type, text_of(outer)
    if kind not in STRUCTURE or text.startswith("(("):
        raise PlaceError("where the shell reads more than a word")
    command = outer if kind == "command" else outer.parent and outer.parent.child_by_field_name("body")
    if command and command.type == "command" and (kind == "command" or inner in words_of(command)):
        return _in_command(place, command, inner, mark)
    if is_read_twice(outer):
        raise PlaceError("behind '>&'")
    if kind == "command_substitution" and text.startswith("`"):
        return Place(functools.partial(_between_backquotes, place))
    if kind in ("binary_expression", "unary_expression"):
        if is_arithmetic(outer) or (_operator(outer) == "=~" and inner == outer.child_by_field_name("right")):
            raise PlaceError("in an arithmetic expression or a pattern")
    elif kind == "c_style_for_statement":
        if inner != outer.child_by_field_name("body"):
            raise PlaceError("in an arithmetic expression or a pattern")
    elif kind == "declaration_command":
        if not PLAIN_DECLARATION.match(text) or inner.type != "variable_assignment":
            raise PlaceError("in a declaration")
    elif kind == "array" and text_of(inner).startswith("["):
        raise PlaceError("in a subscript")
    elif kind in ("variable_assignment", "function_definition", "for_statement"):
        if inner in (outer.child_by_field_name("name"), outer.child_by_field_name("variable")):
            raise PlaceError("in a name")
    elif kind == "process_substitution":
        above = list(around(outer))
        if any(interpreters.runs_file(statics(node)) for node in above if node.type == "command") or any(
            runs_input(node) for node in above if node.type == "redirected_statement"
        ):
            raise PlaceError("in what another program reads as its script")
    elif kind == "pipeline":
        after = [child for child in outer.children if child.start_byte >= inner.end_byte]
        if any(map(runs_input, after)):
            raise PlaceError("in what another program reads as its script")
    elif kind == "redirected_statement":
        if any(runs_input(node) for node in walk(outer) if node.type == "process_substitution"):
            raise PlaceError("in what another program reads as its script")
    elif kind in ("heredoc_redirect", "herestring_redirect") and inner.type not in ("pipeline", "command"):
        owner = outer.parent
        readers = [owner.child_by_field_name("body") or owner] if owner else []
        readers += [child for child in outer.named_children if child.type != "heredoc_body"]
        if any(map(runs_input, readers)):
            raise PlaceError("in what another program reads as its script")
    return place


def _in_command(place: Place, command: Node, inner: Node, mark: str) -> Place:
    """Return what becomes of a place in a command by what the command does with the word."""
    nodes = words_of(command)
    if inner not in nodes:  # a variable before it, or a redirection
        return place
    words = statics(command)
    at = nodes.index(inner)
    own = words[at]
    is_whole = own == mark
    is_substitution = inner.type in ("command_substitution", "process_substitution")
    is_known = own is not None and (own[:2] != "?/" or text_of(inner).startswith('"'))
    if not is_known and at <= interpreters.program_index(words) and re.search(r"[$`]", text_of(inner)):
        raise PlaceError("in words that become a command")
    if is_substitution and interpreters.opens_program(words, at):
        raise PlaceError("in words that become a command")
    if at == 0:
        return place
    if interpreters.is_script(words, at):  # a value that is the script itself is what the author wants to be run
        if is_whole:
            return place
        inside = _in_script(place, own, mark)
        is_found = "find" in map(shell_and_python.name_of, words)
        return Place(functools.partial(_no_found_name, inside)) if is_found else inside
    if interpreters.reads_words(words, at) or is_misused(command, at):
        raise PlaceError("in words that a shell, or another program, reads once more")
    if own is not None and (pattern := interpreters.commands_pattern(words, own.partition(mark)[0])):
        place = Place(functools.partial(_no_command, place, pattern), place.around, place.quoted)
    if is_whole and at < interpreters.program_index(words):
        return Place(functools.partial(_no_setting, place))
    if is_whole and not interpreters.may_be_made(words):
        return place
    if interpreters.hands_on_code(words, at):
        raise PlaceError("in words that another program may run")
    if own is not None and interpreters.ends_option(words, at, own.partition(mark)[0]):
        raise PlaceError("in the name of an option")
    if inner.type == "concatenation" and re.search(r"(?<!\$)\{", "".join(map(_unquoted, inner.children))):
        raise PlaceError("beside braces that the shell makes words of")
    # A program that is not known may run any text in quotes that is more than a word.
    is_text = not is_substitution and not is_plain((own or "\0").replace(mark, "x"))
    is_data = interpreters.takes_data(words, functions_in(command)) and at != interpreters.program_index(words)
    is_split = is_substitution and (interpreters.reads_options(words) or interpreters.starts_program(words, at))
    if (
        is_split
        or interpreters.may_be_code(words, at)
        or (is_text and not is_data and (place.quoted or re.search(r"\s", text_of(inner))))
        or (not is_data and (words[0] is None or any(re.fullmatch(r"-\w*c", word or "") for word in words[:at])))
        or (is_text and interpreters.runs_expressions(words))
        or (is_text and interpreters.reads_options(words) and text_of(inner).lstrip("\"'").startswith("--"))
    ):
        raise PlaceError("inside of a program's code")
    if (own or "").startswith(mark) and interpreters.opens_program(words, at):
        return Place(functools.partial(_no_option, place))
    return place


def _in_script(place: Place, script: str | None, mark: str) -> Place:
    if script is None:
        raise PlaceError("in a script that the shell puts together")
    inside = places(script, [mark])[0]

    def write(value: str) -> str:
        written = inside.write(value)
        try:
            is_changed = shape(script.replace(mark, written)) != shape(script)
        except TooComplexError as error:
            raise PlaceError(str(error)) from error
        if is_changed:
            raise PlaceError("where it would change the command")
        return place.write(written)

    return Place(write)


def _in_document(redirect: Node, body: Node, before: bytes) -> Place:
    literal = is_literal(redirect)
    start = next((text_of(child) for child in redirect.children if child.type == "heredoc_start"), "")
    if not re.fullmatch(r"(['\"]?)[\w.-]+\1|\\[\w.-]+", start):
        raise PlaceError("in a here-document whose end is not a plain word")
    if not literal and ("`" in text_of(body) or is_escaped(before) or before.endswith(b"$")):
        raise PlaceError("in a here-document, beside what the shell replaces")

    def write(value: str) -> str:
        if re.search(r"(^|\n)\t", value) and text_of(redirect).startswith("<<-"):
            raise PlaceError("in a here-document that loses the tabs of its lines")
        # In Shift_JIS, say, the last byte of "Á" and our backslash are one character.
        if not literal and (
            re.search(r"[^\0-\x7f][\\$`]", value) or (before[-1:] > b"\x7f" and value[:1] in _EXPANDED)
        ):
            raise PlaceError("in a here-document, where a sign of the shell follows a letter of more bytes than one")
        return value if literal else re.sub(r"[\\$`]", r"\\\g<0>", value)

    return Place(write)


def _in_comment(source: bytes, node: Node) -> Place:
    """Return the place in a line that is surely a comment and nothing else."""
    before = source[: node.start_byte].rstrip(b" \t")
    is_line = before[-1:] in (b"", b"\n") and not is_escaped(before[:-1])
    # Or bash may find another beginning or end: of a here-document, or of a substitution.
    if not is_line or b"<<" in source or any(outer.type.endswith("_substitution") for outer in around(node)):
        raise PlaceError("in a comment")

    def write(value: str) -> str:
        if "\n" in value:
            raise PlaceError("in a comment, which ends with its line")
        return shlex.quote(value)

    return Place(write, quoted=False)


def _between(end: str, begin: str) -> Place:
    return Place(lambda value: f"{end}{shlex.quote(value)}{begin}", (end, begin))


def _between_backquotes(place: Place, value: str) -> str:
    if set(value) & set("\\`'\"$\n"):
        raise PlaceError("between backquotes")
    return place.write(value)


def _after_dollar(value: str) -> str:
    if set(value) & set("\\'"):
        raise PlaceError("after a dollar sign")
    return shlex.quote(value)


def _no_option(place: Place, value: str) -> str:
    if value.startswith("-"):
        raise PlaceError("where it would be an option")
    return place.write(value)


def _no_command(place: Place, pattern: str, value: str) -> str:
    if re.match(pattern, value, re.DOTALL):
        raise PlaceError("where it would be a command")
    return place.write(value)


def _no_setting(place: Place, value: str) -> str:
    if "=" in value or re.search(r"(^|,)\s*-", value):  # mpirun -H host,-oProxyCommand…
        raise PlaceError("where it would be a setting or an option of the program's start")
    return place.write(value)


def _no_found_name(place: Place, value: str) -> str:
    if "{}" in value:
        raise PlaceError("where find writes a file's name instead of {}")
    return place.write(value)


def _unquoted(node: Node) -> str:
    return text_of(node) if node.type in WORDS else ""


def _refuse(error: PlaceError, value: str) -> str:  # noqa: ARG001
    raise error


def _operator(expression: Node) -> str:
    operator = expression.child_by_field_name("operator")
    return text_of(operator) if operator else ""
