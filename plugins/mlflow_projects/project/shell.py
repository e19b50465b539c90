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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

# What may stand around a word or around its quotes.
_KNOWN = frozenset(
    (
        "program", "list", "pipeline", "command", "command_name", "redirected_statement", "file_redirect", "subshell",
        "compound_statement", "if_statement", "elif_clause", "else_clause", "while_statement", "for_statement",
        "do_group", "case_statement", "case_item", "function_definition", "negated_command", "variable_assignment",
        "variable_assignments", "declaration_command", "array", "concatenation", "string", "translated_string",
        "command_substitution", "process_substitution", "herestring_redirect", "heredoc_redirect", "test_command",
        "binary_expression", "unary_expression", "parenthesized_expression",
    )
)  # fmt: skip
# The nodes that a value must not add.
_STATEMENTS = frozenset(
    (
        "command", "pipeline", "list", "redirected_statement", "file_redirect", "heredoc_redirect",
        "herestring_redirect", "subshell", "command_substitution", "process_substitution", "arithmetic_expansion",
        "expansion", "variable_assignment", "declaration_command", "test_command", "comment", "function_definition",
        "compound_statement", "ERROR",
    )
)  # fmt: skip
_WORDS = ("word", "number", "extglob_pattern")
_SHELL = re.compile(r"(ba|rba|da|z|k|mk|a)?sh")
# They run the program that their words name, after options, settings and numbers of their own.
_WRAPPERS = frozenset(
    (
        "builtin",
        "command",
        "exec",
        "env",
        "time",
        "timeout",
        "nohup",
        "nice",
        "ionice",
        "stdbuf",
        "xargs",
        "sudo",
        "setsid",
    )
)
PYTHON = re.compile(r"(python|pypy)[\d.]*")
# Other interpreters, and the letters of their options after which code follows.
_CODE = {
    re.compile(r"perl|ruby|node(js)?|lua|julia|R|Rscript"): "eEp",
    re.compile(r"php"): "r",
}
_OTHER_CODE = re.compile(r"[gmn]?awk|sed")  # among any of their words
# They give their words to a shell, here or elsewhere, or take them for names, each in a way of its own.
_READ_WORDS = frozenset(
    (
        "eval", "ssh", "su", "runuser", "script", "watch", "parallel", "at", "batch", "tmux", "screen", "let",
        "declare", "typeset", "read", "unset", "alias", "bind", "mapfile", "readarray", "complete", "compgen",
    )
)  # fmt: skip
_CONTINUED_END = re.compile(r"(?<!\\)(\\\n\s*)+\Z")
_READ_AFTER_V = ("test", "printf")
_ARITHMETIC = ("-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-v", "-R", "=~")


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


def is_plain(value: str) -> bool:
    """Tell whether the shell does nothing special of any character of a value: it needs no quotes anywhere."""
    return shlex.quote(value) == value


def places(command: str, marks: Sequence[str]) -> list[Place]:
    """Return where each mark stands.

    :param command: it holds each mark once
    :param marks: words of letters and digits, none of them a part of another
    """
    root, source = _parse(command), command.encode()
    found = []
    for mark in marks:
        try:
            found.append(_place(root, source, mark))
        except PlaceError as error:
            found.append(Place(functools.partial(_refuse, error)))
    return found


def shape(command: str) -> list[str]:
    """Return the statements and expansions that the shell sees in a command, in their order."""
    return [node.type for node in _walk(_parse(command)) if node.type in _STATEMENTS]


def commands(command: str) -> Iterator[tuple[list[str | None], bool]]:
    """Yield the words of each simple command, in the order of the text; None for one that only the shell knows.

    Of ``[ … ]`` and ``[[ … ]]`` it is only the first. With each comes whether the whole fails if it fails.
    """
    root = _parse(command)
    statements = [child for child in root.named_children if child.type != "comment"]
    goes_on = len(statements) > 1 and not re.match(r"set\s+-\w*e", _text(statements[0]))  # after a failure
    goes_on = goes_on or any(child.type == "&" for child in root.children)
    for node in _walk(root):
        if node.type == "command":
            yield [_static(word) for word in _words(node)], not goes_on and all(map(_joins, _above(node)))
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
    root = _parse(added)
    start = len(added.encode()) - len(mark)
    node = root.descendant_for_byte_range(start, start + len(mark))
    if root.has_error or node is None:  # then nothing can be told, and MLflow adds them
        return _parse(command).has_error and not re.search(r"<<|#", command)
    parents = [above.type for above in _above(node)]
    if node.type not in _WORDS or parents[0] not in ("command", "file_redirect", "declaration_command"):
        return False
    owner = next((above for above in _above(node) if above.type == "command"), None)
    words = [_static(word) for word in _words(owner)] if owner else []
    first = _program_index(words)
    return not words or _name(words[first]) not in _READ_WORDS  # which would make shell of them


