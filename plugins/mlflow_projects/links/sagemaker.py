"""The buttons from an Airflow task to its training job and that job's output, in the AWS console."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey


class SageMakerJobLink(BaseOperatorLink):
    """Leads to the training job; works from its first second, like :class:`MLflowRunLink`."""

    name = "SageMaker job"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """Return what the operator pushed; "" for another backend."""
        return str(getattr(operator, "sagemaker_job_url", ""))


class CloudWatchLogsLink(BaseOperatorLink):
    """Leads to the training job's log streams."""

    name = "CloudWatch logs"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """Return what the operator pushed; "" for another backend."""
        return str(getattr(operator, "cloudwatch_logs_url", ""))
