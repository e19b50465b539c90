"""Serve one ONNX model over gRPC and HTTP, with the service and the ports of the retired ONNX Runtime Server.

``onnxruntime.server.PredictionService/Predict`` and ``grpc.health.v1.Health`` over gRPC (port 50051), and over HTTP
(port 8001) ``POST /v1/models/NAME/versions/VERSION:predict`` (any name and version: there is one model) with the same
messages as JSON or protobuf, and ``GET /healthz``. One line of JSON on standard output tells the ports once it is
ready. SIGTERM and SIGINT finish the requests that are running; so does ``--idle-seconds`` without a request, for a
server whose client was killed.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import threading
import time
from concurrent import futures
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import numpy as np
import onnxruntime
import prediction_pb2
import prediction_pb2_grpc
from google.protobuf import json_format, message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

# onnx.TensorProto.DataType; arrays on the wire are little-endian.
TYPES = {1: "<f4", 2: "|u1", 6: "<i4", 7: "<i8", 11: "<f8"}
NUMBERS = {np.dtype(name): number for number, name in TYPES.items()}
LARGEST_MESSAGE = 64 * 2**20  # bytes; gRPC's own limit of 4 MiB holds 341 images of 3x32x32 float32
PROTOBUF = ("application/octet-stream", "application/x-protobuf", "application/vnd.google.protobuf")
PREDICT = re.compile(r"/v1/models/[^/]+/versions/[^/]+:predict")
SERVICE = "onnxruntime.server.PredictionService"


class BadRequestError(ValueError):
    """What the client sent cannot be answered; the sentence says why."""


class Model:
    """An ONNX model that answers requests from several threads at once.

    :param file: the .onnx file
    :param threads: threads of one prediction; 0: as many as there are cores
    """

    def __init__(self, file: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._inputs = {tensor.name for tensor in self._session.get_inputs()}
        self._outputs = [tensor.name for tensor in self._session.get_outputs()]
        self.last_used = time.monotonic()

    def predict(self, request: prediction_pb2.PredictRequest) -> prediction_pb2.PredictResponse:
        """Answer one request.

        :raises BadRequestError: names, types or shapes are not the model's
        """
        self.last_used = time.monotonic()
        if set(request.inputs) != self._inputs:
            raise BadRequestError(f"the inputs must be {sorted(self._inputs)}, not {sorted(request.inputs)}")
        if unknown := set(request.output_filter) - set(self._outputs):
            raise BadRequestError(f"the model has no output {sorted(unknown)}; it has {self._outputs}")
        wanted = list(request.output_filter) or self._outputs
        arrays = {name: to_array(name, tensor) for name, tensor in request.inputs.items()}
        try:
            results = self._session.run(wanted, arrays)
        except onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument as error:
            raise BadRequestError(" ".join(str(error).split())) from None
        response = prediction_pb2.PredictResponse()
        for name, result in zip(wanted, results, strict=True):
            response.outputs[name].CopyFrom(to_tensor(result))
        self.last_used = time.monotonic()
        return response


def to_array(name: str, tensor: prediction_pb2.TensorProto) -> np.ndarray:
    """Return a tensor's values as an array.

    :raises BadRequestError: its type is not known, or its values do not fill its shape
    """
    if tensor.data_type not in TYPES:
        raise BadRequestError(f"the input {name!r} has the data type {tensor.data_type}; known are {sorted(TYPES)}")
    try:
        if tensor.raw_data or not tensor.float_data:
            values = np.frombuffer(tensor.raw_data, TYPES[tensor.data_type])
        else:
            values = np.array(tensor.float_data, TYPES[tensor.data_type])
        return values.reshape(list(tensor.dims))
    except ValueError as error:
        raise BadRequestError(f"the values of the input {name!r} do not fit its shape: {error}") from None


def to_tensor(array: np.ndarray) -> prediction_pb2.TensorProto:
    """Return an array as a tensor, its values in ``raw_data``."""
    number = NUMBERS[array.dtype.newbyteorder("<")]
    little = np.ascontiguousarray(array, TYPES[number])
    return prediction_pb2.TensorProto(dims=array.shape, data_type=number, raw_data=little.tobytes())


class PredictionService(prediction_pb2_grpc.PredictionServiceServicer):
    """The model over gRPC."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def Predict(self, request, context):
        """Answer one request, or say INVALID_ARGUMENT."""
        try:
            return self._model.predict(request)
        except BadRequestError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))


