"""The program uv, what it must be told of pip's settings, and whether an environment that it made is whole."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from mlflow_projects.exceptions import ProjectError

# pip's variable -> uv's names for it, the current one first (https://docs.astral.sh/uv/reference/environment/).
_NAMES = {
    "PIP_FIND_LINKS": ("UV_FIND_LINKS",),
    "PIP_INDEX_URL": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    "PIP_EXTRA_INDEX_URL": ("UV_INDEX", "UV_EXTRA_INDEX_URL"),
    "PIP_TRUSTED_HOST": ("UV_INSECURE_HOST",),
    "PIP_CERT": ("SSL_CERT_FILE",),
}


def find_uv(purpose: str) -> str:
    """Return the program's path: beside this Python, else on PATH.

    :param purpose: begins the sentence "… needs the program uv"
    :raises ProjectError: it is not there
    """
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if not found:
        raise ProjectError(f"{purpose} needs the program uv, which this worker does not have; pip install uv.")
    return found


def has_python(environment: Path) -> bool:
    """Tell whether an environment has its interpreter; one that was removed leaves a link to nowhere."""
    return (environment / "bin" / "python").exists()


def uv_settings_from_pip(environment: Mapping[str, str]) -> dict[str, str]:
    """Return uv's variables for what only pip was told: where packages come from. uv reads none of pip's settings.

    Whatever is set for uv itself stays. pip looks at all indexes for the best version; uv takes the first index
    that has the package, the extra ones before the default one.

    :param environment: the variables of the worker
    """
    settings = {}
    for pip_name, uv_names in _NAMES.items():
        value = environment.get(pip_name, "").strip()
        if value and not any(environment.get(name) for name in uv_names):
            separator = "," if pip_name == "PIP_FIND_LINKS" else " "
            settings[uv_names[0]] = separator.join(value.split())
    return settings
