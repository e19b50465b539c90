"""The record of a training job, as Describe and List show it."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sagemaker_local.options import ACCOUNT

ENDED = ("Completed", "Failed", "Stopped")
_MESSAGES = {
    "Starting": "Starting the training job",
    "Downloading": "Downloading input data",
    "Training": "Training image download completed. Training in progress.",
    "Uploading": "Uploading generated training model",
    "Completed": "Training job completed",
    "Failed": "Training job failed",
    "Stopping": "Stopping the training job",
    "Stopped": "Training job stopped",
    "MaxRuntimeExceeded": "Training job runtime exceeded MaxRuntimeInSeconds provided",
    "MaxWaitTimeExceeded": "Training job wait time exceeded MaxWaitTimeInSeconds provided",
    "Interrupted": "Training job interrupted: the spot instances were taken away",
}


@dataclass
class Transition:
    """A secondary status and its time."""

    status: str
    started: float
    message: str
    ended: float = 0.0

    def described(self) -> dict[str, Any]:
        """Return it as Describe shows it."""
        ended = {"EndTime": self.ended} if self.ended else {}
        return {"Status": self.status, "StartTime": self.started, "StatusMessage": self.message, **ended}


class TrainingJob:
    """What is known of a job; its life changes it, the API reads it.

    :param request: of CreateTrainingJob, valid
    """

    def __init__(self, request: Mapping[str, Any], region: str) -> None:
        self.request = request
        self.name: str = request["TrainingJobName"]
        self.region = region
        self.arn = f"arn:aws:sagemaker:{region}:{ACCOUNT}:training-job/{self.name}"
        self.tags: dict[str, str] = {tag["Key"]: tag["Value"] for tag in request.get("Tags", ())}
        self.spot: bool = request.get("EnableManagedSpotTraining", False)
        self.lock = threading.RLock()
        self.wake = threading.Event()  # somebody wants something of its life
        self.stop_asked = False
        self.interrupt_asked = False
        self.status, self.secondary = "InProgress", ""
        self.failure_reason = ""
        self.model_artifacts = ""
        self.created = self.modified = time.time()
        self.training_started = self.training_ended = 0.0
        self.transitions: list[Transition] = []
        self.move("Starting")

    @property
    def ended(self) -> bool:
        """The job is over for good."""
        return self.status in ENDED

    def move(self, secondary: str, status: str = "") -> None:
        """Enter a secondary status.

        :param status: the primary one; empty keeps what it is, for a job that is being stopped stays so
        """
        with self.lock:
            now = time.time()
            if self.transitions:
                self.transitions[-1].ended = now
            self.secondary, self.status, self.modified = secondary, status or self.status, now
            self.transitions.append(Transition(secondary, now, _MESSAGES[secondary]))
            if self.ended:
                self.transitions[-1].ended = now
                self.training_ended = now if self.training_started else 0.0

    def end(self, status: str, secondary: str = "", reason: str = "") -> None:
        """Enter the last status; a job that was asked to stop meanwhile is Stopped, not Completed."""
        with self.lock:
            if self.stop_asked and status == "Completed":
                status = secondary = "Stopped"
            self.failure_reason = reason
            self.move(secondary or status, status)

    def ask_stop(self) -> bool:
        """Ask for the end; return whether there was anything to stop."""
        with self.lock:
            if self.status != "InProgress":
                return self.status == "Stopping"
            self.stop_asked = True
            self.move("Stopping", "Stopping")
        self.wake.set()
        return True

    def describe(self) -> dict[str, Any]:
        """Return the answer of DescribeTrainingJob."""
        with self.lock:
            shown = {key: value for key, value in self.request.items() if key in _described_fields()}
            answer = {
                "EnableNetworkIsolation": False,
                "EnableInterContainerTrafficEncryption": False,
                "EnableManagedSpotTraining": False,
                **shown,
                **self.summary(),
                "SecondaryStatusTransitions": [transition.described() for transition in self.transitions],
            }
            if self.training_started:
                answer["TrainingStartTime"] = self.training_started
            if self.training_started and self.training_ended:
                seconds = max(1, round(self.training_ended - self.training_started))
                # No spot price is known here: what was used is what would be paid.
                answer |= {"TrainingTimeInSeconds": seconds, "BillableTimeInSeconds": seconds}
            if self.failure_reason:
                answer["FailureReason"] = self.failure_reason
            if self.model_artifacts:
                answer["ModelArtifacts"] = {"S3ModelArtifacts": self.model_artifacts}
            return answer

    def summary(self) -> dict[str, Any]:
        """Return the job's entry in the answer of ListTrainingJobs."""
        with self.lock:
            ended = {"TrainingEndTime": self.training_ended} if self.training_ended else {}
            return {
                "TrainingJobName": self.name,
                "TrainingJobArn": self.arn,
                "CreationTime": self.created,
                "LastModifiedTime": self.modified,
                "TrainingJobStatus": self.status,
                "SecondaryStatus": self.secondary,
                **ended,
            }


@functools.lru_cache(maxsize=1)
def _described_fields() -> frozenset[str]:
    from botocore.loaders import Loader

    model = Loader().load_service_model("sagemaker", "service-2")
    return frozenset(model["shapes"]["DescribeTrainingJobResponse"]["members"])
