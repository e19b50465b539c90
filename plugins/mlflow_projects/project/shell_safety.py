"""Whether the shell may read a value a second time, as code, after it has come to its place.

A value that is safe where it stands may come to a place where it is not: ``A={x}; [[ $A -gt 5 ]]`` runs the commands
in a value like ``a[$(…)]``, and ``A={x}; bash -c "show $A"`` any. Where it goes is not followed. A value that the
script keeps, in a variable, in an argument of a function or in a file, is taken only if all of the script is plain:
nothing in it reads text as code, whatever text it is.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Collection, Container, Iterator
from typing import TYPE_CHECKING

from mlflow_projects.project import interpreters, shell_and_python
from mlflow_projects.project.shell_syntax import (
    BUILTINS,
    MARK,
    OF_NAMES,
    PLAIN_DECLARATION,
    STRUCTURE,
    around,
    commands_in,
    functions_in,
    is_arithmetic,
    is_literal_body,
    is_read_twice,
    parse,
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

_PLAIN_EXPANSION = re.compile(r"\$\{#?(\w+|[@*])(:?[-+=?][^$`]*|[#%/^,][^$`]*|:\d+(:\d+)?)?\}", re.DOTALL)
_PLAIN_NODES = (STRUCTURE - {"array", "process_substitution", "c_style_for_statement"}) | {
    "string_content", "raw_string", "heredoc_start", "heredoc_body", "heredoc_content", "heredoc_end",
    "test_operator", "word", "number", "extglob_pattern", "regex", "comment", "variable_name",
    "special_variable_name", "simple_expansion", "expansion", "file_descriptor",
}  # fmt: skip
# Variables that bash reads as code or as numbers (its manual, "Bash Variables"), and those of what it starts.
_SPECIAL = re.compile(
    r"_|BASH\w*|COMP_\w+|COMPREPLY|COPROC|DIRSTACK|ENV|EUID|FUNCN\w+|GROUPS|HIST\w+|IFS|IGNOREEOF|LINENO|MAILCHECK"
    r"|OPT(ARG|ERR|IND)|PATH|PIPESTATUS|PROMPT_COMMAND|PS[0-4]|RANDOM|SECONDS|SHELLOPTS|SRANDOM|TMOUT|EPOCH\w+"
    r"|MAIL\w*|LD_\w+|GIT_\w+|\w*PAGER|\w*EDITOR|VISUAL|RSYNC_RSH|PYTHON(STARTUP|INSPECT|BREAKPOINT)|PERL\w+|RUBY\w+"
    r"|NODE_OPTIONS|TAR_OPTIONS|ZIPOPT|\w*FLAGS|CMAKE_ARGS|PYTEST_ADDOPTS|LESS(OPEN|CLOSE)?|LUA_INIT\w*|(PY)?SPARK_\w+"
    r"|G?VIMINIT|EXINIT|BROWSER|CC|CXX|CPP|LDSHARED|ELIXIR_ERL_OPTIONS|FZF_DEFAULT_\w+|TF_CLI_ARGS\w*|ANSIBLE_\w+"
    r"|MAKE|TAR|MLFLOW_CONDA_\w+|\w+_OPTS|(SVN|CVS|BORG)_\w+|\w+_PASSWORD_COMMAND"
    r"|_?(JAVA|JDK|HADOOP|GUNICORN|CCACHE|PDSH|DASK|OMPI_MCA)_\w+|(CUDA|ROCM)_(HOME|PATH)|NVCC|CUDACXX|FC|F77|F90"
    r"|FLASK_APP|PARALLEL|GNUTERM|AIRFLOW__\w+_CMD|R_\w+CMD"
)
# Those that read a name as its variable's number.
_NUMBER = re.compile(r"EPOCH\w+|HISTCMD|LINENO|OPTIND|RANDOM|SECONDS|SRANDOM")
_NAME_AND_VALUE = re.compile(r"(?s)(?:.*\W)?[\"']?(\w+)(%%)?[\"']?\+?=")
_CODE_FILE = re.compile(
    r".*\.(py|ipynb|sh|bash|[Rr](md|nw)?|qmd|sql|p[lm]|rb|[cm]?[jt]sx?|jl|lua|mk|cmake|ninja|php|m|gp|tcl|awk|sed|jq|ex|exs"
    r"|groovy|gradle|java|scala|go|rs|[ch](pp|xx|c|u|h)?|cu|tf|smk|nf|j2|jinja2?)|(GNU)?[Mm]akefile|CMakeLists\.txt|\?"
    r"|\.(bashrc|bash_\w+|profile|zshrc|vimrc|gdbinit|gitconfig|pythonrc)|(\w+\.)?(Docker|Container|Rake|Snake|Just|just"
    r"|Proc|Vagrant|Jenkins|Brew)file(\.\w+)?|(docker-)?compose\.ya?ml|package\.json|dvc\.yaml|MLproject|pyproject\.toml"
    r"|setup\.cfg|tox\.ini|pytest\.ini|sitecustomize.*"
)
# They run commands, and templates of some, from files that they find by themselves.
_BUILDERS = frozenset(
    (
        "ansible-playbook", "dvc", "invoke", "just", "nextflow", "nox", "npm", "pnpm", "rake", "snakemake", "tox",
        "yarn",
    )
)  # fmt: skip
_RENAMES = ("cp", "install", "ln", "mv")
# What they write has names that are among their words.
_MAKE_NAMES = (
    *_RENAMES, "curl", "git", "gunzip", "gzip", "mkdir", "mktemp", "rsync", "split", "tar", "touch", "unzip", "wget",
    "zip",
)  # fmt: skip


def why_unsafe(root: Node, mark: str) -> str:
    """Return why a value at a mark in a script may be read as code although it is quoted; "" if it is not.

    The text completes "it stands …".
    """
    if is_kept(root, mark) and not _is_plain_script(root):
        return "in a variable, or in a file, of a command that may read it as code"
    return ""


def is_misused(command: Node, at: int) -> bool:
    """Tell whether one of bash's own commands may read one of its words as code or as a name."""
    words = statics(command)
    program, first = interpreters.program_of(words), interpreters.program_index(words) + 1
    if at < first:
        return False
    if program == "printf":
        return at == first or (words[first] or "-v").startswith("-v")
    if program in ("test", "["):
        return any(word in OF_NAMES for word in words) or (at > first and words[at - 1] is None)
    return program in BUILTINS


