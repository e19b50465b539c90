"""Secrets in a command's output, in what a run's record says, and in what we say ourselves."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mlflow_projects.public_uri import public_text, secrets_in
from mlflow_projects.spellings import hidden, lines_of, spellings

if TYPE_CHECKING:
    from airflow.sdk import Connection

_spelled: set[str] = set()  # what Airflow knows from us as a mere spelling of another secret


def mask(*secrets: str) -> None:
    """Let Airflow mask secrets, here and in the supervisor, also as they are sent; those too short for it stay."""
    from airflow.sdk._shared.secrets_masker import _secrets_masker
    from airflow.sdk.log import mask_secret

    known = _secrets_masker().patterns
    for secret in [line for one in secrets for line in lines_of(one) if line]:
        mask_secret(secret)
        if re.escape(secret) in known and (others := spellings(secret)[1:]):
            _spelled.update(map(re.escape, others))
            mask_secret([*others])


def mask_connection(connection: Connection) -> None:
    """Mask what a connection holds; of its extra, what Airflow takes for sensitive by its name, and addresses."""
    from airflow.sdk._shared.secrets_masker import should_hide_value_for_key

    mask(connection.password or "", *secrets_in(connection.host or ""))
    for key, value in connection.extra_dejson.items():
        if isinstance(value, str):
            is_secret = should_hide_value_for_key(key)  # type: ignore[no-untyped-call]
            mask(*([value] if is_secret else secrets_in(value)))


def masked(text: str) -> str:
    """Return a text without the secrets that Airflow knows, however they are spelled.

    Airflow's supervisor masks what a worker logs, but nobody does under ``airflow dags test``, nor for MLflow.
    """
    from airflow.sdk._shared.secrets_masker import _secrets_masker

    # Airflow's own redact() would find nothing more, and takes longer than all of this.
    return hidden(text, _plain(frozenset(_secrets_masker().patterns)))


def shown(text: str) -> str:
    """Return a text as everybody may see it: without known secrets, and with public addresses only."""
    return public_text(masked(text))


def teller(log: Any) -> Callable[[str], None]:
    """Return what puts a line into a log, as everybody may see it.

    :param log: a logger of Airflow's or of Python's
    """
    return lambda line: log.info("%s", shown(line))


@functools.lru_cache(maxsize=4)
def _plain(patterns: frozenset[str]) -> tuple[str, ...]:
    """Return the secrets behind the masker's patterns, the longest ones first."""
    secrets = [re.sub(r"\\(.)", r"\1", pattern, flags=re.DOTALL) for pattern in patterns - _spelled]
    return tuple(sorted(secrets, key=len, reverse=True))
