"""A clock that is ahead: what changes with it, a script takes from the clock."""

from __future__ import annotations

import datetime
import time
from typing import Any


def move(days: int) -> None:
    """Let Python's clocks be so many days ahead; it is done before the script imports them."""
    ahead = datetime.timedelta(days=days)
    real = datetime.datetime
    real_time, real_local, real_gm, real_text = time.time, time.localtime, time.gmtime, time.strftime
    time.time = lambda: real_time() + ahead.total_seconds()
    time.localtime = lambda at=None: real_local(time.time() if at is None else at)
    time.gmtime = lambda at=None: real_gm(time.time() if at is None else at)
    time.strftime = lambda form, at=None: real_text(form, time.localtime() if at is None else at)

    class Kind(type):
        def __instancecheck__(cls, one: Any) -> bool:
            return isinstance(one, real)

    class Datetime(datetime.datetime, metaclass=Kind):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return real.now(tz) + ahead

        @classmethod
        def utcnow(cls) -> Any:
            return real.now(datetime.timezone.utc).replace(tzinfo=None) + ahead

    datetime.datetime = Datetime  # type: ignore[misc]