def is_kept(root: Node, mark: str) -> bool:
    """Tell whether a script keeps what stands at a mark: in a variable, a function's argument, or a file of text."""
    start = root.start_byte + (root.text or b"").index(mark.encode())
    node = root.descendant_for_byte_range(start, start + len(mark)) or root
    functions, inner = functions_in(node), node
    # "exec > file" sends all output of the script there.
    if any(found.type == "command" and statics(found)[-1:] == ["exec"] for found in walk(root)):
        return True
    for outer in around(node):
        if outer.type in ("function_definition", "file_redirect"):  # what it says goes anywhere; a file's name
            return True
        if outer.type in ("variable_assignment", "for_statement") and inner in outer.children_by_field_name("value"):
            return True
        if outer.type == "array" or (outer.type == "binary_expression" and "=~" in map(text_of, outer.children)):
            return True
        if outer.type == "command" and inner in words_of(outer):
            if _keeps_word(outer, words_of(outer).index(inner), functions, mark):
                return True
        elif outer.type == "pipeline":
            after = [child for child in outer.children if child.start_byte >= inner.end_byte]
            if any(_keeps_input(child, functions) for child in after):
                return True
        elif outer.type == "redirected_statement" and inner != outer.child_by_field_name("body"):
            if _keeps_input(outer, functions):
                return True
        elif outer.type in ("herestring_redirect", "heredoc_redirect") and _keeps_input(
            outer.parent or outer, functions
        ):
            return True
        if outer.type in ("redirected_statement", "pipeline") and any(_written_by(outer)):
            return True
        inner = outer
    return False


def _keeps_word(command: Node, at: int, functions: Collection[str], mark: str) -> bool:
    words = statics(command)
    script = words[at] if interpreters.is_script(words, at) else None
    if script and script != mark and (functions or is_kept(parse(script), mark)):
        return True  # what it calls may be these functions, and what it keeps, the script around it may read
    program = interpreters.program_of(words)
    if any(_written_by(command)):
        return True
    started = map(
        shell_and_python.name_of, words[: interpreters.program_index(words) + 1]
    )  # "timeout" may be a function
    if not set(started).isdisjoint(functions) or program in ("cd", "pushd", "set", ".", "source", *_MAKE_NAMES):
        return True
    if interpreters.names_program(words, at):
        return True
    # An argument of the script, or env A=…, docker run --env=A=…, of which a shell behind it reads A.
    shells = [i for i, word in enumerate(words) if shell_and_python.SHELL.fullmatch(shell_and_python.name_of(word))]
    if shells and ("=" in text_of(words_of(command)[at]) or interpreters.runs_input(words, functions)):
        return True
    return any(shell_and_python.script_index(words[i + 1 : at]) is not None for i in shells if i < at)


