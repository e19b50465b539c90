"""What AWS's refusal to make a job means for another try."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from mlflow_projects.backends.sagemaker.launch import _explained
from mlflow_projects.exceptions import ProjectError, StepFailedError


@pytest.mark.parametrize(
    ("code", "cause"),
    [("ResourceLimitExceeded", "capacity"), ("ThrottlingException", "capacity"), ("InternalFailure", "unknown")],
)
def test_another_try_may_help_when_there_is_no_room(code: str, cause: str) -> None:
    refusal = ClientError({"Error": {"Code": code, "Message": "…"}}, "CreateTrainingJob")
    with (
        pytest.raises(StepFailedError, match="The training job name cannot be started: ") as raised,
        _explained("name"),
    ):
        raise refusal
    assert (raised.value.cause, raised.value.__cause__) == (cause, refusal)


def test_aws_that_cannot_be_reached_is_no_lack_of_room() -> None:
    with pytest.raises(StepFailedError) as raised, _explained("name"):
        raise EndpointConnectionError(endpoint_url="https://sagemaker")
    assert raised.value.cause == "unknown"


def test_another_try_cannot_help_against_a_refusal() -> None:
    with pytest.raises(ProjectError, match="cannot be started"), _explained("name"):
        raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "CreateTrainingJob")
