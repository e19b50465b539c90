"""Secrets in a command's output and in what a run's record says."""

from __future__ import annotations


def masked(text: str) -> str:
    """Return a text without the secrets that Airflow knows.

    Airflow's supervisor masks what a worker logs, but nobody does under ``airflow dags test``, nor for MLflow.
    """
    from airflow.sdk._shared.secrets_masker import redact

    return str(redact(text))
