"""What speaks to the server: gRPC for all predictions, HTTP to see that it answers the same."""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import grpc
import numpy as np
import requests
from grpc_health.v1 import health_pb2, health_pb2_grpc

FLOAT = 1  # onnx.TensorProto.DataType
LARGEST_MESSAGE = 64 * 2**20  # bytes, as the server has it
ANSWER_SECONDS = 120  # for one request


class Client:
    """A connection to one server.

    :param proto: the server's own prediction.proto
    :param grpc_address: host:port
    :param http_url: for example http://127.0.0.1:8001
    """

    def __init__(self, proto: Path, grpc_address: str, http_url: str) -> None:
        sys.path.insert(0, str(proto.parent))  # where grpcio-tools looks for files
        try:
            self._messages, services = grpc.protos_and_services(proto.name)
        finally:
            sys.path.remove(str(proto.parent))
        limits = ("grpc.max_receive_message_length", "grpc.max_send_message_length")
        # A proxy of the environment is none for a server on this machine.
        options = [(limit, LARGEST_MESSAGE) for limit in limits] + [("grpc.enable_http_proxy", 0)]
        # A server that starts slowly is asked again soon: gRPC's pauses grow up to two minutes.
        options += [(f"grpc.{which}_reconnect_backoff_ms", 200) for which in ("initial", "min", "max")]
        self._channel = grpc.insecure_channel(grpc_address, options=options)
        self._predict = services.PredictionServiceStub(self._channel).Predict
        self._health = health_pb2_grpc.HealthStub(self._channel).Check
        self._http_url = http_url

    def ready(self) -> bool:
        """Return whether the server says that it serves."""
        try:
            answer = self._health(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.RpcError:
            return False
        return answer.status == health_pb2.HealthCheckResponse.SERVING

    def predict(self, images: np.ndarray, source: str, result: str) -> np.ndarray:
        """Return the logits of images over gRPC.

        :param images: float32, (N, 3, 32, 32), normalised
        :param source: name of the model's input
        :param result: name of the model's output
        """
        request = self._messages.PredictRequest(output_filter=[result])
        tensor = request.inputs[source]
        tensor.dims.extend(images.shape)
        tensor.data_type = FLOAT
        tensor.raw_data = images.astype("<f4").tobytes()
        answer = self._predict(request, timeout=ANSWER_SECONDS).outputs[result]
        return np.frombuffer(answer.raw_data, "<f4").reshape(tuple(answer.dims))

    def predict_over_http(self, images: np.ndarray, source: str, result: str) -> np.ndarray:
        """Return the same over HTTP, as JSON."""
        raw = base64.b64encode(images.astype("<f4").tobytes()).decode()
        body = {
            "inputs": {source: {"dims": images.shape, "dataType": FLOAT, "rawData": raw}},
            "outputFilter": [result],
        }
        with requests.Session() as session:
            session.trust_env = False  # no proxy either
            address = f"{self._http_url}/v1/models/default/versions/1:predict"
            answer = session.post(address, json=body, timeout=ANSWER_SECONDS)
        answer.raise_for_status()
        found = answer.json()["outputs"][result]
        return np.frombuffer(base64.b64decode(found["rawData"]), "<f4").reshape([int(size) for size in found["dims"]])

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()
