"""The MLflow run of a job that was stopped."""

from __future__ import annotations

import base64
import json
import ssl
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

_TRACKING_TIMEOUT = 5.0
_REASON_TAG = "mlflow_projects.reason"  # the worker writes it before it stops a job


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the password to another host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Tracking:
    """The two calls of MLflow's REST API that a stop needs."""

    def __init__(self, environment: dict[str, str]) -> None:
        get: Callable[[str], str] = lambda name: environment.get("MLFLOW_TRACKING_" + name, "")  # noqa: E731
        self._base = get("URI").rstrip("/") + "/api/2.0/mlflow/"
        self._headers = {"Content-Type": "application/json", "User-Agent": "mlflow-projects-on-airflow"}
        if get("TOKEN"):
            self._headers["Authorization"] = "Bearer " + get("TOKEN")
        elif get("USERNAME") or get("PASSWORD"):
            pair = (get("USERNAME") + ":" + get("PASSWORD")).encode()
            self._headers["Authorization"] = "Basic " + base64.b64encode(pair).decode()
        context = ssl.create_default_context()
        if get("INSECURE_TLS").lower() in ("1", "true"):
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        elif get("SERVER_CERT_PATH"):
            here = Path(get("SERVER_CERT_PATH"))
            context.load_verify_locations(**{"capath" if here.is_dir() else "cafile": str(here)})
        if get("CLIENT_CERT_PATH"):
            context.load_cert_chain(get("CLIENT_CERT_PATH"))
        self._http = urllib.request.build_opener(_NoRedirect, urllib.request.HTTPSHandler(context=context))

    def _call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data, self._headers)  # noqa: S310 (http only, see below)
        with self._http.open(request, timeout=_TRACKING_TIMEOUT) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def close_stopped(self, run_id: str, restarts: bool) -> str:
        """Give the run of a stopped command its true status; return that, or "" if it has it already.

        MLflow's own atexit hook may have written FINISHED. A job that the platform interrupted, and will start
        again, goes on with the same run; one that was stopped for a reason does not.
        """
        if restarts:
            run = self._call("runs/get?run_id=" + urllib.parse.quote(run_id, safe=""))["run"]
            if not any(tag["key"] == _REASON_TAG for tag in run.get("data", {}).get("tags", [])):
                if run["info"]["status"] == "RUNNING":
                    return ""
                self._call("runs/update", {"run_id": run_id, "status": "RUNNING"})
                return "RUNNING"
        ended = {"run_id": run_id, "status": "KILLED", "end_time": int(time.time() * 1000)}
        self._call("runs/update", ended)
        return "KILLED"
