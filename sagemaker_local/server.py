"""Puts the stand-in together: one port for moto's services, SageMaker's training jobs and the control endpoint."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from sagemaker_local.api import TrainingApi
from sagemaker_local.control import PREFIX, Control, Fault
from sagemaker_local.lifecycle import Fleet
from sagemaker_local.machine import private_opt_ml_works
from sagemaker_local.options import (
    ACCESS_KEY,
    BUCKET,
    ROLE_ARN,
    ROLE_NAME,
    SECRET_KEY,
    Context,
    Knobs,
)
from sagemaker_local.wire import (
    Application,
    Call,
    Environ,
    ServiceError,
    StartResponse,
    reply,
    reply_json,
)

_JSON = "application/x-amz-json-1.1"
_OWN_HOSTS = ("127.0.0.1", "localhost", "::1")


class StandIn:
    """The whole as one WSGI application.

    :param moto: answers what is not ours
    :param hosts: by which names it is reached besides those of this machine
    """

    def __init__(self, context: Context, moto: Application, hosts: Collection[str] = ()) -> None:
        self._hosts = {*_OWN_HOSTS, *(host.lower().strip("[]") for host in hosts)}
        self._moto, self._internal = moto, context.internal
        self.fleet = Fleet(context)
        self._api = TrainingApi(self.fleet)
        self._control = Control(self.fleet)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        if environ.get("HTTP_ORIGIN"):
            # Jobs are commands: no page in a browser may start one here.
            return reply_json(start_response, {"error": "requests of web pages are refused"}, 403)
        if not self._is_ours(environ.get("HTTP_HOST", "")):
            # A page may make its own name lead here, and its browser then takes this for the page's own server.
            return reply_json(start_response, {"error": "this name is not the stand-in's; see --allow-host"}, 403)
        if environ["PATH_INFO"].startswith(PREFIX):
            return self._control(environ, start_response)
        call = Call(environ)
        if self._internal in environ.get("HTTP_USER_AGENT", ""):
            return self._serve(call, start_response)
        self._control.seen(call)
        fault = self._control.fault_for(call)
        return self._misbehave(fault, call, start_response) if fault else self._serve(call, start_response)

    def _is_ours(self, header: str) -> bool:
        """Tell whether a Host header names the stand-in; S3's clients may put a bucket's name before a host's."""
        host = re.sub(r":\d*$", "", header).lower().strip("[]")
        with contextlib.suppress(ValueError):
            # No name, so nobody can make it lead elsewhere.
            return bool(ipaddress.ip_address(host))
        return not host or any(host == own or host.endswith(f".{own}") for own in self._hosts)

    def _serve(self, call: Call, start_response: StartResponse) -> Iterable[bytes]:
        try:
            if (call.service, call.operation) == ("iam", "SimulatePrincipalPolicy"):
                raise ServiceError("AccessDenied", "sagemaker-local: permissions are not shown here", 403)
            body = self._api.answer(call)
            return self._from_moto(call, start_response) if body is None else reply(start_response, 200, body, _JSON)
        except ServiceError as error:
            content_type, text = call.answer(error)
            return reply(start_response, error.status, text, content_type)

    def _from_moto(self, call: Call, start_response: StartResponse) -> Iterable[bytes]:
        """Let moto answer; its page about what it does not know becomes an error that clients can read."""
        heads: list[tuple[Any, ...]] = []
        chunks = self._moto(call.environ, lambda *head: heads.append(head))
        status, headers = heads[0][:2]
        if status.startswith("500") and dict(headers).get("Content-Type", "").startswith("text/html"):
            raise ServiceError("NotImplemented", f"sagemaker-local: moto fails: {call.operation}", 501)
        start_response(*heads[0])
        return chunks

    def _misbehave(self, fault: Fault, call: Call, start_response: StartResponse) -> Iterable[bytes]:
        if not fault.after:
            fault.wait()
        if not fault.error:
            chunks = list(self._serve(call, start_response))
            if fault.after:
                fault.wait()
            return chunks
        if fault.after:
            for _ in self._serve(call, lambda *_: None):
                pass
        else:
            call.body()  # read, or the client may see a broken connection instead of the answer
        if fault.lost:
            with contextlib.suppress(OSError):
                call.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError("lost on order of a test")
        error = fault.as_error()
        content_type, text = call.answer(error)
        return reply(start_response, error.status, text, content_type)


