"""Where values of plain characters come into the code of a program, and whether they are data there.

Of the shell they need no judgement: it does nothing special of them, in any quotes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from mlflow_projects.project import interpreters
from mlflow_projects.project.code_values import is_data
from mlflow_projects.project.shell_and_python import SHELL
from mlflow_projects.project.shell_safety import is_kept, scripts_in
from mlflow_projects.project.shell_syntax import (
    TooComplexError,
    around,
    commands_in,
    parse,
    parse_marked,
    root_of,
    static,
    statics,
    text_of,
    walk,
    words_of,
)

if TYPE_CHECKING:
    from tree_sitter import Node

_OTHERS = "perl|ruby|node|lua|julia|Rscript|php|octave|gnuplot|matlab|[gmn]?awk|g?sed"  # than Python
_INTERPRETERS = re.compile(
    rf"\b(?:({_OTHERS}|nodejs|luajit|R)[\d.]*"
    r"|(?:i?python|pypy)[\d.]*(?=(?:\s[^;&]{0,500})?\s-\w*c))(?![\w-])"
)
_PYTHON = re.compile(r"\b(i?python|pypy)")
_READ = re.compile(r"[|<]|timeit|pdb|python -m")  # by which code comes to Python besides "-c"
_NAMES = re.compile(rf"\b(?:({_OTHERS})|i?python|pypy)[\d.]*(?![\w-])")
# Options with a value that is no code: a module, a setting.
_SETTING = re.compile(r"-(?!-)\w*[FMmd]\S*|--(?!eval|expression|print|source)[\w-]+=?\S*")
_SUBSTITUTION = re.compile(r"\$\(([^()'\"`\\]*)\)")
_VARIABLE = re.compile(r"\$(\w+|[@*]|\{[^{}]*\})")


def refused(command: str, values: Mapping[str, str]) -> str | None:
    """Return a mark whose value a program may read as more than data; None if there is none.

    :param values: the plain value at each mark in the command
    """
    if not values or not (_INTERPRETERS.search(command) or (_PYTHON.search(command) and _READ.search(command))):
        return None
    try:
        root = parse_marked(command, len(values))
        codes = {mark: [*_codes(root, mark)] for mark in values}
    except TooComplexError:
        codes = {mark: [*_codes_of_lines(command, mark)] for mark in values}
    for mark, value in values.items():
        others = "|".join(other for other in values if other != mark) or r"(?!)"
        for name, code in codes[mark]:
            if not is_data(name, re.sub(others, "1", code), mark, value):
                return mark
    return None


def _codes(root: Node, mark: str) -> Iterator[tuple[str, str]]:
    """Yield (program, its code) with the mark in it, for each code that a value at the mark may be a part of."""
    is_found = not root.has_error
    for command in walk(root):
        if command.type != "command":
            continue
        for at, node in enumerate(words_of(command)):
            text = _text(node, mark)
            is_found = is_found or (mark in text and not command.has_error)
            if mark in text and text != mark:
                yield from _codes_of_word(command, at, text)
                for script in _scripts_of_word(_words(command, at, text), at, mark):
                    yield from _codes(parse(script), mark)
    if not is_found:
        yield from _codes_of_lines(text_of(root), mark)
    start = root.start_byte + (root.text or b"").index(mark.encode())
    yield from _codes_of_input(root.descendant_for_byte_range(start, start + len(mark)) or root, mark)
    if is_kept(root, mark):
        for found in scripts_in(root):
            for command in commands_in(found):
                yield from _codes_with_variables(command, mark)


def _codes_of_lines(command: str, mark: str) -> Iterator[tuple[str, str]]:
    """Yield the same for a command that is not understood: the value may be anywhere in the code of its line."""
    for line in command.replace("\\\n", " ").split("\n"):
        if mark in line:
            yield from ((found[1] or "python", f";{mark};") for found in _INTERPRETERS.finditer(line))


def _codes_of_word(command: Node, at: int, text: str) -> Iterator[tuple[str, str]]:
    """Yield the same for a word of a command.

    :param text: what the word holds
    """
    words = _words(command, at, text)
    is_setting = bool(_SETTING.fullmatch(text)) or words[at - 1] in ("-d", "--define")
    names = interpreters.interpreters_of(words, at)
    if at and words[interpreters.program_index(words)] is None:  # "$PERL -e …": any that the script names
        is_option = re.fullmatch(r"-\w*[ceEpr]|--\w+", words[at - 1] or "")
        found = [name[1] or "python" for name in _NAMES.finditer(text_of(root_of(command)))]
        names = [name for name in found if is_option or (words[at - 1] is None and re.search("sed|awk", name))]
    for name in names:
        if not (is_setting and re.match("perl|php|node", name)):
            yield name, text


def _scripts_of_word(words: list[str | None], at: int, mark: str) -> Iterator[str]:
    """Yield what a shell may read when it gets a word of a command, or all of them."""
    text = words[at] or ""
    is_code = bool(interpreters.interpreters_of(words, at))
    if interpreters.is_script(words, at) or (not is_code and re.search(r"\s", text) and _INTERPRETERS.search(text)):
        yield text
    if interpreters.reads_words(words, at):
        yield " ".join(word or mark for word in words[1:])


def _codes_of_input(node: Node, mark: str) -> Iterator[tuple[str, str]]:
    """Yield the same for programs that read what stands at the mark as their code."""
    text, inner = mark, node
    for outer in around(node):
        readers: list[Node] = []
        if inner.type == "heredoc_body":
            text = text_of(inner)
        elif outer.type == "command" and inner in words_of(outer) and text == mark:
            text = " ".join(_text(word, mark) for word in words_of(outer)[1:])
        if outer.type == "pipeline":
            readers = [child for child in outer.children if child.start_byte >= inner.end_byte]
        elif outer.type in ("heredoc_redirect", "herestring_redirect") and outer.parent:
            readers = [outer.parent.child_by_field_name("body") or outer.parent]
            readers += [child for child in outer.named_children if child != inner and child.type != "heredoc_body"]
        elif outer.type == "process_substitution":
            readers = [found for found in around(outer) if found.type in ("command", "redirected_statement")]
        for command in (found for reader in readers for found in commands_in(reader)):
            words = _words(command)
            name = interpreters.program_of(words)
            runs = interpreters.runs_file(words) if outer.type == "process_substitution" else False
            if interpreters.is_interpreter(name) and (runs or interpreters.runs_input(words)):
                if not SHELL.fullmatch(name):
                    yield name, text
                elif text != mark:
                    yield from _codes(parse(text), mark)
        inner = outer


def _codes_with_variables(command: Node, mark: str) -> Iterator[tuple[str, str]]:
    """Yield the same for a value that may be in any variable."""
    for at, node in enumerate(words_of(command)):
        if static(node) is None:
            text = _text(node, mark)
            for found in _VARIABLE.finditer(text):
                yield from _codes_of_word(command, at, text[: found.start()] + mark + text[found.end() :])


def _words(command: Node, at: int = -1, text: str = "") -> list[str | None]:
    """Return the words of a command, None for one that only the shell knows; a file's name may hold variables.

    :param at: which of the words holds the text
    """
    words: list[str | None] = []
    for node in words_of(command):
        found = text_of(node).strip('"')
        words.append(found if re.fullmatch(r"[\w$./{}-]+\.\w+", found) else static(node))
    words[:1] = statics(command)[:1]  # "$HOME/bin/perl"
    return [text if index == at else word for index, word in enumerate(words)]


def _text(node: Node, mark: str) -> str:
    """Return what a word holds, with the shell's variables as they are written."""
    known = static(node)
    if known is not None:
        return known
    parts = node.children if node.type in ("command_name", "concatenation") else [node]
    text = "".join(_unquoted(part) for part in parts)
    return _SUBSTITUTION.sub(lambda found: mark if mark in found[1] else "1", text)


def _unquoted(node: Node) -> str:
    known = static(node)
    text = text_of(node)
    if known is not None or node.type != "string":
        return text if known is None else known
    return re.sub(r'\\([$`"\\])', r"\1", text[1:-1])
