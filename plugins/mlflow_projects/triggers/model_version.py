"""Wait for a model version without holding a worker slot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

if TYPE_CHECKING:
    from mlflow_projects.tracking.client import TrackingClient

_TROUBLE_EVERY_SECONDS = 60.0


class ModelVersionTrigger(BaseTrigger):
    """Look for a model version until it is there; fires once, with the sensor's XCom.

    An answer that cannot get better (a wrong password, say) fires as ``{"error": …}``; a server that is away is
    waited for.

    :param wanted: fields of :class:`~mlflow_projects.tracking.registration.WantedVersion`
    :param poke_interval: seconds between two looks
    :param mlflow_conn_id: Airflow connection to the tracking server
    """

    def __init__(self, wanted: dict[str, Any], poke_interval: float, mlflow_conn_id: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.wanted = wanted
        self.poke_interval = poke_interval
        self.mlflow_conn_id = mlflow_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what makes this trigger again in a triggerer; the connection's id, never a credential."""
        return (
            "mlflow_projects.triggers.model_version.ModelVersionTrigger",
            {"wanted": self.wanted, "poke_interval": self.poke_interval, "mlflow_conn_id": self.mlflow_conn_id},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look in a thread, sleep, look again."""
        from mlflow_projects.exceptions import ProjectError, TrackingError, TrackingUnavailableError
        from mlflow_projects.hooks.masking import shown

        in_thread = sync_to_async(self._look, thread_sensitive=False)
        client = await sync_to_async(self._connect, thread_sensitive=False)()
        told = float("-inf")
        try:
            while True:
                try:
                    found = await in_thread(client)
                except TrackingUnavailableError as error:
                    if time.monotonic() - told > _TROUBLE_EVERY_SECONDS:
                        told = time.monotonic()
                        self.log.warning("Still waiting: %s", shown(str(error)))
                except (ProjectError, TrackingError) as error:
                    yield TriggerEvent({"error": shown(str(error))})  # type: ignore[no-untyped-call]
                    return
                else:
                    if found is not None:
                        yield TriggerEvent({"found": found})  # type: ignore[no-untyped-call]
                        return
                await asyncio.sleep(self.poke_interval)
        finally:
            client.close()

    def _connect(self) -> TrackingClient:
        from dataclasses import replace

        from mlflow_projects.hooks.mlflow_hook import MLflowHook
        from mlflow_projects.tracking.connect import connect

        # This loop is the retry; a client that waits by itself would keep one of the triggerer's threads.
        return connect(replace(MLflowHook(self.mlflow_conn_id).settings, max_retries=0))

    def _look(self, client: TrackingClient) -> dict[str, Any] | None:
        from mlflow_projects.tracking.registration import WantedVersion, metrics_of, version_dict

        found = WantedVersion(**self.wanted).find(client)
        return version_dict(found, metrics_of(client, found), self.mlflow_conn_id) if found else None
