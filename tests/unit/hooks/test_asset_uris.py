"""The scheme mlflow:// of assets: one address for each thing, one sentence for what is none."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from airflow.sdk import Asset

from mlflow_projects.hooks.asset_uris import asset_of, dataset_of, namespace_of, normalized, to_openlineage
from mlflow_projects.tracking.server import TrackingSettings

RUN = "0123456789abcdef" * 2
SERVER = "mlflow://tracking.test:5000"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("mlflow://models/Wine", "mlflow://models/Wine"),
        ("MLFLOW://Models/Wine/", "mlflow://models/Wine"),
        ("mlflow://models/Red wine", "mlflow://models/Red%20wine"),
        ("mlflow://models/Red%20wine", "mlflow://models/Red%20wine"),
        ("mlflow://models/Wine@champion", "mlflow://models/Wine@champion"),
        ("mlflow://models/cat.schema.wine/3", "mlflow://models/cat.schema.wine/3"),
        (f"mlflow://runs/{RUN}", f"mlflow://runs/{RUN}"),
        (f"mlflow://runs/{RUN}/made/text.txt?x=1", f"mlflow://runs/{RUN}/made/text.txt"),
        ("mlflow://experiments//Users/ada/wine", "mlflow://experiments/Users/ada/wine"),
    ],
)
def test_airflow_keeps_one_address_for_each_thing(given: str, expected: str) -> None:
    assert Asset("name", given).uri == expected  # through what the package registers
    assert urlunsplit(normalized(urlsplit(expected))) == expected
    assert Asset("name", given).normalized_uri == expected


@pytest.mark.parametrize(
    "given",
    [
        "mlflow://model/Wine",
        "mlflow://models",
        "mlflow://models/",
        "mlflow://models/Wine/champion",
        "mlflow://models/Wine:3",
        "mlflow://models/Wine@",
        "mlflow://runs/abc",
        "mlflow://experiments/",
        "mlflow://tracking.test:5000/models/Wine",
        "mlflow:models/Wine",
    ],
)
def test_what_names_nothing_of_mlflow_is_one_sentence(given: str) -> None:
    with pytest.raises(ValueError, match=r"names nothing of MLflow; write mlflow://models/<name> .*\.$"):
        Asset("name", given)


def test_the_sentence_holds_no_password() -> None:
    with pytest.raises(ValueError, match="mlflow://models:1/Wine") as caught:
        normalized(urlsplit("mlflow://me:pass-word-9@models:1/Wine"))
    assert "pass-word-9" not in str(caught.value)


def names(uri: str, server: str | None = SERVER) -> Any:
    found = dataset_of(uri, server)
    return found and (found.namespace, found.name)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://lake/wine/red.csv", ("s3://lake", "wine/red.csv")),
        ("s3a://lake/", ("s3://lake", "/")),
        ("/data/red.csv", ("file", "/data/red.csv")),
        ("file:///data/red.csv", ("file", "/data/red.csv")),
        ("abfss://box@account.test/x", ("abfss://box@account.test", "x")),
        ("https://me:pass-word-9@data.test/x", ("https://data.test", "x")),
        ("http://[", None),
        (f"mlflow-artifacts:/1/{RUN}/artifacts/a/b/c", (SERVER, f"mlflow-artifacts/1/{RUN}/artifacts/a")),
        (f"s3://box/1/{RUN}/artifacts/a/b", ("s3://box", f"1/{RUN}/artifacts/a")),
        (f"/mlruns/1/{RUN}/artifacts", ("file", f"/mlruns/1/{RUN}/artifacts")),
        (f"runs:/{RUN}/a/b", (SERVER, f"runs/{RUN}/a")),
        ("models:/Wine/3", (SERVER, "models/Wine")),
        ("models:/Wine@champion", (SERVER, "models/Wine")),
        ("models:/m-12", (SERVER, "models/m-12")),
    ],
)
def test_data_has_the_name_that_openlineage_gives_it(uri: str, expected: Any) -> None:
    pytest.importorskip(
        "openlineage.client", reason="needs apache-airflow-providers-openlineage of requirements-dev.txt"
    )
    assert names(uri) == expected
    of_server = uri.startswith(("mlflow-artifacts:", "runs:", "models:"))
    assert names(uri, None) == (None if of_server else expected)


def test_an_asset_is_what_a_step_calls_the_same_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(
        "openlineage.client", reason="needs apache-airflow-providers-openlineage of requirements-dev.txt"
    )
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", "http://me:pass-word-9@tracking.test:5000")
    for asset, uri in (
        ("mlflow://models/Red wine@champion", "models:/Red wine"),
        (f"mlflow://runs/{RUN}/made", f"runs:/{RUN}/made"),
    ):
        assert (
            to_openlineage(Asset("name", asset), None)
            == asset_of(Asset("name", asset), SERVER)
            == dataset_of(uri, SERVER)
        )
    numbered = to_openlineage(Asset("name", "mlflow://models/Wine/3"), None)
    assert numbered is not None
    assert (numbered.name, numbered.facets["version"].datasetVersion) == ("models/Wine", "3")


def test_a_server_is_called_as_its_address_without_a_password() -> None:
    assert namespace_of(TrackingSettings("https://host/mlflow")) == "mlflow://host/mlflow"
    assert namespace_of(TrackingSettings("sqlite:////m.db")) == "sqlite:////m.db"
    assert namespace_of(TrackingSettings("postgresql://me:pass-word-9@db/x")) == "postgresql://db/x"
