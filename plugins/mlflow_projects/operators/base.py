"""What our operators share: the hook, the identity of the task instance, errors in Airflow's terms."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, BaseOperator, BaseOperatorLink
from airflow.sdk.configuration import conf
from airflow.sdk.definitions.asset import AssetRef
from airflow.sdk.exceptions import AirflowException

from mlflow_projects.attempt.causes import cause_of_error
from mlflow_projects.config import git_trusted_dirs
from mlflow_projects.exceptions import ProjectError, StepFailedError, TrackingError, TrackingRefusedError
from mlflow_projects.hooks.masking import shown
from mlflow_projects.hooks.mlflow_hook import MLflowHook
from mlflow_projects.links.pushed import push_links
from mlflow_projects.links.run import MLflowRunLink
from mlflow_projects.operators.failures import MLflowFailedException, MLflowFailException
from mlflow_projects.operators.templates import render_text, text_or_none
from mlflow_projects.project.work_tree import head_commit
from mlflow_projects.public_uri import public_uri, secrets_in
from mlflow_projects.tracking.client import json_metrics
from mlflow_projects.tracking.record import MAX_TAG_NAME, SourceTags, TaskIdentity, resolve_experiment

if TYPE_CHECKING:
    from airflow.sdk import Context

    from mlflow_projects.project.work_tree import BundleCheckout
    from mlflow_projects.tracking.client import Run, TrackingClient

DEFAULT_CONN_ID = MLflowHook.default_conn_name
_OUR_TAGS = re.compile(r"airflow\.|mlflow_projects\.|mlflow\.parentRunId$")
DEFAULT_EXPERIMENT_ID = "0"


class MLflowTrackingOperator(BaseOperator):
    """The base of operators that talk to a tracking server.

    Neither this nor other bases of ours have an ``__init__``: for each that a class adds, Airflow copies the DAG's
    params and merges the defaults once more, which with 50 steps is a tenth of the time to parse a DAG.
    """

    ui_color = "#d9f0fb"
    ui_fgcolor = "#0b3954"
    mlflow_conn_id: str = DEFAULT_CONN_ID

    def render_template(
        self, content: Any, context: Context, jinja_env: Any = None, seen_oids: set[int] | None = None
    ) -> Any:
        """Render a text as :func:`render_text` does; Airflow does the rest, and comes back for the texts inside.

        :raises AirflowException: it names what is not there
        """
        if isinstance(content, str):
            try:
                return render_text(content, context, jinja_env or self.get_template_env())
            except Exception as error:
                if type(error).__name__ != "UndefinedError" or "xcom_pull" not in content:
                    raise
                self.log.debug("The text cannot be rendered:", exc_info=True)
                raise AirflowException(
                    f"Task {self.task_id!r}: the text {shown(content)!r} takes what another task did not leave "
                    f"({error}); put that task upstream (first >> second), or pass artifact(first, 'path') or "
                    "first.model('name') alone, outside of a text: of a mapped step it is a list."
                ) from None
        return super().render_template(content, context, jinja_env, seen_oids)

    def stop_job(self, run: Run) -> None:
        """Stop the job outside of a run that is to be closed."""
        from mlflow_projects.backends.registry import stop_job_of

        stop_job_of(run, self.say)

    def say(self, line: str) -> None:
        """Put a line into the task's log, as everybody may see it."""
        self.log.info("%s", shown(line))

    def emit(self, context: Context, extra: Mapping[str, Any]) -> None:
        """Say in the event of each asset in ``outlets`` what the task made."""
        for outlet in self.assets(self.outlets):
            context["outlet_events"][outlet].extra.update(extra)

    @staticmethod
    def assets(lets: Iterable[Any]) -> list[Asset | AssetRef]:
        """Return the assets among a task's inlets or outlets; which one an alias stands for nobody knows yet."""
        return [one for one in lets if isinstance(one, (Asset, AssetRef))]

    @contextlib.contextmanager
    def tracking(self) -> Iterator[TrackingClient]:
        """Yield a client for the tracking server; errors leave the block in Airflow's terms.

        :raises MLflowFailException: the DAG, the project, a setting or the login is wrong; no retry
        :raises AirflowException: everything that another try may mend
        """
        try:
            client = MLflowHook(self.mlflow_conn_id).get_conn()
            try:
                yield client
            finally:
                client.close()
        # A person reads one sentence; whoever looks for more finds the trace with Airflow's log level DEBUG.
        except (ProjectError, TrackingRefusedError) as error:
            self.log.debug("The task cannot succeed:", exc_info=True)
            raise MLflowFailException(shown(str(error)), cause=cause_of_error(error)) from None
        except TrackingError as error:
            self.log.debug("The try failed:", exc_info=True)
            raise MLflowFailedException(shown(str(error)), cause="tracking") from None
        except StepFailedError as error:
            self.log.debug("The try failed:", exc_info=True)
            kind = MLflowFailException if error.is_final else MLflowFailedException
            raise kind(shown(str(error)), cause=error.cause, status=error.status, exit_code=error.exit_code) from None


