"""MLflow's REST API over one kept-alive connection, without mlflow.

Reference: https://mlflow.org/docs/latest/api_reference/rest-api.html
"""

from __future__ import annotations

import contextlib
import math
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import httpx

from mlflow_projects.exceptions import (
    AnswerTooLargeError,
    ProjectError,
    TrackingError,
    TrackingRefusedError,
    TrackingUnavailableError,
)
from mlflow_projects.tracking.answers import Fields, json_object, not_understood, whole_characters
from mlflow_projects.tracking.client import (
    STATUSES,
    Artifact,
    LoggedDataset,
    MetricPoint,
    Run,
    RunStatus,
    deleted_experiment,
    storable,
)
from mlflow_projects.tracking.refusal import refused_certificate, refused_login
from mlflow_projects.tracking.registry_rest import RestRegistry
from mlflow_projects.tracking.retries import TemporaryError, TooLargeError, retrying
from mlflow_projects.tracking.server import TrackingSettings

_BATCH = 100  # MLflow takes at most 100 parameters and 100 tags in one request
_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
_KEEP_IDLE_SECONDS = 45.0
_LONGEST_QUOTE = 10_000
_LONGEST_CODE = 100
_MOST_BYTES_OF_AN_ERROR = 2**20
# Each "[", "{" and "," of an answer may be a value of 50 bytes or more in memory. Of MLflow's own, dense answers have
# one such mark in 12 bytes.
_BYTES_PER_MARK = 12
_OF_THE_TRANSFER = (b"content-encoding", b"content-length", b"transfer-encoding")


