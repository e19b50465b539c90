"""What can go wrong, told apart by what helps against it."""

from __future__ import annotations

from typing import Literal

from mlflow_projects.public_uri import public_text

_MOST_READ, _MOST_SHOWN = 40_000, 20_000  # characters of a message, whose end may be that of a half address
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


Cause = Literal[
    "killed_by_memory", "user_error", "bad_input", "interrupted", "capacity", "timeout", "tracking", "unknown"
]


class PublicError(Exception):
    """An error whose sentence may be shown to everybody: each address in it is a public one.

    It holds no control characters besides ends of lines and tabs: a name in it may want to command a terminal.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(public_text(message[:_MOST_READ])[:_MOST_SHOWN].translate(_CONTROLS))


def one_line(text: str) -> str:
    """Return a text in which a name can begin no line of its own, nor command a terminal."""
    return text.translate({**_CONTROLS, ord("\n"): "\\n", ord("\t"): "\\t"})


class ProjectError(PublicError):
    """A project, a parameter or a setting is wrong; trying again cannot help.

    The message is one sentence for the person who wrote the DAG or the project: it names the file,
    the key and the remedy. Operators turn it into ``AirflowFailException`` (no retry).
    """


class StepFailedError(PublicError):
    """An attempt failed although its definition is right; another attempt may succeed.

    :param exit_code: of the command; None if there is none
    :param status: with which its MLflow run ended
    :param cause: why, as far as another try depends on it
    :param is_final: whether the DAG's author wants no other try
    """

    def __init__(
        self,
        message: str = "",
        *,
        exit_code: int | None = None,
        status: str = "FAILED",
        cause: Cause = "unknown",
        is_final: bool = False,
    ) -> None:
        super().__init__(message)
        self.exit_code, self.status, self.cause, self.is_final = exit_code, status, cause, is_final


class TrackingError(PublicError):
    """The tracking server answered with an error.

    :param message: the server's own words
    :param code: MLflow's error code, for example ``RESOURCE_DOES_NOT_EXIST``
    """

    def __init__(self, message: str, code: str = "INTERNAL_ERROR") -> None:
        super().__init__(message)
        self.code = code


class TrackingUnavailableError(TrackingError):
    """The tracking server gave no usable answer within the retries; a later try may work."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="TEMPORARILY_UNAVAILABLE")


class AnswerTooLargeError(TrackingUnavailableError):
    """An answer has more bytes or parts than one may have; with a smaller page there may be one."""


class TrackingRefusedError(TrackingError):
    """A login, a right or a certificate stands in the way; the same settings will fail again.

    Operators turn it into ``AirflowFailException`` (no retry).
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, code="PERMISSION_DENIED")
