"""Where MLflow's webhooks arrive: a change of a registered model becomes an event of the assets that watch it.

Airflow mounts this without protection, and MLflow cannot log in: what counts is the signature over delivery id, time
and body (``mlflow.webhooks.delivery``). Of a refusal the sender learns the status only.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import hmac
import logging
import re
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from mlflow_projects import config
from mlflow_projects.tracking.answers import json_object
from mlflow_projects.tracking.model_events import ALIAS_MOVED, NEW_VERSION, TAG_SET, ModelChange, ModelWatch
from mlflow_projects.tracking.registry import ModelVersion
from mlflow_projects.ui.sources import PageProblem, tracking

MAX_BYTES = 2**20
MAX_AGE_SECONDS = 300
_BODY_SECONDS = 10.0
_TRIGGER = "mlflow_projects.triggers.model_events.MLflowModelTrigger"
_EVENTS = {
    ("model_version", "created"): NEW_VERSION,
    ("model_version_alias", "created"): ALIAS_MOVED,
    ("model_version_tag", "set"): TAG_SET,
}
log = logging.getLogger(__name__)
router = APIRouter()


@router.post("/webhook")
async def receive(request: Request) -> Response:
    """Take a delivery: 204 if there is nothing more to do, 503 if MLflow shall send it again."""
    conn_ids = config.webhook_conn_ids()
    if not conn_ids:
        raise HTTPException(404)
    if request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
        return Response(status_code=415)
    names = ("Delivery-Id", "Timestamp", "Signature")
    delivery, moment, signature = (request.headers.get(f"X-MLflow-{name}", "") for name in names)
    fresh = re.fullmatch(r"[0-9]{1,12}", moment) and abs(time.time() - int(moment)) <= MAX_AGE_SECONDS
    if not fresh or not re.fullmatch(r"[\w-]{8,100}", delivery, re.ASCII):
        return Response(status_code=401)
    try:
        body = await asyncio.wait_for(_body(request), _BODY_SECONDS)
    except asyncio.TimeoutError:
        return Response(status_code=408)
    except ClientDisconnect:  # nobody reads an answer, and it is no trace in the log
        return Response(status_code=400)
    if body is None:
        return Response(status_code=413)
    return Response(status_code=await run_in_threadpool(_take, conn_ids, delivery, moment, body, signature))


async def _body(request: Request) -> bytes | None:
    """Return the body, None if it is too large; no more than that is ever held."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BYTES:
            return None
    return body


def _take(conn_ids: Sequence[str], delivery: str, moment: str, body: bytes, signature: str) -> int:
    """Check a delivery and do what it says; return the HTTP status."""
    content = b".".join([delivery.encode(), moment.encode(), body])
    signers = [_secret(conn_id) for conn_id in conn_ids]
    mlflow_conn_ids = [known for secret, known in signers if secret and _signed(secret, content, signature)]
    if not mlflow_conn_ids:
        return 401
    try:
        change = _change(json_object(body))
    except ValueError:
        return 400
    if change is None or not (asset_ids := _watching(change, mlflow_conn_ids[0])):
        return 204
    try:
        version = _version(change, mlflow_conn_ids[0])
    except PageProblem:  # said in the log
        return 503
    if version is None:  # gone since
        return 204
    told = {"from_webhook": True, "delivery": delivery, "payload": change.told(version, mlflow_conn_ids[0])}
    return 204 if _emit(asset_ids, told) else 409


def _signed(secret: str, content: bytes, signature: str) -> bool:
    digest = hmac.new(secret.encode(), content, hashlib.sha256).digest()
    return hmac.compare_digest(b"v1," + base64.b64encode(digest), signature.encode(errors="replace"))


def _secret(conn_id: str) -> tuple[str, str]:
    """Return a webhook's secret, and the connection to the tracking server that sends it."""
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        connection = None
    if connection is None or not connection.password:
        _tell_once(f"[{config.SECTION}] webhook_conn_ids: there is no connection {conn_id!r} with a password.")
        return "", ""
    return connection.password, str(connection.extra_dejson.get("mlflow_conn_id") or "mlflow_default")


@functools.cache
def _tell_once(sentence: str) -> None:
    log.warning("%s", sentence)


def _change(content: dict[str, Any] | None) -> ModelChange | None:
    """Return what a body says, None if it is of no interest.

    :raises ValueError: it is not as MLflow writes it
    """
    data = (content or {}).get("data")
    if content is None or not isinstance(data, dict):
        raise ValueError("no object")
    event = _EVENTS.get((str(content.get("entity")), str(content.get("action"))))
    if event is None:
        return None
    named = {"name": data.get("name"), "version": data.get("version")}
    if event == ALIAS_MOVED:
        named["alias"] = data.get("alias")
    if event == TAG_SET:
        named |= {"tag": data.get("key"), "value": data.get("value")}
    if not all(isinstance(value, str) for value in named.values()):
        raise ValueError("a field is no text")
    return ModelChange(event, **{**named, "version": int(named["version"])})  # type: ignore[arg-type]


def _watching(change: ModelChange, mlflow_conn_id: str) -> list[int]:
    """Return the assets with a watcher that wants to be told of a change."""
    from airflow.models.asset import AssetWatcherModel
    from airflow.models.trigger import Trigger
    from airflow.utils.session import create_session
    from sqlalchemy import select

    query = select(AssetWatcherModel.asset_id, Trigger).join(Trigger).where(Trigger.classpath == _TRIGGER)
    found = set()
    with create_session() as session:
        for asset_id, trigger in session.execute(query):
            arguments = dict(trigger.kwargs)
            pushed = arguments.pop("poll_interval", 0) is None
            if pushed and arguments.pop("mlflow_conn_id", "") == mlflow_conn_id:
                found |= {asset_id} if ModelWatch(**arguments).wants(change) else set()
    return sorted(found)


def _version(change: ModelChange, mlflow_conn_id: str) -> ModelVersion | None:
    """Ask the registry for the version: most webhooks do not name its run."""
    with tracking(mlflow_conn_id) as client:
        return client.model_version(change.name, change.version)


def _emit(asset_ids: Sequence[int], told: dict[str, Any]) -> bool:
    """Make the events of a delivery, in one transaction; return whether it had not come before."""
    from airflow.assets.manager import asset_manager
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.sdk import timezone
    from airflow.utils.session import create_session
    from sqlalchemy import select, update

    with create_session() as session:
        own = AssetModel.id.in_(asset_ids)
        # Changes nothing, but lets the same delivery wait in another process until this one is committed.
        session.execute(update(AssetModel).where(own).values(id=AssetModel.id))
        since = timezone.utcnow() - timedelta(seconds=2 * MAX_AGE_SECONDS)
        lately = select(AssetEvent.extra).where(AssetEvent.asset_id.in_(asset_ids), AssetEvent.timestamp > since)
        if any(extra.get("delivery") == told["delivery"] for extra in session.scalars(lately)):
            return False
        for asset in session.scalars(select(AssetModel).where(own)).all():
            asset_manager.register_asset_change(asset=asset, extra=told, session=session)
    return True