def script_index(words: Sequence[str | None]) -> int | None:
    """Return which of the words after a shell's name is its script (``-c``); None if it has none."""
    index = _argument_index(words)
    found = any(re.fullmatch(r"-\w*c\w*", word or "") for word in words[:index])
    return index if found and index < len(words) else None


def first_argument(words: Sequence[str | None]) -> str | None:
    """Return the first of the words after a shell's name that is no option; None if none is, or it cannot be told."""
    return next(iter(words[_argument_index(words) :]), None)


def python_program(words: Sequence[str | None]) -> tuple[str, int] | None:
    """Return what Python runs: ("c" for code, "m" for a module or "file", which of the words after its name it is).

    None if that cannot be told, or nothing is run.
    """
    index = 0
    while index < len(words):
        word = words[index]
        if word is None or word in ("-V", "--version", "-h", "--help"):
            return None
        if option := re.match(r"-[a-zA-Z]*?([cmWX])(.?)", word, re.DOTALL):
            if option[1] in "cm":
                return option[1], index + (not option[2])
            index += not option[2]  # the value of -W or -X is a word of its own
        elif word == "-" or not word.startswith("-"):
            return "file", index
        index += 1 + (word == "--check-hash-based-pycs")
    return None


def _argument_index(words: Sequence[str | None]) -> int:
    index = 0
    while index < len(words):
        word = words[index]
        if word is None or word == "--" or not re.match(r"[-+].", word):
            break
        index += 1 + (word in ("--rcfile", "--init-file") or bool(re.fullmatch(r"[-+]\w*[oO]\w*", word)))
    return index + (list(words[index : index + 1]) == ["--"])


def _place(root: Node, source: bytes, mark: str) -> Place:
    start = source.index(mark.encode())
    node = root.descendant_for_byte_range(start, start + len(mark))
    before = source[:start]
    if node is None or root.has_error:
        if re.search(rb"[\"'`\\$<(#|]|\b(eval|trap|\w*sh)\b", source):
            raise PlaceError("in a command that cannot be parsed")
        return Place(shlex.quote, ("", ""), quoted=False)
    above = list(_above(node))
    if node.type == "comment":
        return Place(_in_comment)
    if node.type == "variable_name" and above[0].type == "simple_expansion":  # written "${x}": a "$", then {x}
        node, above = above[0], above[1:]
        in_string = above[0].type == "string"
        place = _between('"', '"') if in_string else Place(_after_dollar)
        node, above = (above[0], above[1:]) if in_string else (node, above)
    elif node.type == "string_content":
        node, above, place = above[0], above[1:], _between('"', '"')
        if _is_escaped(before):
            raise PlaceError("after a backslash")
    elif node.type in ("raw_string", "ansi_c_string"):
        place = _between("'", "'" if node.type == "raw_string" else "$'")
        if node.type == "ansi_c_string" and _is_escaped(before):
            raise PlaceError("after a backslash")
    elif node.type in ("heredoc_body", "heredoc_content"):
        if node.type == "heredoc_content":
            node, above = above[0], above[1:]
        place = _in_document(above[0], node, before)
    elif node.type in _WORDS:
        if _is_escaped(before) or before.endswith(b"$"):
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
    kind, text = outer.type, _text(outer)
    if kind not in _KNOWN or text.startswith("(("):
        raise PlaceError("where the shell reads more than a word")
    if kind == "command":
        return _in_command(place, outer, inner, mark)
    if kind == "command_substitution" and text.startswith("`"):
        return Place(functools.partial(_between_backquotes, place))
    if kind in ("binary_expression", "unary_expression"):
        if any(_text(child) in _ARITHMETIC for child in outer.children):
            raise PlaceError("in an arithmetic expression or a pattern")
    elif kind == "declaration_command":
        if not re.match(r"(export|readonly|local)\s+[^-\s]", text) or inner.type != "variable_assignment":
            raise PlaceError("in a declaration")
    elif kind == "array" and _text(inner).startswith("["):
        raise PlaceError("in a subscript")
    elif kind in ("variable_assignment", "function_definition", "for_statement"):
        if inner in (outer.child_by_field_name("name"), outer.child_by_field_name("variable")):
            raise PlaceError("in a name")
    elif kind == "process_substitution":
        above = list(_above(outer))
        if any(_runs(node) for node in above if node.type == "command") or any(
            _reads_script(node) for node in above if node.type == "redirected_statement"
        ):
            raise PlaceError("in what another program reads as its script")
    elif kind == "pipeline":
        after = [child for child in outer.children if child.start_byte >= inner.end_byte]
        if any(map(_reads_script, after)):
            raise PlaceError("in what another program reads as its script")
    elif kind == "redirected_statement":
        if any(_reads_script(node) for node in _walk(outer) if node.type == "process_substitution"):
            raise PlaceError("in what another program reads as its script")
    elif kind in ("heredoc_redirect", "herestring_redirect") and inner.type not in ("pipeline", "command"):
        owner = outer.parent
        readers = [owner.child_by_field_name("body") or owner] if owner else []
        if any(map(_reads_script, [*readers, *outer.named_children])):
            raise PlaceError("in what another program reads as its script")
    return place


