"""The placeholders of a command, ``{name}``, as Python's format strings have them, within bounds."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping, Sequence

from mlflow_projects.exceptions import ProjectError

MAX_ARGUMENT = 128 * 1024  # Linux: one argument of a program (MAX_ARG_STRLEN)
TOO_LONG = f"Linux takes at most {MAX_ARGUMENT}. Put long values into a file and pass its path."
# Of a command with its values. A training job reads it from a file; elsewhere Linux takes less, see check_length().
_MAX_FILLED = 16 * 2**20
_MAX_PLACEHOLDERS = 1000


def placeholders(key: str, command: str) -> list[tuple[str, str | None, str | None, str | None]]:
    """Return what :meth:`string.Formatter.parse` makes of a command: text, and a placeholder behind it.

    :param key: begins the error's sentence
    :raises ProjectError: it is no format, or one that would make much out of a short value
    """
    if len(command) >= MAX_ARGUMENT:
        raise ProjectError(f"{key} has {len(command)} characters; {TOO_LONG}")
    try:
        parts = list(string.Formatter().parse(command))
        nested = [part for *_, spec, _ in parts for part in string.Formatter().parse(spec or "")]
    except ValueError as error:
        raise unfillable(key, f"ValueError: {error}") from error
    fields = [(field, spec or "") for _, field, spec, _ in (*parts, *nested) if field is not None]
    for field, spec in fields:
        if found := re.match(r"(.*?)[.\[]", field, re.DOTALL):
            shown = field[:100]
            raise unfillable(
                key, f"{{{shown}}}: a value is text, without attributes and items; write {{{found[1][:100]}}}"
            )
        _check_width(key, spec)
    if len(fields) > _MAX_PLACEHOLDERS:
        raise unfillable(key, f"more than {_MAX_PLACEHOLDERS} placeholders")
    return parts


def each_filled_in(
    key: str, parts: Sequence[tuple[str, str | None, str | None, str | None]], quoted: Mapping[str, str]
) -> Iterator[str]:
    """Yield each part of a command with MLflow's values, as long as all together can be started.

    :param parts: of :func:`placeholders`
    :raises ProjectError: it is too long, or a value would be made far longer
    """
    size = 0
    for literal, field, spec, conversion in parts:
        text = literal
        if field is not None:
            if "{" in (spec or ""):
                _check_width(key, str(spec).format(**quoted))
            text += f"{{{field}{f'!{conversion}' if conversion else ''}:{spec}}}".format(**quoted)
        size += len(text)
        if size > _MAX_FILLED:
            raise ProjectError(
                f"{key} has {size} characters and more with its values; at most {_MAX_FILLED} are taken. Put long "
                "values into a file and pass its path."
            )
        yield text


def _check_width(key: str, spec: str) -> None:
    if re.search(r"\d{4}", spec):  # it would take gigabytes
        raise unfillable(key, f"{spec[:100]!r} is no width of at most 3 digits")


def unfillable(key: str, problem: str) -> ProjectError:
    """Return the error of a command whose placeholders cannot be filled in."""
    return ProjectError(
        f"{key} cannot be filled in ({problem}); every {{name}} must be a parameter of the entry point, and a "
        "literal brace is written twice."
    )
