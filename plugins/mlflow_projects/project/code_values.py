"""Which values of plain characters are data where they stand in the code of a program, such as ``perl -e "f({x})"``.

The shell does nothing special of such a value (letters, digits and ``@%+=:,./-_``), but the program reads it as part
of its code, where ``exec+chr+105`` is a call. So a value is taken

- in a string of the code, from which no plain character leads out;
- as a number, or as some with ``-``, ``:``, ``/`` or ``,`` between them;
- as a name, if names alone call nothing in that language;
- in a part of a substitution (``s/a/{x}/``), if it does not hold what ends that part;
- anywhere in code of jq, and of awk that starts nothing: plain characters start nothing there.

What is not surely a string is none.
"""

from __future__ import annotations

import functools
import io
import re
import tokenize

from mlflow_projects.project import code_options

_MAX_CODE = 4096  # characters; in more, nothing is known of a place
_NUMBER = r"[-+]?(?:0x[\da-fA-F]+|(?:\d[\d_]*(?:\.\d+)*\.?|\.\d+)(?:[eE][-+]?\d+)?)"
_NUMBERS = re.compile(rf"{_NUMBER}(?:[,:/+-]{_NUMBER})*")
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
# Languages in which a name is a function or a variable, and is called by what stands behind it.
_NAMES_CALL_NOTHING = re.compile(r"(i?python|pypy|node|nodejs|lua|luajit|julia|Rscript|R|[gmn]?awk)[\d.]*")
_PYTHON = re.compile(r"(i?python|pypy)[\d.]*")
_SAFE = re.compile(r"[jxy]q")
# What makes code of a string.
_EVALUATES = re.compile(
    r"\b(eval(in|c|q|bytes)?|feval|(instance|class|module)_eval|exec|Function|runIn\w+|include_string"
    r"|str2(func|lang|expression)|create_function|(load|do)string|(public_|__)?send(__)?)\b"
)
_EVALUATES_LUA = re.compile(r"\bload\b")
# Strings without escapes and without code in them. Elsewhere nothing that may begin a comment, a pattern or another
# kind of string; a quote behind a word may be an operator.
_ELSEWHERE = r"(?!--|\[=*\[|\?>|<(?!-)|\n=)[^'\"`\\#/%]"
_BEGIN = r"(?:\A|(?<=[(,=\[{:+;>\s]))"
_SINGLE, _DOUBLE = r"'[^'\\]*", r"\"[^\"\\$@#{`]*"
_IN_STRING = re.compile(rf"(?:{_ELSEWHERE}|{_BEGIN}{_SINGLE}'|{_BEGIN}{_DOUBLE}\")*{_BEGIN}(?:{_SINGLE}|{_DOUBLE})")
_PERLS_QUOTES = re.compile(r"(?<!\w)(q[qwxr]?|m|s|y|tr)(?!\w)|<")
_MATCH = re.compile(r"[^/'\"`#\\]*\b(if|unless|and|or|not)\s*\(?\s*!?\s*/[^/\\@#$({]*", re.DOTALL)
_MATLAB = re.compile(r"octave[\w.-]*|matlab|julia[\d.]*")
_TRANSPOSED = re.compile(r"[\w)\]}.]\s+'")  # an operator, perhaps


def _substitution(group: str, delimiter: str, pattern: str, text: str) -> tuple[str, str]:
    """Return patterns of ``s/…/…/`` and of its beginning, up to somewhere in one of the two parts.

    :param group: gets what matches the delimiter, for which ``END`` stands in the patterns of the parts
    """
    end = f"(?P={group})"
    begin = rf"s(?P<{group}>{delimiter}){pattern}"
    return (
        f"{begin}END{text}END".replace("END", end),
        f"{begin}(?P<{group}_text>END{text})?".replace("END", end),
    )