def _in_command(place: Place, command: Node, inner: Node, mark: str) -> Place:
    """Return what becomes of a place in a command by what the command does with the word."""
    nodes = _words(command)
    if inner not in nodes:  # a variable before it, or a redirection
        return place
    words = [_static(node) for node in nodes]
    at = nodes.index(inner)
    first = _program_index(words[:at])
    name, own = _name(words[first] if first < at else None), words[at]
    is_whole = own == mark
    if at == 0:
        return place
    for position, word in enumerate(words[:at]):
        is_script = bool(_SHELL.fullmatch(_name(word))) and script_index(words[position + 1 :]) == at - position - 1
        if is_script or (name in ("eval", "trap") and at == first + 1 and (len(words) == at + 1 or name == "trap")):
            # A value that is the script itself is what the author wants to be run.
            return place if is_whole else _in_script(place, own, mark)
    if name in (*_READ_WORDS, "trap") or (name in _READ_AFTER_V and "-v" in words[:at]):
        raise PlaceError(f"in the words of '{name}'")
    if is_whole:
        return place
    is_code = any(
        _OTHER_CODE.fullmatch(_name(word)) or _is_code(words, at, start) for start, word in enumerate(words[:at])
    )
    # A program that only the shell knows may be an interpreter, and a word of more than plain characters its code.
    is_substitution = inner.type in ("command_substitution", "process_substitution")
    may_be_code = words[first] is None and not is_substitution and not is_plain((own or "\0").replace(mark, "x"))
    if is_code or may_be_code:
        raise PlaceError("inside of a program's code")
    return place


def _program_index(words: Sequence[str | None]) -> int:
    """Return which word names the program, behind those that run another one."""
    index = 0
    while index < len(words) and _name(words[index]) in _WRAPPERS:
        index += 1
        while index < len(words) and re.match(r"[-+]|\w+=|[\d.]+[smhd]?$", words[index] or ""):
            index += 1
    return index


def _is_code(words: Sequence[str | None], at: int, start: int) -> bool:
    """Tell whether a word of a command may hold code that the interpreter among the words before it runs."""
    name, own = _name(words[start]), words[at]
    letters = next((letters for interpreter, letters in _CODE.items() if interpreter.fullmatch(name)), "")
    if PYTHON.fullmatch(name):
        if program := python_program(words[start + 1 :]):
            return program == ("c", at - start - 1)
        letters = "c"
    if not letters:
        return False
    option = rf"-[a-zA-Z]*[{letters}]|--(eval|print)"
    return bool(
        re.fullmatch(option, words[at - 1] or "") or re.match(rf"-[a-zA-Z]*[{letters}].|--(eval|print)=", own or "-e")
    )


def _in_script(place: Place, script: str | None, mark: str) -> Place:
    if script is None:
        raise PlaceError("in a script that the shell puts together")
    inside = places(script, [mark])[0]

    def write(value: str) -> str:
        written = inside.write(value)
        if shape(script.replace(mark, written)) != shape(script):
            raise PlaceError("where it would change the command")
        return place.write(written)

    return Place(write)


