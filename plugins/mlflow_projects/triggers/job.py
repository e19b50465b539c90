"""Wait for a durable job without holding a worker slot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async


class JobTrigger(BaseTrigger):
    """Streams a job's states and output to the task log until it ends; fires once, and never fails.

    A trigger that raised would fail its task without a look at the job, which would go on and cost.

    :param handle: what identifies the job, as JSON; its backend is named in it
    :param run_id: the attempt's MLflow run
    :param deadline: epoch seconds at which the waiting ends
    :param poll_interval: seconds between two looks
    :param mlflow_conn_id: Airflow connection to the tracking server
    """

    def __init__(
        self, handle: dict[str, Any], run_id: str, deadline: float, poll_interval: float, mlflow_conn_id: str
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.handle = handle
        self.run_id = run_id
        self.deadline = deadline
        self.poll_interval = poll_interval
        self.mlflow_conn_id = mlflow_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what makes this trigger again in a triggerer; ids only, never a credential."""
        return (
            "mlflow_projects.triggers.job.JobTrigger",
            {
                "handle": self.handle,
                "run_id": self.run_id,
                "deadline": self.deadline,
                "poll_interval": self.poll_interval,
                "mlflow_conn_id": self.mlflow_conn_id,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the job's end or the deadline; the task itself then reads the verdict."""
        from mlflow_projects.hooks.masking import shown
        from mlflow_projects.triggers.poller import JobPoller

        poller = JobPoller.of(self.handle)
        late = min(poller.late_lines_seconds, self.poll_interval)
        until, ended = self.deadline, False
        async with poller.watch(self.handle, self.poll_interval) as queue:
            while True:
                try:
                    news = await asyncio.wait_for(queue.get(), max(0.0, until - time.time()))
                except asyncio.TimeoutError:
                    break
                if news.trouble:
                    self.log.warning("%s", shown(news.trouble))
                for line in news.lines:
                    self.log.info("%s", shown(line))
                if news.ended and not ended:
                    ended, until = True, time.time() + late
        if not ended:
            self.log.warning("The job of run %s has not ended in time.", self.run_id)
        yield TriggerEvent({"status": "ended" if ended else "unknown"})  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Stop the job and close its run as KILLED.

        Airflow calls this only when a person marked or cleared the task, never when a triggerer stops or hands
        the trigger over: so stopping paid work here is safe.
        """
        await sync_to_async(self._kill, thread_sensitive=False)()

    def _kill(self) -> None:
        from mlflow_projects.backends.contract import Host
        from mlflow_projects.backends.registry import backend_of, handle_from
        from mlflow_projects.hooks.masking import teller
        from mlflow_projects.hooks.mlflow_hook import MLflowHook
        from mlflow_projects.tracking.closing import close_abandoned

        handle = handle_from(self.handle)
        backend_of(handle, Host(teller(self.log))).stop(handle)
        client = MLflowHook(self.mlflow_conn_id).get_conn()
        try:
            close_abandoned(client, self.run_id, "stopped by Airflow while the job ran", lambda _: None)
        finally:
            client.close()
