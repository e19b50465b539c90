"""Where the tracking server is and how to get in."""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, quote, unquote, urlsplit

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.public_uri import public_uri, without_user

_DEFAULT_URI = "sqlite:///mlflow.db"
_OLD_DEFAULT_URI = "./mlruns"
_MOST_BYTES_FOR_A_PERSON = 32 * 2**20

# What may be done to a store that no server guards: make it where it is not, change what is there, only read it.
Access = Literal["make", "change", "read"]


@dataclass(frozen=True)
class TrackingSettings:
    """How to reach a tracking server.

    :param uri: as in ``MLFLOW_TRACKING_URI``, absolute and without credentials
    :param username: for basic authentication
    :param password: for basic authentication
    :param token: bearer token; wins over user and password, as in MLflow
    :param insecure_tls: do not check the server's certificate
    :param server_cert_path: a CA bundle to check the server's certificate against
    :param client_cert_path: a PEM file with this client's certificate and key
    :param ui_url: what a browser calls the server, if that differs from ``uri``
    :param timeout: seconds that one request may take, its whole answer included
    :param max_retries: how often a request is tried again when the server is away
    :param max_bytes: of one answer, unpacked
    :param access: what a client may do to a database or a file store
    :param extra_environment: more variables for the entry point, for example an S3 endpoint
    """

    uri: str = field(repr=False)
    username: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    insecure_tls: bool = False
    server_cert_path: str = ""
    client_cert_path: str = ""
    ui_url: str = ""
    timeout: float = 60.0
    max_retries: int = 7
    max_bytes: int = 64 * 2**20  # some 1.2 GB in memory, if somebody means ill
    access: Access = "make"
    extra_environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    def for_a_person(self, seconds: float) -> TrackingSettings:
        """Return the settings to read with little patience: somebody waits for the answer.

        :param seconds: for one request, at most
        """
        return replace(
            self,
            timeout=min(seconds, self.timeout),
            max_retries=0,
            max_bytes=_MOST_BYTES_FOR_A_PERSON,
            access="read",
        )

    @property
    def address(self) -> str:
        """The URI as it may be shown: that of a database holds a password."""
        return public_uri(self.uri)

    @property
    def is_http(self) -> bool:
        """Tell whether the server is reached through MLflow's REST API."""
        return self.uri.startswith(("http://", "https://"))

    def missing_database(self) -> Path | None:
        """Return the SQLite file that the URI names if it is not there, or None; to connect would make it."""
        file = sqlite_file(self.uri)
        return None if file is None or os.path.exists(file) else file  # noqa: PTH110  (Path raises for long names)

    def environment(self) -> dict[str, str]:
        """Return the variables with which MLflow's client in an entry point reaches the same server."""
        variables = {
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_TRACKING_USERNAME": self.username,
            "MLFLOW_TRACKING_PASSWORD": self.password,
            "MLFLOW_TRACKING_TOKEN": self.token,
            "MLFLOW_TRACKING_INSECURE_TLS": "true" if self.insecure_tls else "",
            "MLFLOW_TRACKING_SERVER_CERT_PATH": self.server_cert_path,
            "MLFLOW_TRACKING_CLIENT_CERT_PATH": self.client_cert_path,
            **self.extra_environment,
        }
        return {name: value for name, value in variables.items() if value}

    def run_url(self, experiment_id: str, run_id: str) -> str:
        """Return the run's page in MLflow's UI, or "" where no UI is known (a bare database, say)."""
        return self._page(f"experiments/{experiment_id}/runs/{run_id}")

    def model_version_url(self, name: str, version: int) -> str:
        """Return the page of a model's version in MLflow's UI, or "" where no UI is known."""
        return self._page(f"models/{quote(name, safe='', errors='replace')}/versions/{version}")

    def _page(self, route: str) -> str:
        base = public_uri(self.ui_url or (self.uri if self.is_http else ""))
        return f"{base.rstrip('/')}/#/{route}" if base else ""


def sqlite_file(uri: str) -> Path | None:
    """Return the file that a SQLite URI names, with its options left out; None for any other URI, and for memory.

    The name may be SQLite's own URI: ``sqlite:///file:/a/b.db?uri=true``.
    """
    found = re.fullmatch(r"sqlite(?:\+\w+)?:///(file:(?://(?=/))?)?([^?]+)(\?.*)?", uri, re.DOTALL)
    if found is None or found[2] == ":memory:" or "mode=memory" in (found[3] or ""):
        return None
    if "%" not in found[2]:
        return Path(found[2])
    from sqlalchemy import make_url  # 2.1 decodes the name, 2.0 does not

    return Path(re.sub("^file:(//(?=/))?", "", make_url(uri).database or ""))


