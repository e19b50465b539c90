"""### Does the SageMaker backend hold on AWS itself?

Three training jobs: `good` succeeds, `bad` fails, `late` runs longer than it may. Then `what_held` asks S3,
SageMaker, CloudWatch and MLflow, prints a line for each claim, and fails if one did not hold. `bad` and `late` are
red in any case. The option `[mlflow_projects] sagemaker` needs `role`, `s3_uri` and `image_uri`; see README.md.
"""

import io
import json
import logging
import tarfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Param, get_current_context, task

from mlflow_projects import MLflowHook, MLflowProjectOperator

PROJECT = Path(__file__).with_name("aws_check_project")
TEXT = "a 'quoted' \"text\", 한국어, 日本語; $(id)"
GROUP = "/aws/sagemaker/TrainingJobs"


class Step:
    """A step of this DAG run: its MLflow run, its training job, and what AWS keeps of it."""

    def __init__(self, run: Any) -> None:
        import boto3

        self.status, self.tags, self.metrics, self.id = (
            run.info.status,
            run.data.tags,
            run.data.metrics,
            run.info.run_id,
        )
        self.job = self.tags["sagemaker.job_name"]
        handle = json.loads(self.tags["mlflow_projects.job"])
        region = handle.get("handle", handle)["region"]
        self.s3, self.sagemaker, self.logs = (boto3.client(name, region) for name in ("s3", "sagemaker", "logs"))

    def description(self) -> dict[str, Any]:
        return dict(self.sagemaker.describe_training_job(TrainingJobName=self.job))

    def inputs(self) -> list[str]:
        channels = self.description()["InputDataConfig"]
        return [channel["DataSource"]["S3DataSource"]["S3Uri"] for channel in channels]

    def exists(self, uri: str) -> bool:
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        return self.s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("KeyCount", 0) > 0

    def answer(self) -> dict[str, Any]:
        """Return what the command left in ``/opt/ml/model``, as S3 has it."""
        uri = self.description()["ModelArtifacts"]["S3ModelArtifacts"]
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        packed = io.BytesIO(self.s3.get_object(Bucket=bucket, Key=key)["Body"].read())
        with tarfile.open(fileobj=packed) as tar:
            return dict(json.load(tar.extractfile("answer.json")))  # type: ignore[arg-type]

    def lines(self) -> list[str]:
        """Return the lines that CloudWatch has of the job."""
        pages = self.logs.get_paginator("filter_log_events")
        found = pages.paginate(logGroupName=GROUP, logStreamNamePrefix=f"{self.job}/")
        return [event["message"] for page in found for event in page["events"]]


def claims(good: Step, bad: Step, late: Step) -> Iterator[tuple[str, Callable[[], bool]]]:
    """Yield each sentence, and what says whether it is true."""
    yield (
        "S3: the project and the job's spec are where the request says",
        lambda: all(map(good.exists, good.inputs())),
    )
    yield "S3: what the command left in /opt/ml/model is there", lambda: good.answer()["run_id"] == good.id
    yield (
        "S3: a stopped job's last checkpoint is there",
        lambda: late.exists(late.description()["CheckpointConfig"]["S3Uri"].rstrip("/") + "/last"),
    )
    yield (
        "SageMaker: a job is Completed, its MLflow run FINISHED",
        lambda: (good.description()["TrainingJobStatus"], good.status) == ("Completed", "FINISHED"),
    )
    yield (
        "SageMaker: the command got the text as it was, with quotes and Korean",
        lambda: good.answer()["text"] == TEXT,
    )
    yield "SageMaker: the command got no variable of Airflow", lambda: good.answer()["of_airflow"] == []
    yield (
        "SageMaker: the run has the billable seconds",
        lambda: good.metrics["sagemaker/billable_seconds"] == good.description()["BillableTimeInSeconds"],
    )
    yield (
        "SageMaker: a failed job says why, its MLflow run is FAILED with the exit status",
        lambda: (
            "the last words" in bad.description()["FailureReason"]
            and (bad.status, bad.tags["mlflow_projects.exit_code"]) == ("FAILED", "3")
        ),
    )
    yield (
        "SageMaker: a job over max_run is stopped by AWS, its MLflow run KILLED",
        lambda: late.description()["SecondaryStatus"] == "MaxRuntimeExceeded" and late.status == "KILLED",
    )
    yield "SageMaker: three runs have three jobs", lambda: len({good.job, bad.job, late.job}) == 3
    yield (
        "CloudWatch: every line is there, once and in order",
        lambda: (
            [line for line in good.lines() if line.startswith("line ")] == [f"line {n} of 300" for n in range(1, 301)]
        ),
    )
    yield (
        "CloudWatch: the failed run's tag has the last lines",
        lambda: "the last words" in bad.tags["mlflow_projects.output_tail"],
    )


def held(claim: Callable[[], bool]) -> str:
    """Return how a claim stands."""
    try:
        return "held" if claim() else "DID NOT HOLD"
    except Exception as error:  # of whatever kind: the other claims are to be tried too
        return f"DID NOT HOLD ({type(error).__name__}: {error})"


with DAG(
    "aws_check",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    params={
        "tracking_uri": Param("http://nobody.invalid", description="MLflow as the jobs call it; no job does here."),
    },
    doc_md=__doc__,
):

    def step(mode: str, **settings: Any) -> MLflowProjectOperator:
        return MLflowProjectOperator(
            task_id=mode,
            uri=str(PROJECT),
            parameters={"mode": mode, "text": TEXT},
            experiment_name="aws_check",
            backend="sagemaker",
            backend_config={"tracking_uri": "{{ params.tracking_uri }}", "max_run": 900, **settings},
            retries=0,
        )

    @task(trigger_rule="all_done", retries=0)
    def what_held() -> None:
        """Print a line for each claim; fail if one of them did not hold."""
        context = get_current_context()
        client = MLflowHook().client()
        experiment = client.get_experiment_by_name("aws_check")
        query = f"tags.`airflow.run_id` = '{context['run_id']}'"
        found = {
            run.data.tags["airflow.task_id"]: run for run in client.search_runs([experiment.experiment_id], query)
        }
        results = {
            sentence: held(claim)
            for sentence, claim in claims(*(Step(found[mode]) for mode in ("good", "bad", "late")))
        }
        log = logging.getLogger("airflow.task")
        for sentence, result in results.items():
            log.info("%s: %s", sentence, result)
        count = sum(result == "held" for result in results.values())
        if count < len(results):
            raise RuntimeError(f"{count} of {len(results)} claims held; the others are in the lines above.")
        log.info("All %d claims held.", count)

    [step("good"), step("bad"), step("late", max_run=60)] >> what_held()
