"""What happens to a training job, from Starting to its last status."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from typing import Any

from sagemaker_local.jobs import TrainingJob
from sagemaker_local.machine import CANNOT_PULL, Instance
from sagemaker_local.options import Context
from sagemaker_local.storage import Storage, describe_error

_MAX_REASON = 1024
_CANNOT_PULL = (
    "ClientError: Cannot pull algorithm container. Either the image does not exist or its permissions are incorrect."
)
_CANNOT_START = (
    "CannotStartContainerError. Please make sure the container can be run with 'docker run <image> train'. Please "
    "refer SageMaker documentation for details. It is possible that the Dockerfile's entrypoint is not properly "
    "defined, or missing permissions."
)


class Life:
    """One job's life, in a thread of its own."""

    def __init__(self, context: Context, job: TrainingJob) -> None:
        self._context, self._knobs, self._job = context, context.knobs, job
        self._storage = Storage(context, job.region)
        self._trained = 0.0  # seconds of earlier starts, before interruptions
        self._starts = 0
        self.instances: list[Instance] = []
        self._failed: Instance | None = None  # the first one; those that it ends fail after it
        self.thread = threading.Thread(target=self._run, name=job.name, daemon=True)

    def age(self, seconds: float) -> None:
        """Count the job as having trained so much longer."""
        self._trained += seconds
        self._job.wake.set()

    def _run(self) -> None:
        try:
            self._live()
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            self._job.end("Failed", reason=f"InternalServerError: the stand-in failed: {error}")
        finally:
            for instance in self.instances:
                instance.remove()

    def _live(self) -> None:
        job = self._job
        while True:
            self._pause(self._knobs.start_seconds)
            if self._image_missing():
                job.end("Failed", reason=_CANNOT_PULL)
                return
            if not self._advance("Downloading"):
                job.end("Stopped")
                return
            with job.lock:  # from here on it is paid for
                job.training_started = job.training_started or time.time()
            if trouble := self._stage():
                job.end("Failed", reason=trouble)
                return
            if not self._advance("Training"):
                job.end("Stopped")
                return
            outcome = self._train()
            if outcome != "Interrupted":
                self._conclude(outcome)
                return
            if self._advance("Interrupted"):
                self._pause(self._knobs.restart_seconds)
                self._advance("Starting")

    def _advance(self, secondary: str) -> bool:
        """Go on to a secondary status, unless somebody stopped the job."""
        with self._job.lock:
            if self._job.stop_asked:
                return False
            self._job.move(secondary)
            return True

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._job.stop_asked and (left := deadline - time.monotonic()) > 0:
            self._job.wake.wait(left)
            self._job.wake.clear()

    def _image_missing(self) -> bool:
        image = self._job.request["AlgorithmSpecification"].get("TrainingImage", "")
        return any(missing in image for missing in self._knobs.missing_images)

    def _stage(self) -> str:
        """Make fresh instances, as after an interruption too; return why it cannot be done, or ""."""
        for instance in self.instances:
            instance.remove()
        self._starts += 1
        folder = self._knobs.home / "jobs" / self._job.name / str(self._starts)
        count = self._job.request["ResourceConfig"]["InstanceCount"]
        self.instances = [Instance(self._context, self._job, n, folder / f"algo-{n + 1}") for n in range(count)]
        try:
            for instance in self.instances:
                instance.stage(self._storage)
        except Exception as error:
            return f"ClientError: Data download failed: {describe_error(error)}"
        return ""

    def _train(self) -> str:
        """Run the command; return how it came to its end: "" by itself, else the secondary status."""
        job, began = self._job, time.monotonic()
        for instance in self.instances:
            instance.start()
        next_sync = 0.0
        while True:
            codes = [instance.exit_code() for instance in self.instances]
            if None not in codes or any(codes):
                self._failed = next((one for one, code in zip(self.instances, codes, strict=True) if code), None)
                for instance in self.instances:  # one that failed ends the others
                    instance.kill()
                self._wait_ended(10)
                outcome = ""
                break
            if outcome := self._reason_to_stop(began):
                if outcome.startswith("Max"):
                    job.move("Stopping", "Stopping")
                interrupted = outcome == "Interrupted"
                self._shut_down(self._knobs.interruption_grace if interrupted else self._knobs.grace)
                job.interrupt_asked = job.interrupt_asked and not interrupted
                break
            if time.monotonic() >= next_sync:
                self._sync_checkpoints()
                next_sync = time.monotonic() + self._knobs.checkpoint_seconds
            job.wake.wait(self._knobs.poll_seconds)
            job.wake.clear()
        self._trained += time.monotonic() - began
        self._sync_checkpoints()
        return outcome

    def _reason_to_stop(self, began: float) -> str:
        job, limits = self._job, self._job.request.get("StoppingCondition", {})
        if job.stop_asked:
            return "Stopped"
        if self._trained + time.monotonic() - began > limits.get("MaxRuntimeInSeconds", 24 * 3600):
            return "MaxRuntimeExceeded"
        if job.spot and time.time() - job.created > limits["MaxWaitTimeInSeconds"]:
            return "MaxWaitTimeExceeded"
        return "Interrupted" if job.interrupt_asked else ""

    def _shut_down(self, grace: float) -> None:
        for instance in self.instances:
            instance.terminate()
        if not self._wait_ended(grace):
            for instance in self.instances:
                instance.kill()
            self._wait_ended(10)

    def _wait_ended(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while any(instance.exit_code() is None for instance in self.instances):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def _sync_checkpoints(self) -> None:
        for instance in self.instances:
            with contextlib.suppress(Exception):  # the next look tries again
                instance.sync_checkpoints(self._storage)

    def _conclude(self, outcome: str) -> None:
        job = self._job
        if not outcome and self._failed:
            with contextlib.suppress(Exception):
                self._upload_output()
            job.end("Failed", reason=self._failure_reason(self._failed))
            return
        if not outcome:
            self._advance("Uploading")
        try:
            self._upload_model()
            self._upload_output()
        except Exception as error:
            job.end("Failed", reason=f"ClientError: Artifact upload failed: {describe_error(error)}")
            return
        # What a stopped job has saved is kept too, which is what the grace time is for.
        job.end("Stopped" if outcome else "Completed", outcome)

    def _failure_reason(self, instance: Instance) -> str:
        code = instance.exit_code()
        if self._knobs.engine and code == CANNOT_PULL:
            return _CANNOT_PULL
        text = _CANNOT_START if instance.trouble() else instance.failure()
        start, end = "AlgorithmError: ", f", exit code: {code}"
        return f"{start}{text[: _MAX_REASON - len(start) - len(end)]}{end}"

    def _upload_model(self) -> None:
        uri = self._upload([instance.model for instance in self.instances], "model")
        with self._job.lock:
            self._job.model_artifacts = uri

    def _upload_output(self) -> None:
        folders = [instance.output for instance in self.instances]
        if any(any(folder.iterdir()) for folder in folders if folder.is_dir()):
            self._upload(folders, "output")

    def _upload(self, folders: Sequence[Any], name: str) -> str:
        config = self._job.request["OutputDataConfig"]
        uri = f"{config['S3OutputPath'].rstrip('/')}/{self._job.name}/output/{name}"
        return self._storage.upload_results(folders, uri, config.get("CompressionType", "GZIP") == "GZIP")


class Fleet:
    """All jobs of the stand-in."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._lock = threading.Lock()
        self._lives: dict[tuple[str, str], tuple[TrainingJob, Life]] = {}

    def add(self, job: TrainingJob) -> bool:
        """Start a job; return False when there is one of that name."""
        with self._lock:
            if (job.region, job.name) in self._lives:
                return False
            life = Life(self.context, job)
            self._lives[job.region, job.name] = job, life
        life.thread.start()
        return True

    def get(self, region: str, name: str) -> TrainingJob | None:
        """Return a job."""
        found = self._lives.get((region, name))
        return found[0] if found else None

    def jobs(self, region: str) -> list[TrainingJob]:
        """Return all jobs of a region."""
        with self._lock:
            return [job for (where, _), (job, _) in self._lives.items() if where == region]

    def interrupt(self, name: str) -> None:
        """Take a spot job's instances away."""
        job, _ = self._named(name)
        if not job.spot or job.secondary != "Training":
            raise ValueError(f"job {name!r} is not a spot job (EnableManagedSpotTraining) in Training")
        job.interrupt_asked = True
        job.wake.set()

    def age(self, name: str, seconds: float) -> None:
        """Count a job as having trained so much longer."""
        self._named(name)[1].age(seconds)

    def forget(self, name: str) -> None:
        """End a job and know it no more."""
        job, life = self._named(name)
        with self._lock:
            del self._lives[job.region, name]
        job.ask_stop()
        for instance in life.instances:
            instance.remove()

    def _named(self, name: str) -> tuple[TrainingJob, Life]:
        with self._lock:
            found = next((pair for pair in self._lives.values() if pair[0].name == name), None)
        if not found:
            raise ValueError(f"there is no job {name!r}")
        return found

    def overview(self) -> list[dict[str, Any]]:
        """Return the jobs for people and scripts."""
        with self._lock:
            lives = list(self._lives.values())
        return [
            {
                "name": job.name,
                "region": job.region,
                "status": job.status,
                "secondary_status": job.secondary,
                "pids": [instance.pid for instance in life.instances if instance.exit_code() is None],
                "exit_codes": [instance.exit_code() for instance in life.instances],
            }
            for job, life in lives
        ]

    def close(self) -> None:
        """Kill what runs."""
        for _, life in self._lives.values():
            if life.thread.is_alive():
                for instance in life.instances:
                    instance.remove()
