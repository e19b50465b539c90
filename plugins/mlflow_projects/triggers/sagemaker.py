"""Wait for a training job without holding a worker slot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

_LATE_LOGS_SECONDS = 3.0


class SageMakerTrigger(BaseTrigger):
    """Streams a job's states and output to the task log until it ends; fires once, and never fails.

    A trigger that raised would fail its task without a look at the job, which would go on and cost.

    :param handle: what identifies the job
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
            "mlflow_projects.triggers.sagemaker.SageMakerTrigger",
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
        from mlflow_projects.backends.sagemaker.watch import ENDED, Transitions
        from mlflow_projects.triggers.poller import JobPoller

        name = self.handle["job_name"]
        transitions = Transitions(name, self.handle["submitted"])
        poller = JobPoller.of(self.handle.get("aws_conn_id"), self.handle["region"])
        status = ""
        async with poller.watch(self.handle, self.poll_interval) as queue:
            while status not in ENDED:
                try:
                    news = await asyncio.wait_for(queue.get(), max(0.0, self.deadline - time.time()))
                except asyncio.TimeoutError:
                    self.log.warning("Training job %s: has not ended in time", name)
                    break
                status = news.status or status
                if news.trouble:
                    self.log.warning(news.trouble)
                for line in news.lines:
                    self.log.info("%s", line)
                if news.status and (line := transitions.line(news.status, news.secondary)):  # type: ignore[assignment]
                    self.log.info(line)
        if status in ENDED:
            await asyncio.sleep(min(_LATE_LOGS_SECONDS, self.poll_interval))
            for line in await poller.last_lines(name):
                self.log.info("%s", line)
        yield TriggerEvent({"status": status or "unknown"})  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Stop the job and close its run as KILLED.

        Airflow calls this only when a person marked or cleared the task, never when a triggerer stops or hands
        the trigger over: so stopping paid work here is safe.
        """
        await sync_to_async(self._kill, thread_sensitive=False)()

    def _kill(self) -> None:
        from mlflow_projects.backends.base import backend_named
        from mlflow_projects.backends.sagemaker import SageMakerBackend
        from mlflow_projects.hooks.mlflow_hook import MLflowHook
        from mlflow_projects.tracking.record import close_abandoned

        backend = backend_named("sagemaker", self.log.info, aws_conn_id=self.handle.get("aws_conn_id"))
        assert isinstance(backend, SageMakerBackend)
        backend.stop(self.handle)
        client = MLflowHook(self.mlflow_conn_id).get_conn()
        try:
            close_abandoned(client, self.run_id, "stopped by Airflow while the job ran", lambda _: None)
        finally:
            client.close()