# perl: substitutions and nothing else, no variables and no code in them.
_PERLS_PART = r"(?:(?!END|\(\?)[^\\\n$@]|\$(?=END)|\\[^\n])*"
_PERLS_REST = r"(?:(?!END)[^\\\n]|\\[^\n])*END"
_PERLS_FLAGS = r"[gimsx]*\s*"
_PERLS_PLACE = re.compile(
    rf"\s*(?:{_substitution('whole', '[/|#,!:~]', _PERLS_PART, _PERLS_PART)[0]}{_PERLS_FLAGS};\s*)*"
    + _substitution("end", "[/|#,!:~]", _PERLS_PART, _PERLS_PART)[1]
)
# sed: whole commands, then a part of a substitution or an address, or a file's name or a text, which the line ends.
_SEDS_PATTERN = r"(?:(?!END)[^\\\n\[]|\\[^\n]|\[\^?\]?[^\]\\\n\[]*\])*"
_SEDS_TEXT = r"(?:(?!END)[^\\\n]|\\[^\n])*"
_SEDS_ENDS = {"/": "/", r"\\\|": r"\|", r"\\,": ",", r"\\#": "#"}
_SEDS_MATCHES = "|".join(rf"{begin}{_SEDS_PATTERN.replace('END', end)}{end}" for begin, end in _SEDS_ENDS.items())
_SEDS_LINE = rf"(?:\d+|\$|(?:{_SEDS_MATCHES})[IM]*)"
_SEDS_ADDRESS = rf"(?:{_SEDS_LINE}(?:,[+~]?{_SEDS_LINE})?\s*!?)?"
_SEDS_WHOLE = _substitution("whole", r"[^\w\s\\]", _SEDS_PATTERN, _SEDS_TEXT)[0]
_SEDS_BEGUN = _substitution("end", r"[^\w\s\\]", _SEDS_PATTERN, _SEDS_TEXT)[1]
_SEDS_PLACE = re.compile(
    rf"[\s;{{}}]*(?:{_SEDS_ADDRESS}(?:[dDgGhHlnNpPqQxz=]|{_SEDS_WHOLE}[gpiIm\d]*)[\s;{{}}]+)*"
    rf"(?:{_SEDS_ADDRESS}{_SEDS_BEGUN}|(?:{_SEDS_LINE},)?(?:(?=/)|\\)(?P<address>[/|,#])"
    rf"{_SEDS_PATTERN.replace('END', '(?P=address)')}"
    rf"|{_SEDS_ADDRESS}(?P<line>[rRwW]\s+[\w./-]*|[aic]\s[^\\\n]*))"
)
_SEDS_NUMBERS = re.compile(r"\d*(,[+~]?\d+)?[dDgGhHlnNpPqQxz=]?")
_OPTION = re.compile(r"-(?!-)\w*?[ceEprBR]|--(eval|expression|print|source|run)=")
# Behind a name: that it is called, and with what.
_CALLED = re.compile(r"\s*\(")
_ARGUMENTS = re.compile(r"\s*(\((?!\s*\))|[\"'{`])")
_NO_SIGNS = re.compile(r"[\w%+=:,./-]*")


def is_data(name: str, code: str, mark: str, value: str) -> bool:
    """Tell whether a program reads a plain value as data.

    :param name: of the program, without its folder
    :param code: what it runs, with the mark where the value comes
    :param value: of letters, digits and ``@%+=:,./-_``
    """
    before, _, after = code.partition(mark)
    if _SAFE.fullmatch(name):
        return True
    before = before[option.end() :] if (option := _OPTION.match(before)) else before
    code = before + mark + after
    if not before.strip() and not after.strip():  # the value is the code, as the author wants it
        return True
    if len(code) > _MAX_CODE:
        before, after = "", ";"
    if re.fullmatch(r"g?sed", name):
        return _is_data_of_sed(before, value)
    if re.fullmatch(r"[gmn]?awk", name) and not (code_options.starts(name, code) or _CALLED.match(after)):
        return True
    if _NUMBERS.fullmatch(value):
        return True
    if _NAMES_CALL_NOTHING.fullmatch(name) and (
        (_NAME.fullmatch(value) and not _ARGUMENTS.match(after)) or _NO_SIGNS.fullmatch(before + value + after)
    ):
        return True
    if name.startswith("perl") and _is_in_substitution(before, after, value):
        return True
    if re.match("perl|ruby", name) and "/" not in value and _is_in_match(before, after):
        return True
    return not _evaluates(name, code) and _is_in_string(name, before, mark, after)


def _evaluates(name: str, code: str) -> bool:
    return bool(_EVALUATES.search(code)) or (name.startswith("lua") and bool(_EVALUATES_LUA.search(code)))


def _is_in_string(name: str, before: str, mark: str, after: str) -> bool:
    if _PYTHON.fullmatch(name):
        return _is_in_string_of_python(before + mark + after, mark)
    if not _IN_STRING.fullmatch(before):
        return False
    if name.startswith("perl") and _PERLS_QUOTES.search(before):
        return False
    return not (_MATLAB.fullmatch(name) and _TRANSPOSED.search(before))


@functools.lru_cache(maxsize=64)
def _is_in_string_of_python(code: str, mark: str) -> bool:
    try:
        tokens = [token for token in tokenize.generate_tokens(io.StringIO(code).readline) if mark in token.string]
    except (tokenize.TokenError, SyntaxError):
        return False
    for token in tokens:
        is_format = re.match(r"\w*[fFtT]", token.string) is not None
        if token.type == tokenize.STRING and not (is_format and "{" in token.string):
            continue
        if token.type not in (tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.COMMENT)):
            return False
    return bool(tokens)


def _is_in_substitution(before: str, after: str, value: str) -> bool:
    found = _PERLS_PLACE.fullmatch(before)
    if not found or found["end"] in value:
        return False
    rest = _PERLS_REST.replace("END", re.escape(found["end"])) * (1 if found["end_text"] else 2)
    return re.match(rf"{rest}{_PERLS_FLAGS}(;|\Z)", after) is not None


def _is_in_match(before: str, after: str) -> bool:
    """Tell whether a place is in the first pattern of the code, ``print if /…/``."""
    return bool(_MATCH.fullmatch(before)) and not _PERLS_QUOTES.search(before) and after.startswith("/")


def _is_data_of_sed(before: str, value: str) -> bool:
    if _SEDS_NUMBERS.fullmatch(value):
        return True
    found = _SEDS_PLACE.fullmatch(before)
    return found is not None and (bool(found["line"]) or (found["end"] or found["address"]) not in value)
