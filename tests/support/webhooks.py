"""What MLflow sends as a webhook (``mlflow.webhooks.delivery``)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from typing import Any

SECRET = "a secret of the test: ä"


def body(name: str, entity: str = "model_version_alias", action: str = "created", **data: Any) -> bytes:
    data = {"name": name, "version": "1", "alias": "champion", **data}
    return json.dumps(
        {"entity": entity, "action": action, "timestamp": "2026-01-01T00:00:00+00:00", "data": data}
    ).encode()


def headers(content: bytes, secret: str = SECRET, moment: float | None = None, **changes: str) -> dict[str, str]:
    """Return the headers that MLflow sends (``mlflow.webhooks.delivery``)."""
    delivery, stamp = str(uuid.uuid4()), str(int(time.time() if moment is None else moment))
    digest = hmac.new(secret.encode(), f"{delivery}.{stamp}.".encode() + content, hashlib.sha256).digest()
    made = {
        "Content-Type": "application/json",
        "X-MLflow-Delivery-Id": delivery,
        "X-MLflow-Timestamp": stamp,
        "X-MLflow-Signature": f"v1,{base64.b64encode(digest).decode()}",
    }
    return {**made, **{key.replace("_", "-"): value for key, value in changes.items()}}
