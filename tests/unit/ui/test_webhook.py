"""What a sender does to the address of webhooks before anything is known of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import Request

from mlflow_projects.ui.webhook import receive
from tests.support.webhooks import headers


def test_a_sender_that_goes_away_is_no_error_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be a trace in the API server's log for each."""
    monkeypatch.setenv("AIRFLOW__MLFLOW_PROJECTS__WEBHOOK_CONN_IDS", "hook")
    messages = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]

    async def message() -> Any:
        return messages.pop(0)

    sent = [(key.lower().encode(), value.encode()) for key, value in headers(b"{}").items()]
    answer = asyncio.run(receive(Request({"type": "http", "headers": sent}, message)))
    assert answer.status_code == 400