class MLflowRunOperator(MLflowTrackingOperator):
    """The base of operators that stand for an MLflow run, with a button to it."""

    operator_extra_links: Collection[BaseOperatorLink] = (MLflowRunLink(),)
    run_key = "return_value"  # of the XCom that says which run it is

    def publish(self, context: Context, client: TrackingClient, run: Run) -> None:
        """Make the "MLflow run" button work from now on."""
        url = client.settings.run_url(run.experiment_id, run.run_id)
        push_links(self, context, (MLflowRunLink(), url))
        self.log.info("MLflow run %s: %s", run.run_id, url or client.settings.address)

    def xcom_of(self, run: Run, status: str) -> dict[str, Any]:
        """Return the XCom of a task that stands for a run."""
        return {
            "run_id": run.run_id,
            "experiment_id": run.experiment_id,
            # An address with a password is for MLflow alone; it takes the run's name for it.
            "artifact_uri": run.artifact_uri if not secrets_in(run.artifact_uri) else f"runs:/{run.run_id}",
            "status": status,
            "run_name": run.name,
            "metrics": json_metrics(run.metrics),
            "mlflow_conn_id": self.mlflow_conn_id,
        }


def experiment_id_for(client: TrackingClient, name: Any, parent: Mapping[str, Any] | None) -> str:
    """Return the experiment: by name, else the parent's, else the environment's, else Default."""
    if text := text_or_none(name):
        return resolve_experiment(client, text)
    if parent and parent.get("experiment_id"):
        return str(parent["experiment_id"])
    if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return given
    if given := os.environ.get("MLFLOW_EXPERIMENT_NAME"):
        return resolve_experiment(client, given)
    return DEFAULT_EXPERIMENT_ID


def identify(context: Context) -> TaskIdentity:
    """Return which task instance this process works for."""
    ti = context["ti"]
    logical_date = context.get("logical_date")
    return TaskIdentity(
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        try_number=ti.try_number,
        attempt_id=str(ti.id),
        map_index=-1 if ti.map_index is None else ti.map_index,
        logical_date=logical_date.isoformat() if logical_date else "",
        url=public_uri(ti.log_url),
    )


def bundle_checkout(context: Context) -> BundleCheckout | None:
    """Return the checkout that holds the DAG file, or None where it does not come from a git bundle."""
    # Airflow itself loaded the module if the bundle is of that class; importing it here would cost GitPython.
    git_bundles = sys.modules.get("airflow.providers.git.bundles.git")
    bundle: Any = getattr(context["ti"], "bundle_instance", None)
    if git_bundles is None or not isinstance(bundle, git_bundles.GitDagBundle):
        return None
    from mlflow_projects.project.work_tree import BundleCheckout

    return BundleCheckout(root=bundle.repo_path, commit=bundle.version, repo_url=bundle.repo_url)


def dag_source(context: Context) -> SourceTags:
    """Return what a run says of its code where that is the DAG file."""
    file = Path(context["dag"].fileloc)
    head = head_commit(file.parent, bundle_checkout(context), git_trusted_dirs())
    return SourceTags(name=str(file), kind="JOB", **(head._asdict() if head else {}))


def as_run_id(value: Any) -> str | None:
    """Return the run id in what a template rendered to: an id, or the XCom of a start or project task."""
    if isinstance(value, Mapping):
        value = value.get("run_id")
    return text_or_none(value)


def existing_run(client: TrackingClient, run_id: str) -> Run:
    """Return a run.

    :raises ProjectError: there is none
    """
    try:
        return client.get_run(run_id)
    except TrackingError as error:
        if error.code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # the latter: no id at all
            raise ProjectError(
                f"There is no run {run_id!r} at {client.settings.address}; check the run's id."
            ) from error
        raise


def own_tags(values: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the tags that a DAG's author gives a run.

    :raises ProjectError: one of them is the library's, which decides by it what happened; MLflow cannot store it
    """
    tags = texts(values)
    if bad := [key for key in tags if not 0 < len(key) <= MAX_TAG_NAME or "\0" in key]:
        raise ProjectError(f"'tags' sets {bad[0][:50]!r}; a tag's name has 1 to {MAX_TAG_NAME} characters, no NUL.")
    if taken := [key for key in tags if _OUR_TAGS.match(key)]:
        raise ProjectError(f"'tags' sets {taken[0]!r}, which this library writes itself; take another name.")
    return tags


def texts(values: Mapping[str, Any] | None) -> dict[str, str]:
    """Return tags as MLflow takes them, without those whose value is None."""
    return {str(key): str(value) for key, value in (values or {}).items() if value is not None}


def is_retry(previous: Mapping[str, Any], ti: Any) -> bool:
    """Tell a retry from a Clear, which raises max_tries.

    :param previous: what an earlier try of the task left in the task state store, its ``max_tries`` among it
    """
    return bool(previous.get("max_tries") == ti.max_tries)


def is_deferrable(argument: bool | None) -> bool:
    """Return an operator's ``deferrable``, by default Airflow's own setting."""
    if argument is None:
        return bool(conf.getboolean("operators", "default_deferrable", fallback=False))
    return bool(argument)


def markdown_table(rows: Sequence[tuple[str, Any]]) -> str:
    """Return a table of names and values for a task's page."""
    cells = [(name, " ".join(str(value).split()).replace("|", "\\|").replace("`", "'")) for name, value in rows]
    return "| | |\n|---|---|\n" + "".join(f"| {name} | `{cell}` |\n" for name, cell in cells)
