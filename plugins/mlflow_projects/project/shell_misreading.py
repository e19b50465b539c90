"""Where bash may read a command in another way than the grammar that judges it.

There the judgement means nothing: a value is refused, wherever in the command it stands.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mlflow_projects.project import interpreters, shell_and_python
from mlflow_projects.project.shell_syntax import (
    BUILTINS,
    around,
    ends_otherwise,
    functions_in,
    is_arithmetic,
    statics,
    text_of,
    walk,
    words_behind,
    words_of,
)

if TYPE_CHECKING:
    from tree_sitter import Node

OWN_TEXT = re.compile(r"BASH_(COMMAND|EXECUTION_STRING)|/proc/\S*/cmdline")
_OWN = (".", "[", "cd", "eval", "printf", "pushd", "source", "test", "trap")
_CHANGE_WORDS = ("alias", "coproc", "enable")  # what is said behind them may mean something else
# Where the grammar takes one of these for a program, it has not understood the command ("time [[ … ]]", "! for …").
_RESERVED = frozenset(
    (
        "!", "[[", "case", "coproc", "do", "done", "elif", "else", "esac", "fi", "for", "function", "if", "in",
        "select", "then", "time", "until", "while", "{", "}",
    )
)  # fmt: skip


def why_misread(root: Node, node: Node) -> str:
    """Return why bash may read a script otherwise than it is judged; "" if it does not.

    The text completes "it stands …".

    :param node: where a value stands
    """
    for found in walk(root):
        if found.type == "ansi_c_string":
            return "in a command with $'…', which not every shell reads"
        if found.type == "command" and interpreters.program_of(statics(found)) in _CHANGE_WORDS:
            return f"in a command with {interpreters.program_of(statics(found))!r}"
        is_word = found.type == "file_descriptor" and not re.fullmatch(r"\d+|\{\w+\}", text_of(found))  # "-a2>f"
        if is_word or (found.type == "command" and _is_misunderstood(found)):
            return "in a command that cannot be parsed"
        if found.type == "command" and _may_be_own(found):
            return "in a command that may be one of the shell's own"
        if found.type == "command" and _makes_functions(statics(found)):
            return "in a command with functions that 'eval' makes"
        if found.type == "function_definition" and _is_called_otherwise(found):
            return "in a command with a function that is called by other names"
        if found.type == "command" and _links_input(statics(found)):
            return "in a command that gives its input another name"
        if found.type.endswith("_redirect") and _has_words_behind(found):
            return "in a command with words behind a redirection"
        if _reads_last_word(found):
            return "in a command with the variable '_', which holds the last word"
    script = text_of(root)
    for control in re.finditer(rb"[\0-\x08\x0b-\x1f\x7f]", script.encode()):
        at = root.descendant_for_byte_range(*control.span())
        if at is None or not _is_quoted(at):
            return "in a command with control characters"
    if ends_otherwise(script):
        return "in a command with a here-document whose end stands behind a backslash"
    if own := OWN_TEXT.search(script):
        return f"in a command that reads {own[0]!r}, its own text"
    if _is_behind_sign(root, script, node):
        return "behind a '#'"
    if any(_is_in_token(root, script, found.start()) for found in re.finditer(r"\\\n", script)):
        return "in a command that goes on in another line in the middle of a word"
    return ""


def _makes_functions(words: shell_and_python.Words) -> bool:
    return interpreters.program_of(words) == "eval" and any(
        re.search(r"\(\s*\)|function", word or "") for word in words
    )


def _is_called_otherwise(function: Node) -> bool:
    """Tell whether a function is called in place of programs: by a path, or for all that are not found."""
    name = function.child_by_field_name("name")
    return name is not None and bool(re.search(r"/|^command_not_found_handle$", text_of(name)))


def _links_input(words: shell_and_python.Words) -> bool:
    return interpreters.program_of(words) == "ln" and any(re.match(r"/(dev|proc)/", word or "") for word in words)


def _reads_last_word(node: Node) -> bool:
    """Tell whether a node reads the variable ``_``, by itself or as a number."""
    text = text_of(node)
    if node.type in ("simple_expansion", "expansion"):
        return bool(re.match(r"\$\{?[!#]?_(?!\w)", text))
    is_number = node.type in ("arithmetic_expansion", "subscript", "c_style_for_statement") or text.startswith("((")
    is_test = node.type in ("binary_expression", "unary_expression") and is_arithmetic(node)
    is_own = node.type == "declaration_command" or (
        node.type == "command" and interpreters.program_of(statics(node)) in BUILTINS
    )
    return (is_number or is_test or is_own) and bool(re.search(r"(?<!\w)_(?!\w)", text))


def _is_behind_sign(root: Node, script: str, node: Node) -> bool:
    """Tell whether a ``#`` stands before a node in its line, outside of quotes: the grammar and bash differ there."""
    source = script.encode()
    line = source.rfind(b"\n", 0, node.start_byte) + 1
    for found in re.finditer(rb"(?<![${])#", source[line : node.start_byte]):
        at = root.descendant_for_byte_range(line + found.start(), line + found.end())
        if at is None or not _is_quoted(at):
            return True
    return False


def _is_in_token(root: Node, script: str, at: int) -> bool:
    """Tell whether a line that ends with a backslash goes on within what the grammar takes for two words."""
    if script[at - 1 : at].strip() == "" or script[at + 2 : at + 3].strip() == "":
        return False
    byte = len(script[:at].encode())
    found = root.descendant_for_byte_range(byte, byte + 1)
    return found is None or not _is_quoted(found) or (found.type != "raw_string" and script[at - 1] == "$")


def _is_quoted(node: Node) -> bool:
    for found in (node, *around(node)):
        if found.type in ("string", "raw_string", "heredoc_body"):
            return True
        if found.type in ("command_substitution", "process_substitution"):
            return False
    return False


def _is_misunderstood(command: Node) -> bool:
    """Tell whether a simple command begins with what is none: a reserved word, or an assignment behind ``time``."""
    words = statics(command)
    own = [word for word in words if word not in ("-p", "--")]
    if own[:1] == ["time"]:
        return bool(own[1:]) and (
            own[1] is None or own[1] == "[" or own[1] in _RESERVED or "=" in own[1] or "[" in own[1]
        )
    return bool(own) and own[0] in _RESERVED


def _may_be_own(command: Node) -> bool:
    """Tell whether a command may be one of bash's own, as its first word holds variables that may be empty."""
    words = words_of(command)
    if not words or statics(command)[0] is not None:
        return False
    rest = re.sub(r"\$(\d|[A-Za-z_]\w*|\{[^}]*\}|\([^)]*\)|[@*#?$!-])|`[^`]*`|[\"']", "", text_of(words[0]))
    if not rest and functions_in(command):
        return True
    name = rest or next(iter(statics(command)[1:]), None) or ""
    return name in BUILTINS or name in _OWN or name in interpreters.READ_WORDS or (name in functions_in(command))


def _has_words_behind(redirect: Node) -> bool:
    """Tell whether words stand behind the redirection of a list: whose they are, the grammar does not know."""
    body = redirect.parent and redirect.parent.child_by_field_name("body")
    if body is None or body.type == "command":
        return False
    return bool(words_behind(redirect))
