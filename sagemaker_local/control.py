"""The endpoint ``/_sagemaker_local`` by which tests order faults and look behind the scenes.

=======  ================  ================================================================================
method   path              what it does
=======  ================  ================================================================================
GET      ``/health``       answers 200
POST     ``/faults``       orders a fault or a list of faults; see :class:`Fault` for the keys
GET      ``/faults``       lists the faults still to come, and those that hold a request
DELETE   ``/faults``       forgets them, and ends what they hold; with ``{"access_key": …}`` only those for that key
GET      ``/requests``     ``{"counts": {"sagemaker.DescribeTrainingJob": 3, …}, "create_training_job": […]}``
DELETE   ``/requests``     begins to count anew
GET      ``/jobs``         the jobs with their status, the process ids and the exit statuses of their instances
POST     ``/interrupt``    ``{"job": name}``: takes a spot job's instances away; it starts again
POST     ``/age``          ``{"job": name, "seconds": n}``: the job counts as having trained so much longer
POST     ``/forget``       ``{"job": name}``: ends the job and knows it no more, as another account or region would
=======  ================  ================================================================================
"""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections import Counter
from typing import Any

from sagemaker_local.lifecycle import Fleet
from sagemaker_local.wire import Call, Environ, ServiceError, StartResponse, reply_json

PREFIX = "/_sagemaker_local"
_STATUS = {
    "InternalServerError": 500,
    "InternalFailure": 500,
    "InternalError": 500,
    "ServiceUnavailable": 503,
    "SlowDown": 503,
    "AccessDenied": 403,
}


@dataclasses.dataclass(eq=False)
class Fault:
    """A misbehaviour on order.

    :param service: ``sagemaker``, ``s3``, ``logs``, ``sts``, ``secretsmanager``, ``ecr``, ``iam`` or ``*``
    :param operation: such as ``DescribeTrainingJob``, or ``*``
    :param error: the code to answer with; ``lost`` cuts the connection; empty lets the request through (late)
    :param status: HTTP status; 0 takes the usual one of the code
    :param times: how often; 0 for as often as happens within ``seconds``
    :param seconds: from now on until the fault is over; 0 for no end
    :param access_key: only requests that are signed with this key; empty for all
    :param after: the operation takes effect, only its answer is wrong
    :param delay: seconds by which the answer is late; with ``after``, the operation itself is not
    :param hold: it is late until the fault is forgotten
    :param struck: how often it happened
    """

    service: str = "*"
    operation: str = "*"
    error: str = ""
    message: str = ""
    status: int = 0
    times: int = -1
    seconds: float = 0
    access_key: str = ""
    after: bool = False
    delay: float = 0
    hold: bool = False
    struck: int = 0

    def __post_init__(self) -> None:
        if self.times < 0:
            self.times = 0 if self.seconds else 1
        self.until = time.monotonic() + self.seconds if self.seconds else float("inf")
        self.forgotten = threading.Event()

    def wait(self) -> None:
        """Be late."""
        if self.hold:
            self.forgotten.wait()
        else:
            time.sleep(self.delay)

    def is_for(self, call: Call) -> bool:
        """Tell whether a request is one of those that go wrong."""
        return (
            self.service in ("*", call.service)
            and self.operation in ("*", call.operation)
            and self.access_key in ("", call.access_key)
        )

    @property
    def lost(self) -> bool:
        """The client gets no answer at all."""
        return self.error == "lost"

    def as_error(self) -> ServiceError:
        """Return the answer."""
        message = self.message or f"{self.error} on order of a test"
        return ServiceError(self.error, message, self.status or _STATUS.get(self.error, 400))


class Control:
    """Keeps the faults to come and the requests that came."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._holding: list[Fault] = []
        self._counts: Counter[str] = Counter()
        self._created: list[dict[str, Any]] = []

    def seen(self, call: Call) -> None:
        """Count a request."""
        with self._lock:
            self._counts[f"{call.service}.{call.operation}"] += 1
        if (call.service, call.operation) == ("sagemaker", "CreateTrainingJob"):
            try:
                request = json.loads(call.body())
            except ValueError:
                return
            with self._lock:
                self._created.append(request)

    def fault_for(self, call: Call) -> Fault | None:
        """Take the first fault that is ordered for this request."""
        with self._lock:
            now = time.monotonic()
            self._faults = [fault for fault in self._faults if fault.until > now]
            for fault in self._faults:
                if fault.is_for(call):
                    fault.struck += 1
                    if fault.hold and fault not in self._holding:
                        self._holding.append(fault)
                    if fault.times == 1:
                        self._faults.remove(fault)
                    elif fault.times:
                        fault.times -= 1
                    return fault
        return None

    def __call__(self, environ: Environ, start_response: StartResponse) -> list[bytes]:
        """Serve the endpoint."""
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"].removeprefix(PREFIX)
        try:
            given = json.loads(Call(environ).body() or b"null")
            return reply_json(start_response, self._handle(method, path, given))
        except (TypeError, ValueError, KeyError) as error:
            return reply_json(start_response, {"error": f"{type(error).__name__}: {error}"}, 400)

    def _handle(self, method: str, path: str, given: Any) -> object:
        if path == "/health":
            return {"ready": True}
        if path == "/faults" and method == "POST":
            ordered = [Fault(**fault) for fault in (given if isinstance(given, list) else [given])]
            with self._lock:
                self._faults += ordered
        elif path == "/faults" and method == "DELETE":
            key = (given or {}).get("access_key", "")
            with self._lock:
                for fault in (*self._faults, *self._holding):
                    if key in ("", fault.access_key):
                        fault.forgotten.set()
                self._faults, self._holding = (
                    [fault for fault in faults if not fault.forgotten.is_set()]
                    for faults in (self._faults, self._holding)
                )
        elif path == "/requests" and method == "DELETE":
            with self._lock:
                self._counts.clear()
                self._created.clear()
        elif path == "/jobs":
            return self._fleet.overview()
        elif path == "/interrupt" and method == "POST":
            self._fleet.interrupt(given["job"])
        elif path == "/age" and method == "POST":
            self._fleet.age(given["job"], given["seconds"])
        elif path == "/forget" and method == "POST":
            self._fleet.forget(given["job"])
        elif path not in ("/faults", "/requests"):
            raise ValueError(f"there is no {method} {PREFIX}{path}")
        with self._lock:
            if path == "/requests":
                return {"counts": dict(self._counts), "create_training_job": list(self._created)}
            return {
                name: [dataclasses.asdict(fault) for fault in faults]
                for name, faults in (("faults", self._faults), ("holding", self._holding))
            }