def http_handler(model: Model) -> type[BaseHTTPRequestHandler]:
    """Return a class that answers HTTP requests with a model."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60  # seconds without a byte, so that a silent client holds no thread for ever

        def do_GET(self) -> None:
            """Say that the server is well."""
            if self.path == "/healthz":
                self._answer(HTTPStatus.OK, "application/json", b'{"status": "SERVING"}\n')
            else:
                self._refuse(HTTPStatus.NOT_FOUND, f"there is nothing at {self.path}; GET /healthz")

        def do_POST(self) -> None:
            """Answer one prediction."""
            length = self.headers.get("Content-Length", "")
            if not length.isdigit() or int(length) > LARGEST_MESSAGE:
                self.close_connection = True  # its body is still to come
                return self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"send 0 to {LARGEST_MESSAGE} bytes")
            body = self.rfile.read(int(length))
            if not PREDICT.fullmatch(self.path):
                return self._refuse(HTTPStatus.NOT_FOUND, "POST to /v1/models/default/versions/1:predict")
            kind = self.headers.get_content_type()
            try:
                if kind == "application/json":
                    request = json_format.Parse(body, prediction_pb2.PredictRequest())
                elif kind in PROTOBUF:
                    request = prediction_pb2.PredictRequest.FromString(body)
                else:
                    raise BadRequestError(f"Content-Type must be application/json or {PROTOBUF[0]}, not {kind}")
                response = model.predict(request)
            except (BadRequestError, json_format.ParseError, message.DecodeError) as error:
                return self._refuse(HTTPStatus.BAD_REQUEST, str(error))
            accepted = self.headers.get("Accept", "*/*")
            if kind in PROTOBUF and "json" not in accepted:
                return self._answer(HTTPStatus.OK, kind, response.SerializeToString())
            text = json_format.MessageToJson(response, preserving_proto_field_name=False)
            return self._answer(HTTPStatus.OK, "application/json", text.encode())

        def _refuse(self, status: HTTPStatus, sentence: str) -> None:
            body = json.dumps({"error_code": status.value, "error_message": sentence}).encode()
            self._answer(status, "application/json", body)

        def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Write no line per request."""

    return Handler


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", type=Path, default=Path(__file__).with_name("model.onnx"), help="the .onnx file")
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on")
    parser.add_argument("--grpc-port", type=int, default=50051, help="0: a free one")
    parser.add_argument("--http-port", type=int, default=8001, help="0: a free one")
    parser.add_argument("--threads", type=int, default=0, help="threads of one prediction; 0: all cores")
    parser.add_argument("--workers", type=int, default=8, help="gRPC requests at once")
    parser.add_argument("--idle-seconds", type=float, default=0, help="end after so long without a request; 0: never")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    model = Model(arguments.model, arguments.threads)

    limits = [("grpc.max_receive_message_length", LARGEST_MESSAGE), ("grpc.max_send_message_length", LARGEST_MESSAGE)]
    # Without SO_REUSEPORT a port in use is an error, not a second server that takes half of the requests.
    server = grpc.server(futures.ThreadPoolExecutor(arguments.workers), options=[*limits, ("grpc.so_reuseport", 0)])
    prediction_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(model), server)
    state = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    try:
        grpc_port = server.add_insecure_port(f"{arguments.host}:{arguments.grpc_port}")
        web = ThreadingHTTPServer((arguments.host, arguments.http_port), http_handler(model))
    except (RuntimeError, OSError) as error:
        print(f"A port cannot be used: {error}", file=sys.stderr)
        return 1
    web.daemon_threads = True
    server.start()
    threading.Thread(target=web.serve_forever, daemon=True).start()
    for service in ("", SERVICE):
        state.set(service, health_pb2.HealthCheckResponse.SERVING)
    print(json.dumps({"ready": True, "grpc_port": grpc_port, "http_port": web.server_address[1]}), flush=True)

    while not ending.wait(0.5):
        if arguments.idle_seconds and time.monotonic() - model.last_used > arguments.idle_seconds:
            print(f"No request for {arguments.idle_seconds:g} s: the server ends.", flush=True)
            break
    state.enter_graceful_shutdown()
    web.shutdown()
    server.stop(grace=5).wait()
    web.server_close()
    print("The server has ended.", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
