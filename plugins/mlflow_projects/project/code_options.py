"""How the programs that run code besides shells and Python are told it: by which options and words."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

SCRIPT_FILE = re.compile(r".*\.(pl|pm|rb|[cm]?js|ts|[rR]|jl|lua|php|m|gp)", re.DOTALL)


@dataclass(frozen=True)
class Interpreter:
    """How a program is told its code.

    :param code: letters of the options after which code follows
    :param file: letters of the options after which the name of a file with code follows
    :param other: letters of the options after which anything else follows
    :param flags: letters of other options, which may stand before such a letter in one word
    :param values: how many words follow a long option that is none of code, if any do
    :param takes_first: whether its first word that is no option is code, unless an option gave it
    """

    code: str
    file: str = ""
    other: str = ""
    flags: str = ""
    values: Mapping[str, int] = field(default_factory=dict)
    takes_first: bool = False


INTERPRETERS = {
    re.compile(r"perl[\d.]*"): Interpreter("eEpFMm:"),  # -d:Name
    re.compile(r"(ruby|node|nodejs|lua|luajit|julia|R|Rscript)[\d.]*"): Interpreter("eEp"),
    re.compile(r"php[\d.]*"): Interpreter("rBREd"),
    re.compile(r"octave[\w.-]*|gnuplot|matlab"): Interpreter("erh"),  # matlab -r, -batch
    re.compile(r"[jxy]q"): Interpreter(
        "", file="f", other="L", takes_first=True, flags="a-zA-Z", values={
            "arg": 2, "argjson": 2, "slurpfile": 2, "rawfile": 2, "argfile": 2, "indent": 1, "library-path": 1,
        },
    ),
    re.compile(r"[gmn]?awk"): Interpreter(
        "e", file="fE", other="FvilW", takes_first=True, flags="bcChIkMnNOPrsStVuz", values={
            "assign": 1, "field-separator": 1, "include": 1, "load": 1, "file": 1,
        },
    ),
    re.compile(r"g?sed"): Interpreter(
        "e", file="f", other="l", takes_first=True, flags="nErsuzb", values={"line-length": 1, "file": 1},
    ),
}  # fmt: skip
_LONG = r"--(e[a-z]*|print|source|import|loader|test-reporter|run|process-\w+|define)\b"


def _long(*names: str) -> str:
    """Return a pattern of long options, which their programs take shortened too."""
    shortened = ("(".join(name) + ")?" * (len(name) - 1) for name in names)
    return rf"--({'|'.join(shortened)})(?==|\Z)"


# They give what follows some of their options to a shell.
RUN_OPTIONS = {
    "find": r"-(exec|ok)(dir)?$",
    "tar": r"-[a-zA-Z]*[IF]|" + _long(
        "use-compress-program", "to-command", "checkpoint-action", "info-script", "new-volume-script", "rsh-command",
        "rmt-command",
    ),
    "git": r"-[cuxO]|ext::|foreach\Z|--\w+-filter|" + _long(
        "exec", "upload-pack", "receive-pack", "open-files-in-pager", "extcmd", "config", "sendmail-cmd",
    ),
    "flock": r"-c|--command",
    "env": r"-[a-zA-Z0]*S|" + _long("split-string"),
    "split": _long("filter"),
    "sort": _long("compress-program"),
    "zip": r"-\w*TT|" + _long("unzip-command"),
}  # fmt: skip
# The same of programs whose other options are data.
CODE_OPTIONS = {
    "java": r"-XX:(On|Flags)",
    "spark-submit": r"--driver-java-options|.*JavaOptions",
    "gunicorn": r"[^-].*\(|[A-Za-z_][\w.]*:",
    "less": r"[-+]",
    "papermill": r"-[yb]|" + _long("parameters-yaml", "parameters-base64"),  # their names become code
    "accelerate": _long("command"),
    "mlflow": r"-P|--param-list",  # which it quotes as if no place of the other project were inside of quotes
    "hypercorn": r"[A-Za-z_][\w.]*:",
    "flask": r"(--app=|-A)?[A-Za-z_][\w.]*:",
    "cmake": r"-D",
    **dict.fromkeys(("c++", "cc", "clang", "clang++", "cpp", "g++", "gcc", "gfortran", "nvcc", "tcc"), r"-D"),
    "strace": r"-o|--output",
}
# The letters of their options that end with a value of their own.
VALUE_OPTIONS = {
    "awk": "Fv", "env": "Cu", "gawk": "Fv", "git": "CFbmn", "mawk": "Fv", "nawk": "Fv", "sed": "il", "sort": "STkot",
    "split": "Cablnt", "tar": "CTXbfg",
}  # fmt: skip
# They run a command that stands where they expect a name: what such a value looks like (vim: "+!command").
COMMAND_VALUES = {
    **dict.fromkeys(
        (
            "convert", "ed", "ex", "gvim", "identify", "less", "magick", "mogrify", "montage", "more", "nvim", "play",
            "rec", "sox", "soxi", "strace", "vi", "view", "vim",
        ), r"\s*([\w-]+:)?[!|+]",
    ),
    **dict.fromkeys(("flask", "gunicorn", "hypercorn"), r".*\("),  # module:function('word')
    "rclone": r":|[^/]*,.*:",  # :sftp,ssh='command':
}  # fmt: skip
# They take code from any of their words.
TAKE_CODE = re.compile(
    r"ansible[\w-]*|dc|emacs(client)?|(g|r)?(vi|vim|view|vimdiff)|nvim|ex|gdb|lftp|lldb|m4|nc|ncat|netcat|socat"
)
# The same, before the name of a file.
TAKE_FIRST_CODE = re.compile(
    r"bun|clisp|deno|elixir|erl|expect|ghc|groovy|guile|iex|ocaml|racket|raku|sbcl|scala|swipl|tclsh|ts-node|tsx|wish"
)
# Code that has its program's words or input run: by a shell, or as more code.
_STARTS = re.compile(r"\b(system|popen|spawn\w*|subprocess|exec\w*|eval)\b|\bqx\b")
_AWK_STARTS = re.compile(r"system|@|(?<!\|)\|(?!\||\s*\"(sort|uniq|cat|wc|head|column)\b[\w ,.-]*\")")
_MAX_CODE = 4096  # characters, of which it is told
_SED_PART = r"(?:(?!\1)[^\\]|\\.)*\1"
_SED_STARTS = re.compile(  # s/…/…/e, or the command e behind addresses
    rf"s([^\w\s]){_SED_PART}{_SED_PART}\w*e|(?:\A|[;{{}}\n])(?:[\d$~+,!\sIM]|/(?:[^/\\]|\\.)*/|\\(\S)(?:(?!\2)[^\\\n]|\\.)*\2)*e(?:[\s;}}]|\Z)"
)


@functools.lru_cache(maxsize=256)  # asked again for each word
def starts(name: str, code: str) -> bool:
    """Tell whether code of a program of that name has its words or its input run."""
    if len(code) > _MAX_CODE:
        return True
    if re.fullmatch(r"g?sed", name):
        return bool(_SED_STARTS.search(re.sub(r"\A(-[a-zA-Z]*?e|--\w+=)", "", code)))
    if re.fullmatch(r"[gmn]?awk", name):
        return bool(_AWK_STARTS.search(code))
    return bool(_STARTS.search(code)) or (bool(re.match("perl|ruby", name)) and bool(re.search("`|\\|[\"']", code)))


def interpreter(name: str) -> Interpreter | None:
    """Return how a program of that name is told its code; None if it is none of these."""
    return next((found for pattern, found in INTERPRETERS.items() if pattern.fullmatch(name)), None)


def is_loop(name: str, words: Sequence[str | None], start: int) -> bool:
    """Tell whether a program is perl, and the words behind its own make it a loop over the files that they name."""
    if not re.fullmatch(r"perl[\d.]*", name):
        return False
    texts = [word or "" for word in words[start + 1 :]]
    is_code = any(re.match(r"-(?!-)\w*[np]", text) for text in texts)
    return is_code and not any(map(SCRIPT_FILE.fullmatch, texts))


def code_indexes(interpreter: Interpreter, words: Sequence[str | None]) -> Iterator[int]:
    """Yield which of the words after such a program's name are code."""
    # sed and awk: flags without a value first; "-i.temp" has one.
    flags = f"[{interpreter.flags}]" if interpreter.flags else r"(?!-)[\w.]"
    code = re.compile(rf"-{flags}*[{interpreter.code}]|{_LONG}" if interpreter.code else r"(?!)")
    others = re.compile(rf"-{flags}*?[{interpreter.file + interpreter.other or '-'}]")
    is_given, index = not interpreter.takes_first, 0
    while index < len(words):
        word = words[index]
        if word is None:
            yield index
        elif found := code.match(word):
            is_given = True
            yield index
            if found.end() == len(word):
                index += 1
                yield index
        elif found := others.match(word):
            is_given = is_given or found[0][-1] in interpreter.file
            index += found.end() == len(word)
        elif word.startswith("--") and word != "--":
            counts = (count for name, count in interpreter.values.items() if name.startswith(word[2:]))
            index += max(counts, default=0)
        elif not word.startswith("-") or word == "-":
            if not is_given:
                yield index
            if not interpreter.takes_first and SCRIPT_FILE.fullmatch(word):
                return  # what follows are its arguments
            is_given = True
        index += 1
