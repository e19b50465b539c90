"""tests/aws on the stand-in for SageMaker: what can be shown of it without an account."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import IMAGE, ROOT, RUN
from tests.support.sagemaker import SageMaker, running_sagemaker
from tests.support.shared import migrated_airflow_database
from tests.support.waiting import wait

pytestmark = pytest.mark.system


def check(home: Path, sagemaker: SageMaker) -> subprocess.CompletedProcess[str]:
    """Run it as ``make aws-check`` does; the job that waits to be stopped is soon too old."""
    home.mkdir()
    migrated_airflow_database(RUN, home / "airflow.db")
    (home / ".migrated").write_text(version("apache-airflow-core"))
    command = [sys.executable, "tests/aws/run.py", f"--role={sagemaker.role}", f"--image={IMAGE}"]
    command += ["--region=us-east-1", f"--s3-uri=s3://{sagemaker.bucket}/mlflow"]
    environment = {**os.environ, **sagemaker.environment, "DEMO_HOME": str(home)}

    def late() -> str:
        return next((job["name"] for job in sagemaker.jobs() if "-late-" in job["name"]), "")

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    with ThreadPoolExecutor() as pool:
        running = pool.submit(run)
        job = wait(lambda: late() or (running.done() and "none"), "the job that is to be late")
        if job != "none":
            sagemaker.wait_for_line(job, "waiting for SIGTERM")
            sagemaker.age(job, 600)
        return running.result()


def test_every_claim_holds_on_the_stand_in(tmp_path: Path) -> None:
    with running_sagemaker(tmp_path / "sagemaker") as sagemaker:
        done = check(tmp_path / "home", sagemaker)
    printed = done.stdout + done.stderr
    lines = re.findall(r"^ +((?:S3|SageMaker|CloudWatch): .*): (.*)$", done.stdout, re.MULTILINE)
    assert {result for _, result in lines} == {"held"}, printed
    assert len(lines) == 12, printed
    assert "All 12 claims held." in done.stdout
    assert done.returncode == 0, printed
    log = (tmp_path / "home" / "logs" / "demo-aws_check.log").read_text()
    assert len(re.findall(r"\bline 300 of 300 ", log)) == 1, "the output came into the task's log"


def test_no_claim_holds_of_an_aws_that_does_nothing_right() -> None:
    from tests.aws.dags.aws_check import claims, held

    def wrong(**others: object) -> SimpleNamespace:
        described = {
            "InputDataConfig": [], "TrainingJobStatus": "Failed", "SecondaryStatus": "Stopped", "FailureReason": "",
            "CheckpointConfig": {"S3Uri": "s3://bucket/checkpoints/"}, "BillableTimeInSeconds": 60,
        }  # fmt: skip
        return SimpleNamespace(
            id="1", job="one for all", status="RUNNING",
            metrics={"sagemaker/billable_seconds": 0},
            tags={"mlflow_projects.exit_code": "1", "mlflow_projects.output_tail": ""},
            description=lambda: described, inputs=lambda: ["s3://bucket/spec.json"], exists=lambda uri: False,
            answer=lambda: {"run_id": "2", "text": "?", "of_airflow": ["AIRFLOW_HOME"]},
            lines=lambda: ["line 1 of 300"] * 300,
            **others,
        )  # fmt: skip

    results = {sentence: held(claim) for sentence, claim in claims(wrong(), wrong(), wrong())}  # type: ignore[arg-type]
    assert len(results) == 12
    assert set(results.values()) == {"DID NOT HOLD"}, results
    assert held(lambda: 1 // 0 > 0).startswith("DID NOT HOLD (ZeroDivisionError: ")
