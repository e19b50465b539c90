"""What OpenLineage learns of a step: what it read, what it made, from which code, and which MLflow run it was.

Airflow's openlineage provider asks at a task's start and end, in a process (or thread) of its own that it gives 10
seconds; nobody asks without it. So nothing here needs the supervisor's connection, and MLflow has to answer soon.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset

from mlflow_projects import config
from mlflow_projects.exceptions import ProjectError, TrackingError
from mlflow_projects.hooks.asset_uris import asset_of, dataset_of, namespace_of
from mlflow_projects.hooks.masking import shown
from mlflow_projects.operators.templates import text_or_none
from mlflow_projects.project.fetch import declared_parameters
from mlflow_projects.tracking.answers import json_object
from mlflow_projects.tracking.registration import versions_of
from mlflow_projects.tracking.tags import PARENT_RUN_ID

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.event_v2 import Dataset

    from mlflow_projects.operators.step import MLflowStepOperator
    from mlflow_projects.tracking.client import Run, TrackingClient

_SECONDS = 3.0  # for one question to MLflow
_MOST = 100
_MOST_COLUMNS = 1000
# Where data lies; an address of another kind, and a plain path, counts where the MLproject says "path" or "uri".
_DATA = re.compile(
    r"(?:s3[an]?|gcs|gs|abfss?|wasbs?|adl|hdfs|viewfs|dbfs|s?ftp|file|mlflow-artifacts|models|runs):/.+"
    r"|/.*/[0-9a-f]{32}/artifacts(?:/.*)?"
)


def lineage_of(step: MLflowStepOperator) -> OperatorLineage:
    """Return what is known of a step by now: at its start, where its values point to."""
    from airflow.providers.openlineage.extractors import OperatorLineage

    from mlflow_projects.tracking.connect import connect

    found, run, settings = OperatorLineage(), step.opened_run, step.settings
    server = namespace_of(settings) if settings else None
    found.inputs = [*_of_assets(step.inlets, server)]
    found.inputs += [dataset_of(value, server) for value in _addresses(_values(step))]
    if run is None or settings is None or server is None:
        found.inputs = _once(found.inputs)
        return found
    found.inputs += [dataset_of(value, server) for value in _declared(step, run)]
    found.run_facets["mlflow_run"] = _facet(step, run)
    found.job_facets.update(_source_of(run))
    client = connect(settings.for_a_person(_SECONDS))
    try:
        found.inputs += _logged(client, run, server)
        if step.handed_on:
            found.outputs = [*_of_assets(step.outlets, server), *_made(client, step.handed_on, server)]
    except TrackingError as error:
        step.log.warning("OpenLineage is not told all of run %s: %s", run.run_id, shown(str(error)))
    finally:
        client.close()
    found.inputs, found.outputs = _once(found.inputs), _once(found.outputs)
    return found


def _values(step: Any) -> list[Any]:
    """Return what a project's step or a function is given."""
    if hasattr(step, "op_kwargs"):
        return [*step.op_args, *step.op_kwargs.values()]
    return list(step.mapping("parameters").values())


def _addresses(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, list | tuple):  # of the steps of a mapped task
            yield from _addresses(value)
        elif isinstance(value, str) and _DATA.fullmatch(value):
            yield value


def _declared(step: Any, run: Run) -> Iterator[str]:
    """Yield the values of parameters that the MLproject calls ``path`` or ``uri``, defaults among them.

    A file of a project that was fetched is a part of its code.
    """
    if not hasattr(step, "entry_point"):
        return
    commit = run.tags.get("mlflow.source.git.commit")
    try:
        declared, folder = declared_parameters(
            str(step.uri), text_or_none(step.version), commit, config.cache(), str(step.entry_point)
        )
    except ProjectError as error:
        step.log.warning("OpenLineage is not told which parameters are paths: %s", shown(str(error)))
        return
    given = step.mapping("parameters")
    for name, parameter in declared.items():
        value = given.get(name)
        value = parameter.default if value is None else value
        if parameter.type not in ("path", "uri") or value is None:
            continue
        if re.match("[A-Za-z][A-Za-z0-9+.-]*:", str(value)):
            yield str(value)
        elif str(value).startswith("/") or folder:
            yield os.path.abspath((folder or Path("/")) / str(value))  # noqa: PTH100  (as the command gets it)


