"""What tests order at the stand-in's control endpoint."""

from __future__ import annotations

import io
import json
import threading
from typing import Any

import pytest

from sagemaker_local.control import PREFIX, Control
from sagemaker_local.wire import Call

SCOPE = "AWS4-HMAC-SHA256 Credential={}/20260101/us-east-1/sagemaker/aws4_request, SignedHeaders=host"


@pytest.fixture
def control() -> Control:
    nothing: Any = None
    return Control(nothing)


def ask(control: Control, method: str, path: str, content: object = None) -> Any:
    body = json.dumps(content).encode()
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": f"{PREFIX}/{path}",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
    }
    status: list[str] = []
    answer = b"".join(control(environ, lambda line, _: status.append(line)))
    assert status == ["200 OK"], answer
    return json.loads(answer)


def call(access_key: str, operation: str = "DescribeTrainingJob") -> Call:
    headers = {"HTTP_X_AMZ_TARGET": f"SageMaker.{operation}", "HTTP_AUTHORIZATION": SCOPE.format(access_key)}
    return Call({"REQUEST_METHOD": "POST", "wsgi.input": io.BytesIO(), **headers})


def test_a_held_request_waits_until_its_fault_is_forgotten(control: Control) -> None:
    for key in ("one", "two"):
        ask(control, "POST", "faults", {"service": "sagemaker", "hold": True, "access_key": key})
    held = control.fault_for(call("one"))
    assert held
    assert control.fault_for(call("one")) is None  # it was ordered once
    waiting = threading.Thread(target=held.wait, daemon=True)
    waiting.start()
    ask(control, "DELETE", "faults", {"access_key": "two"})
    assert [fault["access_key"] for fault in ask(control, "GET", "faults")["holding"]] == ["one"]
    assert waiting.is_alive()
    ask(control, "DELETE", "faults", {"access_key": "one"})
    waiting.join(60)
    assert not waiting.is_alive()
    assert ask(control, "GET", "faults") == {"faults": [], "holding": []}


def test_a_fault_without_an_end_happens_until_it_is_forgotten_and_counts(control: Control) -> None:
    ask(control, "POST", "faults", {"error": "ServiceUnavailable", "times": 0, "access_key": "one"})
    for _ in range(3):
        assert control.fault_for(call("one"))
    assert control.fault_for(call("two")) is None
    assert [fault["struck"] for fault in ask(control, "GET", "faults")["faults"]] == [3]
    ask(control, "DELETE", "faults", {})
    assert control.fault_for(call("one")) is None
