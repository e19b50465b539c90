"""No address shows a password, token or signature, whatever its shape; an honest one is shown as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from airflow.sdk import DAG

from mlflow_projects import MLflowHook, MLflowProjectOperator
from mlflow_projects.cli.check_result import CheckResult, Level
from mlflow_projects.exceptions import ProjectError, StepFailedError, TrackingError
from mlflow_projects.project import work_tree
from mlflow_projects.project.work_tree import BundleCheckout, head_commit
from mlflow_projects.public_uri import public_text, public_uri, secrets_in, without_user
from mlflow_projects.tracking.client import storable
from mlflow_projects.tracking.server import TrackingSettings, normalized
from tests.support.attempts import Life
from tests.support.tracked import TaskInstance, connected, prepared

SECRET = "pLanted7secret"
# The secret's place is §.
ADDRESSES = [
    "https://user:§@h/x.git",
    "https://§@h/x.git",
    "https:/u:§@h",
    "https:/§@h",
    "https:///u:§@h",
    "https:u:§@h/x",
    "HTTPS://U:§@H/x",
    "u:§@h:x",
    "u:§@h/x",
    "git+https://§@h/x",
    "git+ssh://git:§@h/x",
    "https://u:p#§@h/x",
    "https://u:p/§@h/x",
    "https://u:p?§@h/x",
    "https://u:1@§@h/x",
    "https://u:a@§/b@h/x",
    "https://u:p §@h",
    "https://u:p\0§@h",
    "https://u:p'§@h",
    "'https://u:§@h'",
    '"https://§@h/x"',
    "https://u%3A§%40h/x",
    "https%3A%2F%2Fu%3A§%40h%2Fx",
    "https%253A%252F%252F§%2540h",
    r"https:\/\/u:§@h\/x",
    "http://u:§@[::1]:5000/x",
    "https://:§@h",
    "redis://:§@h:6379/0",
    "postgresql+psycopg2://u:§@h:5432/mlflow",
    "jdbc:sqlserver://h;user=u;password=§;x=1",
    "mysql://h/db?user=u&password=§",
    "postgresql:///db?sslpassword=§&host=/tmp",
    "https://gitlab.example/archive.zip?private_token=§",
    "https://h/x#access_token=§",
    "https://h/x?a=1&amp;token=§",
    "https://b.s3.amazonaws.com/k?X-Amz-Credential=AK&X-Amz-Signature=§",
    "https://b.s3.amazonaws.com/k?X-Amz-Security-Token=§&x=1",
    "https://b.s3.amazonaws.com/k?AWSAccessKeyId=AK&Signature=§&Expires=1",
    "https://b.s3.amazonaws.com/k?AWSAccessKeyId=§",
    "https://a.blob.core.windows.net/c/b?sv=1&sig=§",
    "https://storage.googleapis.com/b/o?X-Goog-Signature=§",
    "3s://u:§@h/x",
    "my_db://u:§@h/x",
    "//u:§@h/x",
    "https://h/x?password=ab;§",
    "https://h/x?password=ab)§",
    "https://h/x?token=ab#§",
    "https://h/x?password_1=§",
    "https://h/x?password[0]=§",
    "https://h/x?dbpass=§&userpass=1",
    "https://h/x?hmac=§",
    "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=§",
    "http://h/login?next=https%3A%2F%2Fu%3A§%40h%2F%3Ftoken%3D§",
]
TEXTS = [
    "fatal: unable to access 'https://u:§@h/x.git/': Could not resolve host: h",
    "fatal: unable to access 'https://u:p §@h/x.git/': no",
    "HTTPSConnectionPool(host='h', port=443): Max retries exceeded with url: /x.zip?X-Amz-Signature=§ (Caused by E)",
    "(psycopg2.OperationalError) postgresql://u:§@db/mlflow cannot be reached",
    "Redirect response '302 Found' for url 'https://h/x?private_token=§'\nRedirect location: 'http://§@other/'",
    "接続先https://u:§@h/x",
    "주소https://u:§@h/x に",
    "url_https://u:§@h/x",
    "connection to host=db user=u password=§ failed",
    "password=§",
    "'docker_env.volumes' has 'nfs://u:§@h/data:/data:ro'",
    '{"index": "https://u:§@pypi.example/simple", "n": 1}',
]
HONEST = [
    "https://github.com/o/r@v1.2#sub/dir",
    "http://minio:9000/bucket/user@example.com/file",
    "git@github.com:org/repo.git",
    "ssh://git@h/x",
    "s3://bucket/a@b/c",
    "abfss://container@account.dfs.core.windows.net/path",
    "file:///home/u:x@y/project",
    "sqlite:////home/a:b@c/mlflow.db",
    "models:/m@champion",
    "runs:/0123/a@b",
    "mlflow-artifacts:/x@y",
    "dbfs:/a:b@c",
    "databricks://scope:prefix",
    "registry:5000/image@sha256:" + "0a" * 32,
    "/data/a:b@c/x",
    "./a:b@c/x",
    "C:\\Users\\a@b",
    "http://[::1]:5000/x@y",
    "bob@example.com",
    "mailto:bob@example.com",
    "http://h/?max_tokens=5&tokenizer=bert&author=x&monkey=1",
    "arn:aws:sagemaker:us-east-1:123456789012:training-job/x",
    "12:30@room",
]


def planted(text: str) -> str:
    return text.replace("§", SECRET)


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_shown_without_its_secret_which_is_known_from_then_on(address: str) -> None:
    uri = planted(address)
    shown = public_uri(uri)
    assert SECRET not in shown
    assert public_uri(shown) == shown
    assert any(SECRET in secret for secret in secrets_in(uri))
    assert all(secret in uri or quote(secret, safe="") in uri for secret in secrets_in(uri))


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_shows_its_addresses_without_secrets(text: str) -> None:
    assert SECRET not in public_text(planted(text))


@pytest.mark.parametrize("text", HONEST)
def test_an_honest_address_is_shown_as_it_is(text: str) -> None:
    assert public_uri(text) == text
    assert public_text(f"x {text} y") == f"x {text} y"
    assert secrets_in(text) == []


def test_a_text_beside_addresses_stays() -> None:
    text = "see https://example.com/x and write to bob@example.com; a=b, {'a': 'https://h:1', 'b': 'x@y'}"
    assert public_text(text) == text


def test_the_address_that_is_used_loses_its_user_only() -> None:
    assert without_user("https://t0ken@h/x.zip?X-Amz-Signature=s@t#u") == "https://h/x.zip?X-Amz-Signature=s@t#u"
    assert without_user("https://h/@scope") == "https://h/@scope"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("text", ["http://a:b,", "%26", "a:,", ";aaa", "x", ":", "http://", "[?&", "@", "a:b@"])
def test_no_output_keeps_the_task_busy(text: str) -> None:
    """Each search is bounded: with the square of the length, this would take hours."""
    public_text(text * (200_000 // len(text)) + "@=")


@pytest.mark.parametrize("kind", [ProjectError, StepFailedError, TrackingError])
def test_no_error_of_ours_says_a_secret(kind: type[Exception]) -> None:
    assert SECRET not in str(kind(planted("https://u:§@h/x cannot be read: see https://h?token=§")))


@pytest.mark.parametrize("uri", [planted(address) for address in ADDRESSES])
def test_a_refused_uri_leaves_no_secret_in_the_record(uri: str, tmp_path: Path) -> None:
    life = Life(tmp_path)
    for step in ({"uri": uri}, {"tags": {"seen": uri}, "run_name": f"of {planted('https://u:§@h')}"}):
        with pytest.raises((ProjectError, StepFailedError)) as refused:
            life.attempt("exit 1", **step).run()
        assert SECRET not in str(refused.value)
    assert SECRET not in str(life.runs)
    assert SECRET not in str(life.log)


def test_parameters_are_recorded_with_public_addresses_and_passed_as_they_are(tmp_path: Path) -> None:
    life = Life(tmp_path)
    url = planted("https://b.s3.amazonaws.com/k?X-Amz-Signature=§")
    life.attempt(f"expr length '{url}'").run()
    assert str(len(url)) in life.log
    assert "X-Amz-Signature=***" in life.only_run.params["command"]
    assert SECRET not in str(life.runs)


def test_whatever_goes_to_mlflow_is_public() -> None:
    assert storable(planted("at https://u:§@h/x?sig=§")) == "at https://h/x?sig=***"


@pytest.mark.parametrize(
    "uri", [planted("postgresql://u:§@db.invalid/mlflow"), planted("mysql+pymysql://h/db?password=§")]
)
def test_a_databases_password_is_in_neither_log_nor_button_nor_page(
    uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    connected(monkeypatch, uri)
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({"conn_type": "mlflow", "host": uri}))
    hook = MLflowHook()
    _, sentence = hook.test_connection()
    assert SECRET not in sentence + repr(hook.settings) + hook.settings.run_url("0", "r")
    assert hook.settings.environment()["MLFLOW_TRACKING_URI"] == uri  # the command needs it
    monkeypatch.delenv("AIRFLOW_CONN_MLFLOW_DEFAULT")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    _, sentence = MLflowHook().test_connection()
    assert SECRET not in sentence


def test_links_lead_to_public_addresses() -> None:
    settings = TrackingSettings("http://h", ui_url=planted("https://u:§@mlflow.example"))
    assert settings.run_url("0", "r") == "https://mlflow.example/#/experiments/0/runs/r"


def test_a_token_as_user_of_the_tracking_uri_is_used_and_not_shown() -> None:
    settings = normalized(TrackingSettings(planted("https://§@mlflow.example/x")))
    assert (settings.username, settings.uri) == (SECRET, "https://mlflow.example/x")


def test_the_documentation_of_a_task_shows_public_addresses() -> None:
    with DAG("d", schedule=None):
        step = MLflowProjectOperator(
            task_id="step", uri=planted("https://u:§@h/x#sub"), parameters={"data": planted("https://h/?sig=§")}
        )
    assert "`https://h/x#sub`" in step.doc_md
    assert SECRET not in step.doc_md


def test_what_airflow_keeps_of_a_rendered_uri_is_masked() -> None:
    from airflow.sdk._shared.secrets_masker import redact

    with DAG("d", schedule=None):
        step = MLflowProjectOperator(task_id="step", uri="{{ params.uri }}")
    ti = TaskInstance("step")
    unique = "pLanted7for-this-test"
    task = prepared(step, {"ti": ti, "params": {"uri": f"https://u:{unique}@h/x"}})
    assert unique in task.uri
    assert unique not in str(redact(task.uri, "uri"))


def test_an_artifact_address_with_a_password_is_in_no_xcom() -> None:
    from mlflow_projects.tracking.client import Run

    with DAG("d", schedule=None):
        step = MLflowProjectOperator(task_id="step", uri="x")

    def told(uri: str) -> Any:
        return step.xcom_of(Run("r1", "0", "n", "FINISHED", uri), "FINISHED")["artifact_uri"]

    assert told(planted("ftp://u:§@h/r1/artifacts")) == "runs:/r1"
    assert told("s3://b/r1/artifacts") == "s3://b/r1/artifacts"


def test_the_command_line_shows_public_addresses() -> None:
    assert SECRET not in str(CheckResult(Level.ERROR, planted("https://u:§@h cannot be used")))


def test_the_origin_of_a_work_tree_is_public(tmp_path: Path) -> None:
    url = planted("git+https://§@h/x")
    (tmp_path / "project").mkdir()
    found = head_commit(tmp_path / "project", BundleCheckout(tmp_path, "a" * 40, url))
    assert found == ("a" * 40, "git+https://h/x", False)
    assert work_tree.public_uri is public_uri