def _logged(client: TrackingClient, run: Run, server: str) -> Iterator[Dataset | None]:
    """Yield what the command logged with ``mlflow.log_input``."""
    from openlineage.client.event_v2 import Dataset
    from openlineage.client.facet_v2 import dataset_version_dataset, documentation_dataset, schema_dataset

    for logged in client.logged_datasets(run.run_id)[:_MOST]:
        source = json_object(logged.source) or {}
        address = next((source[key] for key in ("uri", "url", "path") if isinstance(source.get(key), str)), None)
        facets: dict[str, Any] = {
            "version": dataset_version_dataset.DatasetVersionDatasetFacet(logged.digest),
            "documentation": documentation_dataset.DocumentationDatasetFacet(
                shown(f"The dataset {logged.name!r} in MLflow")
            ),
        }
        columns = (json_object(logged.schema) or {}).get("mlflow_colspec")
        if isinstance(columns, list):
            facets["schema"] = schema_dataset.SchemaDatasetFacet(
                [
                    schema_dataset.SchemaDatasetFacetFields(str(column.get("name")), str(column.get("type")))
                    for column in columns[:_MOST_COLUMNS]
                    if isinstance(column, dict)
                ]
            )
        if address:
            yield dataset_of(address, server, **facets)
        else:
            yield Dataset(namespace=server, name=shown(f"datasets/{logged.name}"), facets=facets)


def _made(client: TrackingClient, told: dict[str, Any], server: str) -> Iterator[Dataset | None]:
    """Yield a result's artifacts, its models, and the versions that were registered of them."""
    if files := client.list_artifacts(told["run_id"]):
        yield dataset_of(told["artifact_uri"], server)
        yield from (dataset_of(f"{told['artifact_uri']}/{file.path}", server) for file in files[:_MOST])
    yield from (dataset_of(address, server) for address in told["models"].values())
    yield from (dataset_of(version.uri, server) for version in versions_of(client, told["run_id"]))


def _facet(step: MLflowStepOperator, run: Run) -> Any:
    """Return which MLflow run this is, and its parent; the provider's own facet ``parent`` is the DAG run."""
    from openlineage.client.facet_v2 import RunFacet

    assert step.settings is not None
    known = {
        "runId": run.run_id,
        "experimentId": run.experiment_id,
        "parentRunId": run.tags.get(PARENT_RUN_ID),
        "url": step.settings.run_url(run.experiment_id, run.run_id) or None,
        "server": step.settings.address,
        "metrics": (step.handed_on or {}).get("metrics"),
        "reusedRunId": step.handed_on["run_id"] if step.handed_on and "linked_run_id" in step.handed_on else None,
    }
    return RunFacet().with_additional_properties(**{key: value for key, value in known.items() if value is not None})


def _source_of(run: Run) -> dict[str, Any]:
    from openlineage.client.facet_v2 import source_code_location_job

    name = run.tags.get("mlflow.source.name")
    if not name:
        return {}
    commit = run.tags.get("mlflow.source.git.commit")
    location = source_code_location_job.SourceCodeLocationJobFacet(
        type="git" if commit else "file",
        url=name,
        repoUrl=run.tags.get("mlflow.source.git.repoURL"),
        path=name.partition("#")[2] or None,
        version=commit or run.tags.get("mlflow_projects.source.sha256"),
        branch=run.tags.get("mlflow.source.git.branch"),
    )
    return {"sourceCodeLocation": location}


def _of_assets(lets: Iterable[Any], server: str | None) -> Iterator[Dataset | None]:
    """Yield the assets that a DAG's author names; the provider looks at them only where an operator says nothing."""
    from airflow.providers.openlineage.extractors.manager import ExtractorManager

    for one in lets:
        ours = isinstance(one, Asset) and one.uri.startswith("mlflow://")
        yield asset_of(one, server) if ours else ExtractorManager.convert_to_ol_dataset(one)


def _once(datasets: Iterable[Dataset | None]) -> list[Dataset]:
    """Return each dataset once, the one with the most said of it."""
    found: dict[tuple[str, str], Dataset] = {}
    for one in datasets:
        if one is not None:
            key = one.namespace, one.name
            if key not in found or len(one.facets or {}) > len(found[key].facets or {}):
                found[key] = one
    return list(found.values())
