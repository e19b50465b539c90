"""The same DAG, unchanged, on every tracking set-up of docs/tracking_setups.md; what is said when one refuses."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import trustme

from mlflow_projects import MLflowHook
from tests.conftest import ROOT
from tests.support.dagruns import DagRunResult, run_dag
from tests.support.object_store import SECRET_KEY, running_object_store
from tests.support.setups import (
    DIRECT,
    PASSWORD,
    PROXIED,
    SECRETS,
    SETUPS,
    TOKEN_KEY,
    USER,
    Parts,
    Setup,
    add_user,
)
from tests.support.token_auth import issue_token

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("airflow_db")]

TEXT = "two\nlines"
ECHO = {"uri": f"{ROOT}/sample_projects/echo", "parameters": {"text": "x", "num": 1}}
SHELL = {"uri": f"{ROOT}/tests/projects/shell", "parameters": {"command": "true"}}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    folder = tmp_path_factory.mktemp("setups")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    with running_object_store(folder / "s3", [DIRECT, PROXIED]) as store:
        yield Parts(folder, store, folder / "server.pem", folder / "ca.pem")


@pytest.fixture(scope="module")
def setup(request: pytest.FixtureRequest, parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("worker"))
        with SETUPS[request.param](parts) as made:
            yield made


@pytest.fixture
def worker(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Give this process the worker's variables."""
    for name, value in setup.variables().items():
        monkeypatch.setenv(name, value)
    return monkeypatch


# The others have a case in test-all each: an embedded store, and servers with a database of their own.
NIGHTLY = ("file store", "SQLite", "local server")