def settings_from_environment(environment: Mapping[str, str] | None = None) -> TrackingSettings:
    """Read the variables that every MLflow user knows; where none is set, MLflow's own default counts.

    :raises ProjectError: a variable holds what it cannot hold
    """
    env = os.environ if environment is None else environment

    def number(name: str, default: float) -> float:
        try:
            value = float(env.get(name) or default)
            if math.isfinite(value):
                return value
            raise ValueError
        except ValueError as error:
            raise ProjectError(f"The environment variable {name} must be a number, not {env[name]!r}.") from error

    return normalized(
        TrackingSettings(
            uri=env.get("MLFLOW_TRACKING_URI") or _default_uri(),
            username=env.get("MLFLOW_TRACKING_USERNAME", ""),
            password=env.get("MLFLOW_TRACKING_PASSWORD", ""),
            token=env.get("MLFLOW_TRACKING_TOKEN", ""),
            insecure_tls=env.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("1", "true"),
            server_cert_path=env.get("MLFLOW_TRACKING_SERVER_CERT_PATH", ""),
            client_cert_path=env.get("MLFLOW_TRACKING_CLIENT_CERT_PATH", ""),
            ui_url=env.get("MLFLOW_PROJECTS_UI_URL", ""),
            timeout=number("MLFLOW_HTTP_REQUEST_TIMEOUT", TrackingSettings.timeout),
            max_retries=int(number("MLFLOW_HTTP_REQUEST_MAX_RETRIES", TrackingSettings.max_retries)),
        )
    )


def _parts(uri: str) -> SplitResult:
    """Return the parts of a tracking URI.

    :raises ProjectError: it has none; the sentence does not repeat it, as what cannot be read may hold a password
    """
    remedy = "correct the host of the MLflow connection, or MLFLOW_TRACKING_URI."
    if re.search("[\0-\x1f\x7f\ud800-\udfff]", uri):
        raise ProjectError(f"The tracking URI holds a control character, or half of a character; {remedy}")
    try:
        parts = urlsplit(uri)
        if parts.scheme in ("http", "https") and (not parts.hostname or parts.port == 0):
            raise ValueError
    except ValueError as error:
        raise ProjectError(f"The tracking URI is no valid URL (its host or port); {remedy}") from error
    return parts


def _default_uri() -> str:
    """Return MLflow's own default: a database in this folder, or the file store that an older MLflow left there.

    Source: mlflow.tracking._tracking_service.utils._get_default_tracking_uri.
    """
    has_runs = any(file.parent.name.isdigit() for file in Path(_OLD_DEFAULT_URI).glob("*/meta.yaml"))
    return _OLD_DEFAULT_URI if has_runs else _DEFAULT_URI


def normalized(settings: TrackingSettings) -> TrackingSettings:
    """Return settings whose URI means the same from every folder and holds no credentials.

    An entry point runs in its project's folder, where a relative ``sqlite:///mlflow.db`` would be
    another database.

    :raises ProjectError: the URI is none, or the time-out no time
    """
    uri = settings.uri.strip()
    parts = _parts(uri)
    if not 0 < settings.timeout <= threading.TIMEOUT_MAX:
        raise ProjectError(
            "The time-out for the tracking server ('timeout' of the connection's extra, or "
            f"MLFLOW_HTTP_REQUEST_TIMEOUT) must be a number of seconds above 0, not {settings.timeout:g}."
        )
    if parts.scheme in ("http", "https") and "@" in parts.netloc:
        settings = replace(
            settings,
            # Percent-encoded, as MLflow's client (that is, requests) reads them too.
            username=settings.username or unquote(parts.username or ""),
            password=settings.password or unquote(parts.password or ""),
        )
        uri = without_user(parts.geturl())
    elif parts.scheme in ("http", "https"):
        uri = parts.scheme + uri[len(parts.scheme) :]  # HTTP:// means the same
    elif found := re.match(r"sqlite(\+\w+)?:///(file:)?(?!/|:memory:|file:)", uri):
        uri = f"{found[0]}{Path(uri[found.end() :]).absolute()}"
    elif not parts.scheme and uri != "databricks":
        uri = Path(uri).absolute().as_uri()
    return replace(settings, uri=uri.rstrip("/") if parts.scheme in ("http", "https") else uri)
