"""Read which service and operation a request is for; answer as that service would."""

from __future__ import annotations

import io
import json
import re
import uuid
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

_SCOPE = re.compile(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/aws4_request")
_PRESIGNED = re.compile(r"X-Amz-Credential=([^/&]+)/\d+/([^/&]+)/([^/&]+)/aws4_request")
_REASONS = {200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 500: "Internal Server Error"}


class ServiceError(Exception):
    """An error that a service answers with.

    :param code: for example ``ValidationException``
    """

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class Call:
    """What a request asks for.

    :param environ: of WSGI
    """

    def __init__(self, environ: Environ) -> None:
        self.environ = environ
        query = unquote(environ.get("QUERY_STRING", ""))
        scope = _SCOPE.search(environ.get("HTTP_AUTHORIZATION", "")) or _PRESIGNED.search(query)
        self.access_key, self.region, self.service = scope.groups() if scope else ("", "us-east-1", "s3")
        self._target = environ.get("HTTP_X_AMZ_TARGET", "")
        self.operation = self._operation(query)

    def body(self) -> bytes:
        """Read the body; it stays readable for whoever comes next."""
        try:
            length = int(self.environ.get("CONTENT_LENGTH") or 0)
        except ValueError:
            length = 0
        body: bytes = self.environ["wsgi.input"].read(length) if length else b""
        self.environ["wsgi.input"] = io.BytesIO(body)
        return body

    def _operation(self, query: str) -> str:
        if self._target:
            return str(self._target.rpartition(".")[2])
        if self.environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
            return parse_qs(self.body().decode("utf-8", "replace")).get("Action", [""])[0]
        return _s3_operation(self.environ["REQUEST_METHOD"], self.environ.get("PATH_INFO", "/"), query)

    def answer(self, error: ServiceError) -> tuple[str, bytes]:
        """Return content type and body of an error in the service's format."""
        code, message = error.code, str(error)
        if self._target:
            return "application/x-amz-json-1.1", json.dumps({"__type": code, "message": message}).encode()
        inner = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
        if self.service == "s3":
            return "application/xml", f"<Error>{inner}</Error>".encode()
        text = f"<ErrorResponse><Error><Type>Sender</Type>{inner}</Error></ErrorResponse>"
        return "text/xml", text.encode()


def _s3_operation(method: str, path: str, query: str) -> str:
    bucket, _, key = path.lstrip("/").partition("/")
    if key:
        if method == "POST":
            return "CompleteMultipartUpload" if "uploadId=" in query else "CreateMultipartUpload"
        if method == "PUT" and "partNumber=" in query:
            return "UploadPart"
        return f"{method.capitalize()}Object"
    if method == "GET":
        return ("ListObjectsV2" if "list-type=2" in query else "ListObjects") if bucket else "ListBuckets"
    return {"PUT": "CreateBucket", "POST": "DeleteObjects"}.get(method, f"{method.capitalize()}Bucket")


def reply(
    start_response: StartResponse, status: int, body: bytes, content_type: str = "application/json"
) -> list[bytes]:
    """Answer a request."""
    headers = [
        ("Content-Type", content_type),
        ("Content-Length", str(len(body))),
        ("x-amzn-RequestId", str(uuid.uuid4())),
    ]
    start_response(f"{status} {_REASONS.get(status, 'Error')}", headers)
    return [body]


def reply_json(start_response: StartResponse, value: object, status: int = 200) -> list[bytes]:
    """Answer with JSON for people and scripts."""
    return reply(start_response, status, json.dumps(value, indent=1, default=str).encode() + b"\n")