def on(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("setup", names, indirect=True)


@on(*(pytest.param(name, marks=pytest.mark.nightly) if name in NIGHTLY else name for name in SETUPS))
def test_the_same_dag_leaves_the_same_record(
    setup: Setup, worker: pytest.MonkeyPatch, parts: Parts, tmp_path: Path
) -> None:
    result = run_dag("echo_zip", {"text": TEXT, "num": 3})
    assert result.state == "success", result.log[-5000:]
    assert MLflowHook().test_connection()[0]  # now that there is a store: the button would make none
    with setup.as_user() as client:
        runs = {run.info.run_name: run for run in _runs(client, result)}
        assert {name: run.info.status for name, run in runs.items()} == dict.fromkeys(
            ("pipeline", "echo", "zip"), "FINISHED"
        )
        assert runs["echo"].data.params == {"text": TEXT, "num": "3"}
        assert runs["echo"].data.metrics == {"lines": 6.0, "bytes": 30.0}
        assert runs["zip"].data.params == {"upstream": f"{runs['echo'].info.artifact_uri}/downstream"}
        assert runs["zip"].data.tags["mlflow.parentRunId"] == runs["pipeline"].info.run_id
        assert all(run.info.artifact_uri.startswith(setup.artifact_root) for run in runs.values())
        echoed = _bytes(client, runs["echo"], "downstream/echo.txt", tmp_path)
        zipped = _bytes(client, runs["zip"], "downstream/upstream.zip", tmp_path)
    assert echoed == f"{TEXT}\n".encode() * 3
    with zipfile.ZipFile(io.BytesIO(zipped)) as archive:
        assert archive.read("echo.txt") == echoed
    if setup.bucket:
        kept = {
            key: content
            for key, content in parts.store.files(setup.bucket).items()
            if runs["echo"].info.run_id in key
        }
        assert list(kept.values()) == [echoed]
    _no_secret_in(result.log, *(str(run.to_dictionary()) for run in runs.values()))


@on("MariaDB, S3 proxied", "PostgreSQL, S3 direct")
def test_no_secret_is_in_the_process_list(setup: Setup) -> None:
    _no_secret_in(*(" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])))


@on("MariaDB, S3 proxied")
def test_mlflow_has_its_twelve_tables_of_the_hands_on_in_mariadb(setup: Setup) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(setup.database)
    tables = set(sqlalchemy.inspect(engine).get_table_names())
    engine.dispose()
    assert engine.dialect.is_mariadb
    assert tables >= {
        "alembic_version",
        "experiment_tags",
        "experiments",
        "latest_metrics",
        "metrics",
        "model_version_tags",
        "model_versions",
        "params",
        "registered_model_tags",
        "registered_models",
        "runs",
        "tags",
    }


@pytest.mark.parametrize("uri", ["./mlruns", None], ids=["named", "left there by an older MLflow"])
def test_a_file_store_that_mlflow_refuses_gives_its_hint_and_no_retry(
    uri: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlruns" / "0").mkdir(parents=True)
    (tmp_path / "mlruns" / "0" / "meta.yaml").touch()
    if uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    _refused(f"The tracking URI file://{tmp_path}/mlruns cannot be used", "set `MLFLOW_ALLOW_FILE_STORE=true`")


@on("PostgreSQL, S3 proxied")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"password": "not-the-password"}, (f"refuses the password of user '{USER}' (HTTP 401)", "correct login")),
        (
            {"login": "", "password": issue_token(TOKEN_KEY, USER, seconds=-60)},
            ("refuses the token (HTTP 401: Signature has expired)", "put a valid one into the password"),
        ),
        (
            {"login": "", "password": issue_token("another-" + TOKEN_KEY, USER)},
            ("refuses the token (HTTP 401: Signature verification failed)", "put a valid one into the password"),
        ),
        ({"login": "", "password": ""}, ("refuses a request without user or token (HTTP 401)",)),
        (
            {"extra": {"server_cert_path": ""}},
            ("certificate", "is not trusted (unable to get local issuer certificate)", "'server_cert_path'"),
        ),
    ],
    ids=["wrong password", "expired token", "forged token", "no login", "unknown certificate"],
)
def test_a_refusal_is_one_sentence_and_no_retry(
    setup: Setup, worker: pytest.MonkeyPatch, changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    # A server that is away would be asked for minutes: max_retries is MLflow's default here.
    extra = {"max_retries": 7, **changes.get("extra", {})}
    worker.setenv(
        "AIRFLOW_CONN_MLFLOW_DEFAULT", setup.variables(**{**changes, "extra": extra})["AIRFLOW_CONN_MLFLOW_DEFAULT"]
    )
    _refused(f"MLflow tracking server at {setup.uri} ", *words)


@on("PostgreSQL, S3 proxied")
def test_a_valid_token_and_insecure_tls_let_the_steps_in(setup: Setup, worker: pytest.MonkeyPatch) -> None:
    extra = {"server_cert_path": "", "insecure_tls": True}
    variables = setup.variables(login="", password=issue_token(TOKEN_KEY, USER), extra=extra)
    worker.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", variables["AIRFLOW_CONN_MLFLOW_DEFAULT"])
    result = run_dag("one_step", ECHO)
    assert result.state == "success", result.log[-5000:]
    _no_secret_in(result.log)


@on("PostgreSQL, S3 proxied")
def test_a_second_user_needs_edit_on_the_experiment(setup: Setup, worker: pytest.MonkeyPatch) -> None:
    from mlflow.server import get_app_client

    conf = {**ECHO, "experiment_name": "owned by another"}
    with setup.as_user() as client:
        experiment = client.create_experiment("owned by another")
    add_user(setup, "second", "second-user-secret-1")
    variables = setup.variables(login="second", password="second-user-secret-1")
    worker.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", variables["AIRFLOW_CONN_MLFLOW_DEFAULT"])
    refused = run_dag("one_step", conf)
    assert (refused.state, refused.tasks["parent.start_run"].try_number) == ("failed", 1)
    assert "refuses this to user 'second' (HTTP 403: Permission denied); ask its administrator" in refused.log
    with setup.as_user():  # who made an experiment may let others in
        get_app_client("basic-auth", setup.uri).grant_user_permission("second", "experiment", experiment, "EDIT")
    allowed = run_dag("one_step", conf)
    assert allowed.state == "success", allowed.log[-5000:]
    assert run_dag("one_step", {**SHELL, "experiment_name": "their own"}).state == "success"


@on("PostgreSQL, S3 direct")
def test_a_wrong_s3_key_is_part_of_the_reason(setup: Setup, worker: pytest.MonkeyPatch) -> None:
    worker.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    _failed(setup, ECHO, f"Its artifact store s3://{DIRECT} cannot be used: S3 refuses the secret key")


@on("PostgreSQL, S3 direct")
def test_a_missing_bucket_is_part_of_the_reason(setup: Setup, worker: pytest.MonkeyPatch) -> None:
    with setup.as_user() as client:
        client.create_experiment("astray", artifact_location="s3://no-such-bucket/runs")
    conf = {**ECHO, "experiment_name": "astray"}
    _failed(setup, conf, "s3://no-such-bucket cannot be used: the bucket 'no-such-bucket' does not exist; create it")


@on("PostgreSQL, S3 direct")
def test_a_failure_of_another_kind_says_nothing_of_the_store(setup: Setup, worker: pytest.MonkeyPatch) -> None:
    conf = {**SHELL, "parameters": {"command": "exit 3"}}
    assert _failed(setup, conf, "exit status 3.").endswith("exit status 3.")


@on("MariaDB, S3 proxied")
def test_a_bucket_missing_behind_the_server_is_told_in_its_words(
    setup: Setup, worker: pytest.MonkeyPatch, parts: Parts
) -> None:
    parts.store.remove(PROXIED)
    try:
        _failed(
            setup,
            ECHO,
            "The artifact store behind the tracking server cannot be used; the server says: ",
            f"Failed to list artifacts in s3://{PROXIED}/mariadb: The specified bucket does not exist. Whoever runs ",
        )
    finally:
        parts.store.client().create_bucket(Bucket=PROXIED)


def _runs(client: Any, result: DagRunResult) -> list[Any]:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, f"tags.`airflow.run_id` = '{result.run_id}'"))