def _keeps_input(node: Node, functions: Container[str]) -> bool:
    for found in commands_in(node):
        program = _program(found)
        if program in interpreters.READ or program in functions or program == "eval" or "xargs" in statics(found):
            return True
        if shell_and_python.SHELL.fullmatch(program):  # its script may read it
            return True
    return False


@functools.lru_cache(maxsize=16)
def _is_plain_script(root: Node) -> bool:
    """Tell whether nothing in a script reads text as code, whatever its variables and files hold."""
    functions = functions_in(root)
    return all(_is_plain(found, functions) for found in walk(root) if found.is_named) and not _runs_written(root)


def _is_plain(node: Node, functions: Container[str]) -> bool:
    kind, text = node.type, text_of(node)
    if kind == "arithmetic_expansion":  # of numbers only
        return bool(re.fullmatch(r"\$\(\([\d\s+*/%()-]+\)\)", text))
    if kind not in _PLAIN_NODES or text.startswith("(("):
        return False
    if kind == "heredoc_body":  # the grammar does not look into it
        return is_literal_body(node) or not re.search(r"`|\$\(|\$\[|\$\{[^}]*[^\w}]", text)
    if kind == "expansion":
        return bool(_PLAIN_EXPANSION.fullmatch(text))
    if kind in ("binary_expression", "unary_expression"):
        return not is_arithmetic(node)
    if kind == "declaration_command":
        kinds = {child.type for child in node.named_children}
        return kinds <= {"variable_assignment", "variable_name", "word"} and bool(PLAIN_DECLARATION.match(text))
    if kind in ("variable_assignment", "for_statement"):
        name = node.child_by_field_name("name") or node.child_by_field_name("variable")
        if name is None or name.type != "variable_name":
            return False
        values = node.children_by_field_name("value")
        if _NUMBER.fullmatch(text_of(name)) and not all((static(value) or "x").isdecimal() for value in values):
            return False
        is_known = kind == "variable_assignment" and all(MARK not in (static(value) or MARK) for value in values)
        return is_known or not _SPECIAL.fullmatch(text_of(name))
    if kind == "file_redirect" and is_read_twice(node):
        return all(static(found) is not None for found in node.children_by_field_name("destination"))
    if kind == "test_command" and not text.startswith("[["):
        # "[ ! $A $B ]" may be any test, as "-v" in a variable makes it one of names.
        return not any(_is_split(found) for found in walk(node)) and not re.search(r"\s-[ao]\s", text)
    return kind != "command" or _is_plain_command(node, functions)


def _is_plain_command(command: Node, functions: Container[str]) -> bool:
    nodes, words = words_of(command), statics(command)
    program = interpreters.program_of(words)
    if not words:
        return True
    if words[0] is None or any(map(_is_split, walk(nodes[0]))) or not program or interpreters.may_be_made(words):
        return False
    if program in BUILTINS and program not in functions and not (program == "set" and None not in words):
        return False
    if (
        program in ("test", "[")
        and None in words[1:]
        and not (len(words) == 4 and words[2])
        and (len(words) != 3 or words[1] is None)
    ):
        return False
    if program in ("test", "[") and any(map(_is_split, nodes)):
        return False
    if program == "xargs" or "xargs" in words or (program == "printf" and any(map(_NUMBER.search, map(str, words)))):
        return False
    if interpreters.starts_commands(words) or (_has_input(command) and interpreters.runs_input(words, functions)):
        return False
    is_data = interpreters.takes_data(words, functions)
    for at, (node, word) in enumerate(zip(nodes, words, strict=True)):
        named = _NAME_AND_VALUE.match(text_of(node))
        if named and at and MARK in (word or MARK) and (named[2] or _SPECIAL.fullmatch(named[1])):
            return False
        # Code of a program that is not known to be none, which may read what is exported.
        is_code = not is_data or (interpreters.may_be_code(words, at) and not interpreters.starts_nothing(words, at))
        if at and set("$`") & set(word or "") and is_code and not interpreters.is_script(words, at):
            return False
        if at and interpreters.is_script(words, at):
            if word is None or not _is_plain_script(parse(word)) or (program == "find" and "{}" in word):
                return False
        elif (
            at
            and word is None
            and not (_is_plain_word(words, at, text_of(node), is_data=is_data) and not is_misused(command, at))
        ):
            return False
    return True


