"""What Airflow may stop at any moment, by a signal: told at once, obeyed where nothing is left half done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mlflow_projects.exceptions import Cause


class AttemptKilledError(Exception):
    """Airflow asked the task to stop.

    :param cause: ``timeout`` where its time was over
    """

    def __init__(self, message: str = "", cause: Cause = "interrupted") -> None:
        super().__init__(message)
        self.cause = cause


class Stoppable:
    """Work that can be stopped from a signal handler, which only asks and returns.

    Where a half-done request would leave a run that nobody knows of, nothing is interrupted. Elsewhere
    (:meth:`interruptible`) the exception ends the work at once.
    """

    _killed = False
    _expired = False
    _may_raise = False

    def kill(self) -> None:
        """Stop the work because Airflow stops the task; called from a signal handler."""
        self._killed = True
        if self._may_raise:
            raise AttemptKilledError(self.why_stopped, self.cause)

    def expire(self) -> bool:
        """Stop the work because its time is over; called from a signal handler.

        :return: False if the handler must raise, because what is done now ends by an exception only
        """
        self._expired = True
        return not self._may_raise

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let an exception of a signal handler end the block."""
        self.check_not_stopped()
        self._may_raise = True
        try:
            yield
        finally:
            self._may_raise = False

    def check_not_stopped(self) -> None:
        """Go no further once the work was stopped.

        :raises AttemptKilledError: it was
        """
        if self.is_stopped:
            raise AttemptKilledError(self.why_stopped, self.cause)

    @property
    def is_stopped(self) -> bool:
        """Whether the work was asked to stop."""
        return self._killed or self._expired

    @property
    def cause(self) -> Cause:
        """Why, as far as another try depends on it."""
        return "interrupted" if self._killed else "timeout"

    @property
    def why_stopped(self) -> str:
        """Why, in words."""
        return "stopped by Airflow" if self._killed else "stopped: its execution_timeout is over"
