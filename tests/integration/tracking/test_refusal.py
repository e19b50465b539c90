"""Who is not let in, or meets a certificate that nobody vouches for, reads one sentence with the remedy."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mlflow_projects.exceptions import TrackingError, TrackingRefusedError
from mlflow_projects.tracking.connect import connect
from mlflow_projects.tracking.server import TrackingSettings
from tests.support.flaky import FlakyProxy, answer


@pytest.fixture
def proxy() -> Iterator[FlakyProxy]:
    with FlakyProxy("http://127.0.0.1:9") as running:
        yield running


@pytest.mark.parametrize(
    ("login", "fault", "words"),
    [
        (
            {"username": "me", "password": "pw-4711"},
            answer(401),
            "refuses the password of user 'me' (HTTP 401); correct",
        ),
        ({"token": "pw-4711"}, answer(401), "refuses the token (HTTP 401): it is wrong or has expired; put a valid"),
        (
            {"token": "pw-4711"},
            answer(401, {"WWW-Authenticate": 'Bearer error="x", error_description="too old"'}),
            "refuses the token (HTTP 401: too old)",
        ),
        ({}, answer(401), "refuses a request without user or token (HTTP 401)"),
        (
            {"username": "me", "password": "pw-4711"},
            answer(403, body=b"Permission denied"),
            "refuses this to user 'me' (HTTP 403: Permission denied); ask its administrator",
        ),
        ({"token": "pw-4711"}, answer(403, body=b"<html>no</html>"), "to the owner of the token (HTTP 403); ask"),
        ({}, answer(403, body=b'{"message": "Not\\nyou."}'), "without user or token (HTTP 403: Not you); ask"),
    ],
)
def test_a_refused_login_is_told_once(proxy: FlakyProxy, login: dict[str, str], fault: object, words: str) -> None:
    proxy.faults["runs/get"] = [fault]  # type: ignore[list-item]
    with pytest.raises(TrackingRefusedError) as caught:
        connect(TrackingSettings(uri=proxy.url, **login)).get_run("x")
    assert words in str(caught.value)
    assert "pw-4711" not in str(caught.value)
    assert proxy.requests == ["runs/get"]


def test_a_refusal_of_the_servers_own_key_is_not_taken_for_ours(proxy: FlakyProxy) -> None:
    body = b'{"error_code": "UNAUTHENTICATED", "message": "Failed to list artifacts in s3://b/a: Check your key."}'
    proxy.faults["artifacts/list"] = [answer(401, body=body)]  # as MLflow 3.17.2 answers
    with pytest.raises(TrackingError, match=r"^Failed to list artifacts in s3://b/a: Check your key\.$") as caught:
        connect(TrackingSettings(uri=proxy.url)).list_artifacts("x")
    assert not isinstance(caught.value, TrackingRefusedError)


@pytest.fixture
def https_server(tmp_path: Path) -> Iterator[Callable[..., TrackingSettings]]:
    """Yield a function that runs an https server on a self-signed certificate and returns how to reach it."""
    servers = []

    def run(name: str = "127.0.0.1", days: int = 1, **settings: object) -> TrackingSettings:
        file = tmp_path / "server.pem"
        file.write_bytes(_self_signed(name, days))
        server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # answers 501 to whatever is asked
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        if settings.pop("trusted", False):
            settings["server_cert_path"] = str(file)
        return TrackingSettings(uri=f"https://127.0.0.1:{server.server_port}", **settings)  # type: ignore[arg-type]

    yield run
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_self_signed_certificate_is_named_with_the_way_to_trust_it(
    https_server: Callable[..., TrackingSettings],
) -> None:
    with pytest.raises(
        TrackingRefusedError, match=r"is not trusted \(self-signed certificate\); put .*server_cert_path"
    ):
        connect(https_server()).get_run("x")
    for way in ({"trusted": True}, {"insecure_tls": True}):
        with pytest.raises(TrackingError, match="HTTP 501"):  # let in, and no MLflow there
            connect(https_server(**way)).get_run("x")


def test_a_certificate_that_trust_cannot_mend_is_named(https_server: Callable[..., TrackingSettings]) -> None:
    with pytest.raises(TrackingRefusedError, match="is not trusted: it has expired; renew it"):
        connect(https_server(days=-1, trusted=True)).get_run("x")
    with pytest.raises(
        TrackingRefusedError, match=r"not valid for '127.0.0.1'\); use a name that is in the certificate"
    ):
        connect(https_server("127.0.0.2", trusted=True)).get_run("x")


def _self_signed(address: str, days: int) -> bytes:
    """Return key and certificate of an address, valid until so many days from now, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address)])
    end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - datetime.timedelta(days=30))
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)
