"""How often, and after which pauses, a call is made again while the tracking server is away."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable

import tenacity

from mlflow_projects.exceptions import PublicError

_LONGEST_PAUSE = 30.0


class TemporaryError(PublicError):
    """An answer (or the lack of one) after which it makes sense to ask again.

    :param retry_after: seconds that the server asks for
    :param retries: how often at most, where more of them would hardly help
    """

    def __init__(self, message: str, retry_after: float | None = None, retries: int = sys.maxsize) -> None:
        super().__init__(message)
        self.retry_after, self.retries = retry_after, retries


class TooLargeError(TemporaryError):
    """An answer is too large, and so would be another to the same question."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retries=0)


def retrying(max_retries: int, sleep: Callable[[float], None]) -> tenacity.Retrying:
    """Return what calls a function again as long as it raises :class:`TemporaryError`."""
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(TemporaryError),
        stop=lambda state: state.attempt_number > min(max_retries, _retries(state)),
        wait=_pause,
        sleep=sleep,
        reraise=True,
    )


def _retries(state: tenacity.RetryCallState) -> int:
    error = state.outcome.exception() if state.outcome else None
    return error.retries if isinstance(error, TemporaryError) else 0


def _pause(state: tenacity.RetryCallState) -> float:
    """Return the seconds until the next try: doubling, jittered, or what the server asks for."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, TemporaryError) else None
    longest = min(0.5 * 2**state.attempt_number, _LONGEST_PAUSE)
    backoff = random.uniform(longest / 2, longest)  # noqa: S311
    return min(max(backoff, asked or 0.0), _LONGEST_PAUSE * 2)
