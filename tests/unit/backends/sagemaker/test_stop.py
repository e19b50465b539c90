"""A job is stopped with the client that looks after it: to make one takes seconds on a busy worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import boto3
import pytest
from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook
from botocore.stub import Stubber

from mlflow_projects.backends.contract import Host
from mlflow_projects.backends.sagemaker import SageMakerBackend
from mlflow_projects.backends.sagemaker.training_job import SageMakerHandle

HANDLE = SageMakerHandle("sagemaker", "mlflow-a", "eu-west-1", None, time.time())
OK = ""
Planned = Sequence[tuple[str, str]]


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Stubber]]:
    """Return a function that plans the clients that will be made: for each, operations and what AWS answers."""

    def plan(*planned: Planned) -> list[Stubber]:
        made: list[Stubber] = []

        def get_conn(_: Any) -> Any:
            client = boto3.client(
                "sagemaker", region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b"
            )
            stub = Stubber(client)
            for operation, error in planned[len(made)]:
                if error:
                    stub.add_client_error(operation, error)
                else:
                    stub.add_response(operation, {}, {"TrainingJobName": "mlflow-a"})
            stub.activate()
            made.append(stub)
            return client

        monkeypatch.setattr(AwsGenericHook, "get_conn", get_conn)
        return made

    return plan


@pytest.mark.parametrize(
    ("planned", "said"),
    [
        ([[("describe_training_job", "ValidationException"), ("stop_training_job", OK)]], "asked to stop"),
        (
            [
                [("describe_training_job", "ValidationException"), ("stop_training_job", "ExpiredTokenException")],
                [("stop_training_job", OK)],
            ],
            "asked to stop",
        ),
        (
            [[("describe_training_job", "ValidationException"), ("stop_training_job", "AccessDeniedException")]],
            "cannot be stopped: An error occurred (AccessDeniedException)",
        ),
    ],
    ids=["at once", "credentials have expired", "no right to stop"],
)
def test_no_client_is_made_for_a_stop_while_the_credentials_hold(
    planned: list[Planned], said: str, clients: Callable[..., list[Stubber]]
) -> None:
    lines: list[str] = []
    made = clients(*planned)
    backend = SageMakerBackend(Host(lines.append))
    assert backend.find(HANDLE) is None
    job = backend.attach(HANDLE)
    job.cancel()
    job.finish_cancel(10)
    assert len(made) == len(planned)
    for stub in made:
        stub.assert_no_pending_responses()
    assert len(lines) == 1
    assert f"mlflow-a{'' if 'cannot' in said else ':'} {said}" in lines[0]