def _in_document(redirect: Node, body: Node, before: bytes) -> Place:
    start = next(_text(child) for child in redirect.children if child.type == "heredoc_start")
    is_literal = bool(set(start) & set("\"'\\"))
    if not is_literal and ("`" in _text(body) or _is_escaped(before) or before.endswith(b"$")):
        raise PlaceError("in a here-document, beside what the shell replaces")

    def write(value: str) -> str:
        if re.search(r"(^|\n)\t", value) and _text(redirect).startswith("<<-"):
            raise PlaceError("in a here-document that loses the tabs of its lines")
        return value if is_literal else re.sub(r"[\\$`]", r"\\\g<0>", value)

    return Place(write)


def _between(end: str, begin: str) -> Place:
    return Place(lambda value: f"{end}{shlex.quote(value)}{begin}", (end, begin))


def _between_backquotes(place: Place, value: str) -> str:
    if set(value) & set("\\`'\"$\n"):
        raise PlaceError("between backquotes")
    return place.write(value)


def _in_comment(value: str) -> str:
    if "\n" in value:
        raise PlaceError("in a comment")
    return shlex.quote(value)


def _after_dollar(value: str) -> str:
    if set(value) & set("\\'"):
        raise PlaceError("after a dollar sign")
    return shlex.quote(value)


def _refuse(error: PlaceError, value: str) -> str:  # noqa: ARG001
    raise error


def _runs(command: Node) -> bool:
    """Tell whether a command may run what is in a file that it is given."""
    words = [_static(word) for word in _words(command)]
    first = _program_index(words)
    name = _name(words[first] if first < len(words) else None)
    return name in ("source", ".") or _is_interpreter(name)


def _is_interpreter(name: str) -> bool:
    return any(pattern.fullmatch(name) for pattern in (_SHELL, PYTHON, *_CODE))


def _reads_script(node: Node) -> bool:
    """Tell whether one of a node's commands runs what it reads from its input."""
    for found in _walk(node):
        if found.type != "command":
            continue
        words = [_static(word) for word in _words(found)]
        if "/dev/stdin" in words or ("-f" in words and "-" in words):
            return True
        for position, word in enumerate(words):
            name, rest = _name(word), words[position + 1 :]
            if _SHELL.fullmatch(name):
                index = _argument_index(rest)
                if script_index(rest) is None and (index >= len(rest) or rest[index] in (None, "-")):
                    return True
                if any(re.fullmatch(r"-\w*s\w*", option or "") for option in rest[:index]):
                    return True
            elif PYTHON.fullmatch(name):
                program = python_program(rest)
                if program is None or (program[0] == "file" and rest[program[1]] == "-"):
                    return True
            elif _is_interpreter(name) and all(word is None or word.startswith("-") for word in rest):
                return True
    return False


def _words(command: Node) -> list[Node]:
    return [*command.children_by_field_name("name"), *command.children_by_field_name("argument")]


def _static(node: Node) -> str | None:
    """Return the word that the shell makes of a node; None if it depends on more than the text."""
    text = _text(node)
    if node.type in ("command_name", "concatenation"):
        parts = [_static(child) for child in node.children]
        return None if None in parts else "".join(part or "" for part in parts)
    if node.type == "raw_string":
        return text[1:-1]
    if node.type in _WORDS:
        return None if re.search(r"[*?\[~]", text) else re.sub(r"\\(.)", r"\1", text.replace("\\\n", ""))
    if node.type == "string" and all(child.type in ("string_content", '"') for child in node.children):
        return re.sub(r'\\([$`"\\])', r"\1", text[1:-1].replace("\\\n", "")) if "`" not in text else None
    return None


def _name(word: str | None) -> str:
    return PurePath(word or "").name


def _is_escaped(before: bytes) -> bool:
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 1


def _text(node: Node) -> str:
    return (node.text or b"").decode()


def _above(node: Node) -> Iterator[Node]:
    while node.parent is not None:
        node = node.parent
        yield node


def _walk(node: Node) -> Iterator[Node]:
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


def _parse(command: str) -> Node:
    # A block command may end with a line that goes on nowhere, which the grammar takes for an error.
    command = _CONTINUED_END.sub(lambda end: " " * len(end.group()), command)
    if _is_escaped(command.encode("utf-8", "replace")):  # the last character is a backslash, which stands for itself
        command = f"{command[:-1]}_"
    return _parser().parse(command.encode("utf-8", "replace")).root_node
