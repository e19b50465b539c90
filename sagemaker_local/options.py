"""What a stand-in can be told, and what its parts share."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ACCOUNT = "123456789012"
BUCKET = "mlflow-projects"
ROLE_NAME = "SageMakerRole"
ROLE_ARN = f"arn:aws:iam::{ACCOUNT}:role/{ROLE_NAME}"
ACCESS_KEY, SECRET_KEY = "sagemaker-local", "sagemaker-local"  # of the people who use it
JOB_KEY, JOB_SECRET = "sagemaker-local-job", "sagemaker-local-job"  # of the jobs, in place of their role
LOG_GROUP = "/aws/sagemaker/TrainingJobs"


@dataclass(frozen=True)
class Knobs:
    """How the stand-in behaves.

    :param home: folder for the jobs' files
    :param start_seconds: from the request to the start of the instances
    :param grace: seconds between SIGTERM and SIGKILL when a job is stopped; the service gives 120
    :param interruption_grace: the same for a spot interruption; EC2 gives 120
    :param restart_seconds: from a spot interruption to the new start
    :param checkpoint_seconds: how often changed checkpoints go to S3
    :param poll_seconds: how often a running job is looked at
    :param log_delay: seconds by which lines come late to CloudWatch Logs, as they do at AWS
    :param engine: "docker" or "podman" to run jobs as containers; "" for processes
    :param private_opt_ml: give each job its own /opt/ml where this machine permits that
    :param keep: leave the folders of ended jobs for a look
    :param missing_images: images that cannot be pulled; part of the name is enough
    :param passed_variables: variables of the stand-in's own environment that jobs get too
    """

    home: Path
    region: str = "us-east-1"
    start_seconds: float = 1.0
    grace: float = 120.0
    interruption_grace: float = 120.0
    restart_seconds: float = 1.0
    checkpoint_seconds: float = 1.0
    poll_seconds: float = 0.1
    log_delay: float = 0.0
    engine: str = ""
    private_opt_ml: bool = True
    keep: bool = False
    missing_images: tuple[str, ...] = ()
    passed_variables: tuple[str, ...] = ()


@dataclass
class Context:
    """What the parts of one stand-in share.

    :param url: where it is reached, also by its jobs
    :param internal: marks requests of the stand-in to itself, which no fault may hit
    :param private_opt_ml: jobs get their own /opt/ml by a mount namespace
    """

    knobs: Knobs
    url: str
    internal: str
    private_opt_ml: bool = False
    _clients: dict[tuple[str, str], Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def client(self, service: str, region: str) -> Any:
        """Return a boto3 client for the stand-in itself."""
        with self._lock:  # making clients is not thread-safe, using them is
            if (service, region) not in self._clients:
                import boto3
                from botocore.config import Config

                self._clients[service, region] = boto3.client(
                    service,
                    endpoint_url=self.url,
                    region_name=region,
                    aws_access_key_id=ACCESS_KEY,
                    aws_secret_access_key=SECRET_KEY,
                    config=Config(
                        user_agent_extra=self.internal,
                        retries={"mode": "standard", "max_attempts": 2},
                        s3={"addressing_style": "path"},
                        proxies={},
                    ),
                )
            return self._clients[service, region]
