"""What the output of an installer says of its failure: why, and whether another try could help."""

from __future__ import annotations

import re

from mlflow_projects.public_uri import public_text

_NO_PYTHON = re.compile(r"No (download|interpreter) found for|[Nn]o interpreter found|Invalid version request")
# Of uv, pip, conda and micromamba. pip says "none" of versions also where an index does not answer.
_NO_USE = re.compile(
    r"No solution found when resolving|Couldn't parse requirement|Unexpected '.*', expected"
    r"|Expected `--hash`, found|Distribution not found at:|Invalid requirement|from versions: (?!none\))"
    r"|conflicting dependencies|no such option|is not a supported wheel"
    r"|mode, (all requirements must have a hash|but they are missing)"
    r"|PackagesNotFoundError|ResolvePackageNotFound|Unsatisfiable|Could not solve for environment specs"
)
# What stands behind the reason, or is no words at all.
_NO_REASON = re.compile(r"\s*(hint:|note:|\[notice\]|\[end of output\]|[\W_]*$)", re.IGNORECASE)
_DRAWN = re.compile(r"[×│╰╭├└─▶]+|\^{2,}")
_ERROR = re.compile(r"^error:? ?", re.IGNORECASE)
_MAX = 800  # characters of a sentence's middle


class InstallerOutput:
    """Takes an installer's lines, and keeps those that say why it failed."""

    def __init__(self) -> None:
        self.last = ""
        self._python = ""
        self._reason: list[str] = []
        self._is_cut_off = False

    def take(self, line: str) -> None:
        """Take the next line."""
        self._is_cut_off |= "Retrying (" in line  # pip goes on without an index that it does not reach
        if _NO_PYTHON.search(line):
            self._python = _ERROR.sub("", line.strip()).strip(".")
        if self._reason or _NO_USE.search(line):
            self._reason += _DRAWN.sub("", line).split()
        if not _NO_REASON.match(line):
            self.last = line.strip()

    @property
    def refusal(self) -> str:
        """What is wrong with the definition, so that no other try can help; "" if that is not known."""
        if self._python:
            return f"{self._python}; install that Python, or change the version."
        if not self._reason or self._is_cut_off:
            return ""
        text = _ERROR.sub("", public_text(" ".join(self._reason))).strip(".")
        return f"{text[:_MAX]}…" if len(text) > _MAX else f"{text}."
