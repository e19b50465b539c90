"""The variables of the environment that the script reads itself."""

from __future__ import annotations

import os
import re
import sys
from types import FrameType
from typing import Any

from . import state

_SECRET = re.compile(r"passw|passphrase|secret|token|credential|api_?key|access_?key|private_?key", re.IGNORECASE)


def install() -> None:
    """Note the variables that the script reads itself."""
    real = os._Environ.__getitem__
    real_get = os._Environ.get

    def noted(name: Any, value: Any) -> None:
        current = state.current
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and frame.f_globals.get("__name__") in ("os", __name__):
            frame = frame.f_back
        if current is None or frame is None or not current.is_own(frame.f_code.co_filename):
            return
        if isinstance(name, str) and _SECRET.search(name) and isinstance(value, str) and value:
            current.secrets[name] = value
        elif isinstance(name, str) and not name.startswith("MLFLOW_") and name not in current.variables:
            is_set_here = name in os.environ and name not in current.environment
            if isinstance(value, str | int | float | None) and not is_set_here:
                current.variables[name] = value

    def get_item(self: Any, key: Any) -> Any:
        value = real(self, key)
        noted(key, value)
        return value

    def get(self: Any, key: Any, default: Any = None) -> Any:
        value = real_get(self, key, default)
        noted(key, value)
        return value

    os._Environ.__getitem__, os._Environ.get = get_item, get  # type: ignore[method-assign]
