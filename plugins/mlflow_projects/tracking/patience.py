"""Ask what may never answer."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def in_thread(question: Callable[[], T]) -> Future[T]:
    """Ask in a thread of its own, which nobody has to wait for, not even the end of the process.

    Neither the search for a host's address nor a database's driver can be given a deadline, so who waits for the
    answer has one.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # from here on only the answer ends it
    context = contextvars.copy_context()

    def ask() -> None:
        try:
            answer = context.run(question)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(answer)

    threading.Thread(target=ask, name="question", daemon=True).start()
    return future