class RestClient(RestRegistry):
    """A tracking server behind http(s).

    :param sleep: waits so many seconds between two tries of a request
    """

    def __init__(self, settings: TrackingSettings, sleep: Callable[[float], None] = time.sleep) -> None:
        self.settings = settings
        headers = {"User-Agent": "mlflow-projects-on-airflow", "Accept-Encoding": "gzip"}
        auth = None
        if settings.token:
            headers["Authorization"] = f"Bearer {settings.token}"
        elif settings.username or settings.password:
            auth = httpx.BasicAuth(settings.username, settings.password)
        try:
            base_url = httpx.URL(f"{settings.uri}/api/2.0/mlflow/")
        except (httpx.InvalidURL, UnicodeError) as error:
            raise ProjectError(
                f"The tracking URI {settings.address[:_LONGEST_QUOTE]} is no valid URL: {error}."
            ) from error
        self._http = httpx.Client(
            base_url=base_url,
            auth=auth,
            headers=headers,
            timeout=httpx.Timeout(settings.timeout, connect=min(10.0, settings.timeout)),
            # Most commands end sooner; a load balancer keeps an idle connection longer (60 s on AWS).
            limits=httpx.Limits(keepalive_expiry=_KEEP_IDLE_SECONDS),
            verify=_verification(settings),
        )
        self._retrying = retrying(settings.max_retries, sleep)
        self._stream: Any = None  # httpcore's, of the connection
        self._over = threading.Event()  # the time of the request that is on its way
        self._aborted = threading.Event()

    def experiment_id(self, name: str) -> str | None:
        try:
            answer = self._call("GET", "experiments/get-by-name", {"experiment_name": name})
        except TrackingError as error:
            if error.code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        experiment = answer.part("experiment")
        found = experiment.identifier("experiment_id")
        if experiment.text("lifecycle_stage", "") == "deleted":
            raise deleted_experiment(name, found)
        return found

    def create_experiment(self, name: str) -> str:
        return self._call("POST", "experiments/create", {"name": name}).identifier("experiment_id")

    def create_run(self, experiment_id: str, name: str, start_time: int, tags: Mapping[str, str]) -> Run:
        first, rest = dict(islice(tags.items(), _BATCH)), dict(islice(tags.items(), _BATCH, None))
        answer = self._call(
            "POST",
            "runs/create",
            {
                "experiment_id": experiment_id,
                "run_name": storable(name),
                "start_time": start_time,
                "tags": _pairs(first),
            },
            # Whether an unanswered request made a run is unknown: the caller looks before asking again.
            repeat=False,
        )
        run = _run(answer.part("run"))
        if rest:
            self.log_batch(run.run_id, tags=rest)
        return run

    def get_run(self, run_id: str) -> Run:
        run = _run(self._call("GET", "runs/get", {"run_id": run_id}).part("run"))
        if run.run_id.casefold() != run_id.strip().casefold():  # some databases look for an id in this way
            raise not_understood(self.settings.address, "runs/get", "it is about another run than was asked for")
        return run

    def search_runs(
        self, experiment_ids: Sequence[str], query: str, *, limit: int = 1000, newest_first: bool = False
    ) -> list[Run]:
        direction = "DESC" if newest_first else "ASC"
        request: dict[str, Any] = {
            "experiment_ids": list(experiment_ids),
            "filter": query,
            "run_view_type": "ACTIVE_ONLY",
            "order_by": [f"attributes.start_time {direction}"],
        }
        return [_run(run) for run in self._list("POST", "runs/search", request, "runs", limit)]

    def log_batch(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        moment = {"timestamp": int(time.time() * 1000), "step": 0}
        points = [{"key": key, "value": _as_json(value), **moment} for key, value in (metrics or {}).items()]
        content = {"params": _pairs(params or {}), "tags": _pairs(tags or {}), "metrics": points}
        for start in range(0, max(map(len, content.values())), _BATCH):
            some = {kind: pairs[start : start + _BATCH] for kind, pairs in content.items() if pairs[start:]}
            self._call("POST", "runs/log-batch", {"run_id": run_id, **some})

    def update_run(self, run_id: str, status: RunStatus, end_time: int | None = None) -> None:
        request: dict[str, Any] = {"run_id": run_id, "status": status}
        if end_time is not None:
            request["end_time"] = end_time
        if (answer := self._call("POST", "runs/update", request)).content:
            answer.part("run_info")  # else it is another's, and the run has not changed

    def list_artifacts(self, run_id: str, path: str = "") -> list[Artifact]:
        request = {"run_id": run_id, "path": path} if path else {"run_id": run_id}
        files = self._call("GET", "artifacts/list", request).parts("files")
        return [
            Artifact(
                path=file.text("path"),
                is_dir=file.flag("is_dir"),
                size=None if file.flag("is_dir") else file.whole("file_size", 0),
            )
            for file in files
        ]

    def metric_history(self, run_id: str, key: str, *, limit: int = 1000) -> list[MetricPoint]:
        request = {"run_id": run_id, "metric_key": key}
        points = self._list("GET", "metrics/get-history", request, "metrics", limit, page=limit)
        return [
            MetricPoint(point.number("value"), point.whole("step", 0), point.whole("timestamp")) for point in points
        ]

    def logged_datasets(self, run_id: str) -> list[LoggedDataset]:
        run = self._call("GET", "runs/get", {"run_id": run_id}).part("run")
        found = [one.part("dataset") for one in run.part("inputs", {}).parts("dataset_inputs")]
        return [
            LoggedDataset(one.text("name"), one.text("digest", ""), one.text("source", ""), one.text("schema", ""))
            for one in found
        ]

    def experiment_ids(self) -> list[str]:
        found = self._list("POST", "experiments/search", {"view_type": "ACTIVE_ONLY"}, "experiments")
        return [experiment.identifier("experiment_id") for experiment in found]

    def close(self) -> None:
        self._http.close()

    def abort(self) -> None:
        self._hang_up(self._aborted)

    def _call(self, method: str, path: str, request: Mapping[str, Any], *, repeat: bool = True) -> Fields:
        try:
            if repeat:
                return self._retrying(self._ask, method, path, request)
            return self._ask(method, path, request)
        except TemporaryError as error:
            unavailable = AnswerTooLargeError if isinstance(error, TooLargeError) else TrackingUnavailableError
            raise unavailable(
                f"The MLflow tracking server at {self.settings.address} cannot be used: {error}. Check that it "
                "runs and that this worker reaches it (the connection in mlflow_conn_id, or MLFLOW_TRACKING_URI)."
            ) from error

    def _ask(self, method: str, path: str, request: Mapping[str, Any]) -> Fields:
        try:
            answer = self._answer(method, path, request)
        except (httpx.InvalidURL, UnicodeError) as error:  # a host, a name or an id of letters that no URL can hold
            raise ProjectError(
                f"{path} of the MLflow tracking server at {self.settings.address} cannot be asked with what the "
                f"tracking URI, a name or an id holds: {whole_characters(str(error))[:_LONGEST_QUOTE]}."
            ) from error
        except httpx.HTTPError as error:
            if sentence := refused_certificate(self.settings, error):
                raise TrackingRefusedError(sentence) from error
            raise TemporaryError(str(error) or type(error).__name__) from error
        if answer.status_code in _TEMPORARY and not _is_final(answer):
            raise TemporaryError(f"HTTP {answer.status_code}", _retry_after(answer))
        if answer.status_code in (401, 403) and not _is_of_artifact_store(answer):
            raise TrackingRefusedError(refused_login(self.settings, answer))
        if answer.is_error:
            raise _refusal(answer)
        if (marks := sum(map(answer.content.count, b"[{,"))) > self.settings.max_bytes // _BYTES_PER_MARK:
            raise TooLargeError(f"its answer has more than {marks} parts")
        content = json_object(answer.content)
        if content is None:  # a proxy's page, while the server is being mended, or a wrong address
            raise TemporaryError("it answers, but not as an MLflow tracking server; is this its address?", retries=2)
        return Fields(content, self.settings.address, path, size=len(answer.content))

    def _answer(self, method: str, path: str, request: Mapping[str, Any]) -> httpx.Response:
        """Return the whole answer to one request.

        httpx's time-outs are for one read each: a server that sends a byte now and then never meets one. So when the
        time is over, whatever is going on, the connection is cut under it.

        :raises TemporaryError: it took too long, or is too large, also when unpacked
        """
        if self._aborted.is_set():
            raise TemporaryError("the question was given up", retries=0)
        self._over = over = threading.Event()
        alarm = threading.Timer(self.settings.timeout, self._hang_up, [over])
        alarm.daemon = True
        alarm.start()
        content = {"params": dict(request)} if method == "GET" else {"json": request}
        try:
            with self._http.stream(method, path, extensions={"trace": self._note_stream}, **content) as answer:
                body = _whole(answer, self.settings.max_bytes)
        except httpx.HTTPError as error:
            if over.is_set():
                raise TemporaryError(f"no whole answer within {self.settings.timeout:g} s") from error
            raise
        finally:
            alarm.cancel()
        plain = [pair for pair in answer.headers.raw if pair[0].lower() not in _OF_THE_TRANSFER]
        if answer.is_error:
            body = body[:_MOST_BYTES_OF_AN_ERROR]
        return httpx.Response(answer.status_code, headers=plain, content=body, request=answer.request)

    def _note_stream(self, event: str, info: Mapping[str, Any]) -> None:
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._stream = info["return_value"]
            if self._over.is_set() or self._aborted.is_set():
                self._hang_up(self._over)

    def _hang_up(self, reason: threading.Event) -> None:
        """End the connection for both sides at once, from any thread; who reads from it gets an error."""
        reason.set()
        if self._stream is not None:
            with contextlib.suppress(OSError):  # closed already
                socket.socket.shutdown(self._stream.get_extra_info("socket"), socket.SHUT_RDWR)


def _whole(answer: httpx.Response, most: int) -> bytes:
    """Return an answer's body, unpacked here: httpx would unpack any number of layers to any size."""
    if (encoding := answer.headers.get("Content-Encoding", "identity").lower()) not in ("identity", "gzip"):
        raise TemporaryError(f"its answer is packed as {encoding!r}, which nobody asked for", retries=2)
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16) if encoding == "gzip" else None
    body = bytearray()
    for chunk in answer.iter_raw():
        try:
            body += unpacker.decompress(chunk, most + 1 - len(body)) if unpacker else chunk
        except zlib.error as error:
            raise TemporaryError(f"its answer cannot be unpacked: {error}", retries=2) from error
        if len(body) > most:
            raise TooLargeError(f"its answer is larger than {most / 2**20:.0f} MB")
    return bytes(body)


