"""A line of what ``mlflow-projects check`` found out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from mlflow_projects.exceptions import one_line
from mlflow_projects.public_uri import public_text


class Level(Enum):
    """How much a result matters; only an error makes the command fail."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class CheckResult:
    """One sentence, and how much it matters."""

    level: Level
    text: str

    def __str__(self) -> str:
        return f"  {self.level.value:8} {one_line(public_text(self.text))}"
