"""What of docs/deploying.md and its values file can be checked without a cluster."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.configuration import conf
from airflow.models.connection import Connection

from mlflow_projects.provider_info import PROVIDER_INFO
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "deploying.md").read_text()
VALUES: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "examples" / "kubernetes-values.yaml").read_text())
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)


def connections() -> dict[str, Connection]:
    lines = re.findall(r"^AIRFLOW_CONN_(\w+)=(.+)$", PAGE, re.MULTILINE)
    return {name.lower(): Connection.from_json(text, conn_id=name.lower()) for name, text in lines}


def test_each_secret_that_the_values_name_is_made_on_the_page() -> None:
    named = {VALUES[key] for key in ("fernetKeySecretName", "apiSecretKeySecretName", "jwtSecretName")}
    named |= {VALUES["data"]["metadataSecretName"]}
    named |= {source["secretRef"]["name"] for source in yaml.safe_load(VALUES["extraEnvFrom"])}
    assert set(re.findall(r"kubectl create secret generic (\S+)", PAGE)) == named
    for key in ("fernet-key", "api-secret-key", "jwt-secret"):  # as the chart's templates look for them
        assert f"--from-literal={key}=" in PAGE


def test_airflow_knows_each_option() -> None:
    known = {**conf.configuration_description, **PROVIDER_INFO["config"]}
    for section, options in VALUES["config"].items():
        assert set(options) <= set(known[section]["options"]), section


def test_the_scheduler_s_pause_is_that_of_the_other_ways_to_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    from home import PAUSES

    pause = VALUES["config"]["scheduler"]["scheduler_idle_sleep_time"]
    assert pause == PAUSES["AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME"]
    page = (ROOT / "docs" / "operating.md").read_text()
    copied = dict(re.findall(r"^export (AIRFLOW__\w+)=(\S+)", page, re.MULTILINE))
    assert copied == PAUSES


def test_the_image_is_of_the_version_that_is_tested() -> None:
    lock = (ROOT / "requirements.txt").read_text()  # make matrix LOWEST=1 runs with another one
    assert f"\napache-airflow=={VALUES['airflowVersion']} " in lock
    assert f"{VALUES['defaultAirflowRepository']}-torch:{VALUES['defaultAirflowTag']}" in PAGE


def test_the_cache_is_on_the_volume() -> None:
    workers = VALUES["workers"]
    (mount,) = workers["extraVolumeMounts"]
    assert [volume["name"] for volume in workers["extraVolumes"]] == [mount["name"]]
    assert VALUES["config"]["mlflow_projects"]["cache_dir"] == mount["mountPath"]
    size = int(workers["extraVolumes"][0]["emptyDir"]["sizeLimit"].removesuffix("Gi"))
    assert float(VALUES["config"]["mlflow_projects"]["cache_max_gb"]) < size


def test_airflow_makes_the_bundle_from_the_values_and_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.providers.git.bundles.git import GitDagBundle

    (given,) = VALUES["dagProcessor"]["dagBundleConfigList"]
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([given]))
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH", str(tmp_path))
    conn = connections()[given["kwargs"]["git_conn_id"]]
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn.conn_id.upper()}", conn.as_json())
    bundle = DagBundlesManager().get_bundle(given["name"])
    assert isinstance(bundle, GitDagBundle)
    assert (bundle.tracking_ref, bundle.subdir, bundle.refresh_interval) == ("main", "dags", 60)
    assert bundle.repo_url == conn.host


def test_the_connections_are_of_the_types_that_the_page_means() -> None:
    types = {name: conn.conn_type for name, conn in connections().items()}
    assert types == {"mlflow_default": "mlflow", "models_git": "git", "aws_default": "aws"}
    assert VALUES["config"]["logging"]["remote_log_conn_id"] in types


def test_the_page_s_python_is_python_and_its_arguments_exist() -> None:
    import inspect

    from mlflow_projects import mlflow_run

    for language, text in BLOCKS:
        if language == "python":
            compile(text, "docs/deploying.md", "exec")
    assert "start_end_args" in inspect.signature(mlflow_run).parameters


def test_the_executor_that_the_page_gives_start_and_end_is_one_that_it_has_the_chart_start() -> None:
    [named] = re.findall(r'start_end_args={"executor": "(\w+)"}', PAGE)
    [started] = re.findall(r'^executor: "?([\w,]+)"?$', PAGE, re.MULTILINE)
    assert named in started.split(",")[1:], "the first one is for all other tasks"