def _verification(settings: TrackingSettings) -> bool | ssl.SSLContext:
    if not settings.uri.startswith("https://"):
        return False  # a context with all CA certificates takes 20 ms to build
    if settings.insecure_tls:
        return False
    try:
        context = ssl.create_default_context(cafile=settings.server_cert_path or None)
        if settings.client_cert_path:
            context.load_cert_chain(settings.client_cert_path)
    except (OSError, ssl.SSLError) as error:
        raise ProjectError(
            f"The TLS files {settings.server_cert_path or settings.client_cert_path!r} of the tracking "
            f"connection cannot be used: {error}."
        ) from error
    return context


def _is_final(answer: httpx.Response) -> bool:
    """Tell whether a 5xx answer is the server's considered refusal, which repeating cannot change."""
    return answer.status_code == 500 and _refusal(answer).code not in (
        "INTERNAL_ERROR",
        "TEMPORARILY_UNAVAILABLE",
    )


def _is_of_artifact_store(answer: httpx.Response) -> bool:
    """Tell whether it is not us whom somebody refuses, but the tracking server, at its S3.

    MLflow passes such a refusal on with the same status (source: mlflow.store.artifact.s3_artifact_repo).
    """
    return str(_refusal(answer)).startswith("Failed to list artifacts")


def _refusal(answer: httpx.Response) -> TrackingError:
    content = json_object(answer.content) or {}
    message, code = content.get("message"), content.get("error_code") or "INTERNAL_ERROR"
    if not isinstance(message, str) or not isinstance(code, str):
        return TrackingError(f"HTTP {answer.status_code} from {answer.request.url.copy_with(query=None)}")
    return TrackingError(whole_characters(message[:_LONGEST_QUOTE]), whole_characters(code[:_LONGEST_CODE]))


def _retry_after(answer: httpx.Response) -> float | None:
    try:
        return float(answer.headers["Retry-After"])
    except (KeyError, ValueError):
        return None


def _as_json(value: float) -> float | str:
    """Return a number as protobuf's JSON has it, which writes those that JSON lacks as text."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"


def _pairs(mapping: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": storable(value)} for key, value in mapping.items()]


def _run(content: Fields) -> Run:
    info, data = content.part("info"), content.part("data", {})
    outputs = content.part("outputs", {}).parts("model_outputs")
    status = info.text("status")
    if status not in STATUSES:
        raise not_understood(info.server, info.request, f"{info.place}.status is none of {', '.join(STATUSES)}")
    return Run(
        run_id=info.identifier("run_id"),
        experiment_id=info.identifier("experiment_id"),
        name=info.text("run_name", ""),
        status=status,
        artifact_uri=info.text("artifact_uri", ""),
        start_time=info.whole("start_time", 0) or None,
        end_time=info.whole("end_time", 0) or None,
        tags=data.pairs("tags"),
        params=data.pairs("params"),
        metrics={pair.text("key"): pair.number("value") for pair in data.parts("metrics")},
        model_ids=tuple(output.identifier("model_id") for output in outputs),
    )
