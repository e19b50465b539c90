"""What to say when a tracking server lets nobody in, or cannot be trusted: one sentence with the remedy."""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING

from mlflow_projects.tracking.answers import json_object, whole_characters

if TYPE_CHECKING:
    import httpx

    from mlflow_projects.tracking.server import TrackingSettings

_LONGEST_QUOTE = 200
_MOST_READ = 10_000  # bytes
# The others of Python's codecs are for more than texts, and some take time by the square.
_CHARSETS = ("utf-8", "us-ascii", "iso-8859-1", "latin-1", "windows-1252")
# OpenSSL's X509_V_ERR_…: https://docs.openssl.org/master/man3/X509_STORE_CTX_get_error/
_CERTIFICATE_EXPIRED = 10
_OTHER_NAME = (62, 64)  # for a host name, for an IP address


def refused_login(settings: TrackingSettings, answer: httpx.Response) -> str:
    """Say why a request got the status 401 or 403, as far as the server tells, and what helps."""
    server = f"The MLflow tracking server at {settings.address}"
    status = f"HTTP {answer.status_code}"
    if answer.status_code == 403:
        said = _quoted(answer, plain_text=True)
        return (
            f"{server} refuses this to {_who(settings)} ({status}{said}); ask its administrator for the right to "
            "write there (in MLflow: EDIT on the experiment)."
        )
    status += _quoted(answer)
    if settings.token:
        return (
            f"{server} refuses the token ({status}): it is wrong or has expired; put a valid one into the password "
            "of the MLflow connection, or into MLFLOW_TRACKING_TOKEN."
        )
    if settings.username:
        return (
            f"{server} refuses the password of user {settings.username!r} ({status}); correct login and password of "
            "the MLflow connection, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        )
    return (
        f"{server} refuses a request without user or token ({status}); put login and password, or a token as "
        "password alone, into the MLflow connection."
    )


def refused_certificate(settings: TrackingSettings, error: BaseException) -> str | None:
    """Say why the server's certificate is not trusted; None if the error has another reason."""
    reason = _certificate_error(error)
    if reason is None:
        return None
    sentence = f"The certificate of the MLflow tracking server at {settings.address} is not trusted"
    if reason.verify_code == _CERTIFICATE_EXPIRED:
        return f"{sentence}: it has expired; renew it on the server."
    if reason.verify_code in _OTHER_NAME:
        return f"{sentence} ({reason.verify_message.rstrip('.')}); use a name that is in the certificate."
    return (
        f"{sentence} ({reason.verify_message}); put the path of a PEM file with its CA into 'server_cert_path' of "
        "the MLflow connection's extra or into MLFLOW_TRACKING_SERVER_CERT_PATH (for tests only: set 'insecure_tls')."
    )


def _certificate_error(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _who(settings: TrackingSettings) -> str:
    if settings.token:
        return "the owner of the token"
    return f"user {settings.username!r}" if settings.username else "a request without user or token"


def _quoted(answer: httpx.Response, *, plain_text: bool = False) -> str:
    """Return ": " and what the server says, if it says something short that a person can read.

    A server of bearer tokens explains itself in a header (https://www.rfc-editor.org/rfc/rfc6750#section-3).
    """
    said = re.search(r'error_description="([^"]*)"', answer.headers.get("WWW-Authenticate", ""))
    text = said.group(1) if said else ""
    if not text:
        content = json_object(answer.content)
        charset = (answer.charset_encoding or "utf-8").lower()
        message = "" if content is None else content.get("message")
        text = message if isinstance(message, str) else ""
        if content is None and plain_text and charset in _CHARSETS and b"<" not in answer.content:
            text = answer.content[:_MOST_READ].decode(charset, "replace")
    text = " ".join(whole_characters(text).split()).rstrip(".")
    return f": {text}" if 0 < len(text) <= _LONGEST_QUOTE else ""