def _is_plain_word(words: shell_and_python.Words, at: int, text: str, *, is_data: bool) -> bool:
    """Tell whether a command's program takes a word that only the shell knows as data, and as one word."""
    is_one = text.startswith('"')
    if interpreters.reads_words(words, at) or interpreters.may_be_code(words, at):
        return False
    if not is_data or (not is_one and interpreters.starts_program(words, at)):
        return False
    if at <= interpreters.program_index(words):
        return is_one
    if interpreters.reads_options(words):  # nor is it an option
        return bool(re.match(r'"[^$`-]', text))
    return not interpreters.opens_program(words, at)


def _is_split(node: Node) -> bool:
    """Tell whether the shell makes words of a node: it is expanded outside of quotes."""
    is_expanded = node.type in ("simple_expansion", "expansion", "command_substitution")
    return is_expanded and not (node.parent is not None and node.parent.type == "string")


def _has_input(command: Node) -> bool:
    """Tell whether a command reads what the script gives it."""
    inner = command
    for outer in around(command):
        if outer.type == "pipeline" and inner != outer.named_children[0]:
            return True
        if outer.type in ("heredoc_redirect", "herestring_redirect"):
            return True
        if outer.type == "redirected_statement" and inner == outer.child_by_field_name("body"):
            redirects = outer.children_by_field_name("redirect")
            if any("<" in text_of(found)[:3] for found in redirects):
                return True
        inner = outer
    return "<<" in text_of(command)


def _runs_written(root: Node) -> bool:
    """Tell whether a script runs a file that it writes, or may do so."""
    scripts = list(scripts_in(root))
    written = {file for script in scripts for found in walk(script) for file in _written_by(found)}
    for found in itertools.chain.from_iterable(map(commands_in, scripts)):
        if _program(found) in _RENAMES:
            *sources, target = (shell_and_python.name_of(word) or "?" for word in statics(found)[1:] or ["?"])
            written.update(sources if target in (".", "..") else [target])
    if not written:
        return False
    if any(_program(found) in _BUILDERS for script in scripts for found in commands_in(script)):
        return True
    nodes = [found for script in scripts for found in walk(script)]
    commands = [statics(found) for found in nodes if found.type == "command"]
    readers = [text_of(found) for found in nodes if found.type in ("redirected_statement", "pipeline")
               and runs_input(found)]  # fmt: skip
    if "?" in written:
        return bool(readers) or any(map(_runs_any_file, commands))
    return any(
        _CODE_FILE.fullmatch(file)
        or any(file in text for text in readers)
        or any(interpreters.runs_file_named(words, file) for words in commands)
        or any(None in words and _runs_any_file(words) for words in commands)
        for file in written
    )


def scripts_in(root: Node) -> Iterator[Node]:
    """Yield a script, and those in its words."""
    yield root
    for found in walk(root):
        if found.type == "command":
            words = statics(found)
            for at, word in enumerate(words):
                if at and word and interpreters.is_script(words, at):
                    yield from scripts_in(parse(word))


def _runs_any_file(words: shell_and_python.Words) -> bool:
    program = interpreters.program_of(words)
    return program in ("source", ".") or interpreters.is_interpreter(program)


def _written_by(statement: Node) -> Iterator[str]:
    """Yield the names of the files to which a statement writes, without their folders; "?" if not known."""
    if statement.type not in ("redirected_statement", "pipeline", "function_definition", "command"):
        return
    for found in walk(statement):
        if writes_file(found):
            for destination in found.children_by_field_name("destination")[:1]:
                name = shell_and_python.name_of(static(destination)) or "?"
                if name != "null":  # /dev/null
                    yield name
        elif found.type == "command":
            yield from _written_by_program(_program(found), statics(found)[1:])


def _written_by_program(program: str, words: shell_and_python.Words) -> Iterator[str]:
    """Yield the names of the files to which a program writes what it is given."""
    if program in ("tee", "sort", "uniq", "pandoc"):
        names = (re.sub(r"-\w*o|--output=|-.*", "", word or "?", count=1) for word in words)
        yield from (shell_and_python.name_of(name) for name in names if name)
    elif program in _RENAMES and any(re.match(r"/dev/|/proc/", word or "") for word in words):
        yield shell_and_python.name_of(words[-1]) or "?"
    elif re.fullmatch(r"[gm]?awk|g?sed", program):  # print > "file", s/a/b/w file
        for word in words:
            yield from map(shell_and_python.name_of, re.findall(r"[>w]\s*\"?([\w./-]+)", word or ""))
    elif program == "find":  # -fprintf file "text"
        yield from (shell_and_python.name_of(name) or "?" for option, name in itertools.pairwise(words)
                    if (option or "").startswith(("-fprint", "-fls")))  # fmt: skip


def _program(command: Node) -> str:
    return interpreters.program_of(statics(command))