def serve(
    knobs: Knobs, host: str, port: int, ready_file: Path | None = None, allowed_hosts: Sequence[str] = ()
) -> int:
    """Run a stand-in until SIGTERM or Ctrl-C; return the exit status.

    :param port: 0 for any free one
    :param allowed_hosts: further names by which it is reached
    :param ready_file: gets URL and variables as JSON once the stand-in answers
    """
    os.environ["MOTO_DISABLE_GLOBAL_CORS"] = "true"
    from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    try:
        with socket.create_server((host, port)) as probe:
            port = probe.getsockname()[1]
    except OSError as error:
        sys.stderr.write(f"sagemaker-local: {host}:{port} cannot be served: {error.strerror}.\n")
        return 1
    shown_host = "127.0.0.1" if host in ("0.0.0.0", "localhost") else host  # noqa: S104
    quiet: Any = type("Quiet", (MotoRequestHandler,), {"log": lambda *_: None})
    knobs.home.mkdir(parents=True, exist_ok=True)
    context = Context(
        knobs,
        f"http://{shown_host}:{port}",
        f"sagemaker-local/{uuid.uuid4().hex}",
        private_opt_ml=knobs.private_opt_ml and not knobs.engine and private_opt_ml_works(knobs.home),
    )
    stand_in = StandIn(context, DomainDispatcherApplication(create_backend_app), (host, *allowed_hosts))
    server = make_server(host, port, stand_in, threaded=True, request_handler=quiet)
    end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        _furnish(context)
        if ready_file:
            partial = ready_file.with_name(f"{ready_file.name}.partial")
            partial.write_text(json.dumps(ready_report(context)))
            partial.replace(ready_file)
        sys.stdout.write(_ready_text(context))
        sys.stdout.flush()
        while not end.wait(3600):
            pass
    finally:
        stand_in.fleet.close()
        server.shutdown()
    return 0


def environment(context: Context) -> dict[str, str]:
    """Return the variables with which any AWS client reaches the stand-in."""
    return {
        "AWS_ENDPOINT_URL": context.url,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": context.knobs.region,
    }


def ready_report(context: Context) -> dict[str, Any]:
    """Return what the ready file says."""
    return {
        "url": context.url,
        "pid": os.getpid(),
        "environment": environment(context),
        "bucket": BUCKET,
        "role": ROLE_ARN,
        "private_opt_ml": context.private_opt_ml,
    }


def _furnish(context: Context) -> None:
    """Make the bucket and the role that every job needs."""
    s3, iam = context.client("s3", context.knobs.region), context.client("iam", context.knobs.region)
    place = {"LocationConstraint": context.knobs.region}
    s3.create_bucket(
        Bucket=BUCKET, **({} if context.knobs.region == "us-east-1" else {"CreateBucketConfiguration": place})
    )
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ],
    }
    iam.create_role(RoleName=ROLE_NAME, AssumeRolePolicyDocument=json.dumps(trust))


def _ready_text(context: Context) -> str:
    if context.knobs.engine:
        how = f"containers ({context.knobs.engine})"
    elif context.private_opt_ml:
        how = "processes, each with its own /opt/ml"
    else:
        how = "processes with SAGEMAKER_BASE_DIR in place of /opt/ml (a private one needs Linux and root)"
    exports = " ".join(f"{name}={value}" for name, value in environment(context).items())
    return (
        f"A stand-in for SageMaker is ready. It runs training jobs as {how}.\n"
        "It does not show AWS itself: no IAM permissions, VPC, GPU, spot prices, warm pools, quotas.\n\n"
        f"export {exports}\n\n"
        f"bucket  s3://{BUCKET}\n"
        f"role    {ROLE_ARN}\n"
        f"files   {context.knobs.home}\n"
    )
