"""The scheme ``mlflow://`` of Airflow's assets, and what OpenLineage calls the same things."""

from __future__ import annotations

import re
from concurrent.futures import TimeoutError  # the built-in one from Python 3.11 on
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from mlflow_projects.hooks.masking import shown
from mlflow_projects.project.paths import local_path_of
from mlflow_projects.public_uri import public_uri
from mlflow_projects.tracking.patience import in_thread

if TYPE_CHECKING:
    from airflow.sdk import Asset
    from openlineage.client.event_v2 import Dataset

    from mlflow_projects.tracking.server import TrackingSettings

_SECONDS = 3.0  # to be told a connection
_FORMS = {
    "models": r"[^/@:]+(?:@[\w-]+|/\d+)?",
    "runs": r"[0-9A-Fa-f]{32}(?:/.+)?",
    "experiments": r".+",
}
# What only a tracking server can find.
_OF_SERVER = ("experiments", "mlflow-artifacts", "models", "runs")
# A run's folder of artifacts with its first level, in MLflow's own layout.
_FIRST_LEVEL = re.compile(r"(.*/[0-9a-f]{32}/artifacts(?:/[^/]+)?|runs:/[0-9a-f]{32}(?:/[^/]+)?)(?:/.*)?")


def normalized(uri: SplitResult) -> SplitResult:
    """Return an asset's address as there is one for each thing: names percent-encoded, no query.

    :raises ValueError: it names no model, run or experiment (Airflow expects this class)
    """
    kind, name = uri.netloc.lower(), unquote(uri.path).strip("/")
    if kind not in _FORMS or not re.fullmatch(_FORMS[kind], name):
        raise ValueError(
            f"The asset {shown(uri.geturl())!r} names nothing of MLflow; write mlflow://models/<name> (also with "
            "@<alias> or /<version>), mlflow://runs/<run id>/<artifact path> or mlflow://experiments/<name>."
        )
    return uri._replace(netloc=kind, path=f"/{quote(name, safe='/@')}", query="", fragment="")


def to_openlineage(asset: Asset, lineage_context: Any) -> Dataset | None:  # noqa: ARG001  (of Airflow's interface)
    """Return an asset as OpenLineage has it: of the tracking server that the default connection names.

    None where Airflow does not tell the connection: under ``airflow dags test`` a forked process cannot ask for it.
    """
    from mlflow_projects.hooks.mlflow_hook import MLflowHook

    try:
        return asset_of(asset, namespace_of(in_thread(lambda: MLflowHook().settings).result(_SECONDS)))
    except TimeoutError:
        return None


def asset_of(asset: Asset, server: str | None) -> Dataset | None:
    """Return an asset of this scheme as OpenLineage has it; see :func:`dataset_of`."""
    parts = urlsplit(asset.uri)
    return dataset_of(f"{parts.netloc}:{unquote(parts.path)}", server)


def namespace_of(settings: TrackingSettings) -> str:
    """Return what OpenLineage calls a tracking server: ``mlflow://host:port``; a database has its own URI."""
    return re.sub("^https?(?=://)", "mlflow", settings.address)


def dataset_of(uri: str, server: str | None, **facets: Any) -> Dataset | None:
    """Return what OpenLineage calls the data at an address, by its own rules for names.

    A file in a folder of a run's artifacts counts as the first level of that folder, as the run that made it says.
    (Source of the rules: https://openlineage.io/docs/spec/naming)

    :param server: the namespace of the tracking server; without one, what only it can find is None
    """
    from openlineage.client.event_v2 import Dataset
    from openlineage.client.facet_v2 import dataset_version_dataset

    uri = shown(public_uri(uri))  # in this order: one name, whether or not Airflow knows the password
    if found := _FIRST_LEVEL.fullmatch(uri):
        uri = found[1]
    if (path := local_path_of(uri)) is not None:
        return Dataset(namespace="file", name=path, facets=facets)
    scheme, _, rest = uri.partition(":")
    if scheme in _OF_SERVER and not rest.startswith("//"):
        if server is None:
            return None
        name, version = rest.strip("/"), None
        if scheme == "models":
            name, _, version = name.partition("@")[0].partition("/")
        if version:
            facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(version)
        return Dataset(namespace=server, name=f"{scheme}/{name}", facets=facets)
    try:
        parts = urlsplit(uri)
    except ValueError:  # "http://[", say
        return None
    scheme = "s3" if scheme in ("s3a", "s3n") else scheme
    return Dataset(namespace=f"{scheme}://{parts.netloc}", name=parts.path.strip("/") or "/", facets=facets)