def _bytes(client: Any, run: Any, path: str, folder: Path) -> bytes:
    return Path(client.download_artifacts(run.info.run_id, path, str(folder))).read_bytes()


def _refused(*words: str) -> None:
    """Check that the connection's test and a DAG say the same sentence, and that no task is tried again."""
    usable, sentence = MLflowHook().test_connection()
    assert not usable
    result = run_dag("one_step", ECHO)
    assert result.state == "failed"
    assert result.tasks["parent.start_run"].try_number == 1, "another try with the same login cannot help"
    told = [line for line in result.log.splitlines() if "FailException: " in line]
    assert [line for line in told if sentence in line], result.log[-5000:]
    for word in words:
        assert word in sentence
    _no_secret_in(sentence, result.log)


def _failed(setup: Setup, conf: dict[str, Any], *words: str) -> str:
    """Run a DAG that fails; check and return the reason, in MLflow and in the log."""
    result = run_dag("one_step", conf)
    assert result.state == "failed"
    assert result.tasks["parent.step"].try_number == 2
    with setup.as_user() as client:
        (reason, _) = [
            run.data.tags["mlflow_projects.reason"]
            for run in _runs(client, result)
            if run.data.tags.get("airflow.task_id") == "parent.step"
        ]
    assert f"MLflowFailedException: {reason}" in result.log
    assert reason.startswith("Entry point 'main' of ")
    assert "failed: exit status " in reason
    for word in words:
        assert word in reason
    _no_secret_in(result.log)
    return str(reason)


def _no_secret_in(*texts: str) -> None:
    for secret in (*SECRETS, SECRET_KEY, PASSWORD):
        assert not [text for text in texts if secret in text], secret


def test_a_new_embedded_store_is_made_once_by_many_processes(tmp_path: Path) -> None:
    code = (
        "import sys; from mlflow_projects.tracking.connect import connect;"
        "from mlflow_projects.tracking.server import TrackingSettings as S;"
        "from mlflow_projects.tracking.record import resolve_experiment;"
        "print(resolve_experiment(connect(S(uri=sys.argv[1])), 'x'))"
    )
    command = [sys.executable, "-c", code, f"sqlite:///{tmp_path}/new.db"]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert {process.communicate()[0].splitlines()[-1] for process in started} == {"1"}
    assert not (tmp_path / "mlruns").exists()
