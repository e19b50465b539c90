"""The buttons from an Airflow task to its training job and that job's output, in the AWS console."""

from __future__ import annotations

from mlflow_projects.links.pushed import PushedLink


class SageMakerJobLink(PushedLink):
    """Leads to the training job."""

    name = "SageMaker job"


class CloudWatchLogsLink(PushedLink):
    """Leads to the training job's log streams."""

    name = "CloudWatch logs"
