"""What a step is, whatever it runs: one attempt is one MLflow run, which Airflow can stop and must have confirmed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.sdk.exceptions import AirflowFailException

from mlflow_projects.attempt.stopping import AttemptKilledError
from mlflow_projects.exceptions import StepFailedError, TrackingError
from mlflow_projects.hooks.masking import shown
from mlflow_projects.operators import earlier_tries
from mlflow_projects.operators.base import MLflowRunOperator
from mlflow_projects.operators.failures import MLflowFailedException
from mlflow_projects.operators.references import ArtifactReference, MetricReference, ModelReference, ParamReference
from mlflow_projects.operators.supervision import (
    let_supervisor_notice_the_end,
    stop_without_supervisor,
    time_out_is_heard,
)
from mlflow_projects.operators.task_states import own_state, refused_success
from mlflow_projects.operators.templates import as_native
from mlflow_projects.tracking.closing import end_if_there, withdraw
from mlflow_projects.tracking.record import indexed_name
from mlflow_projects.tracking.registration import addresses_of_models, versions_of
from mlflow_projects.tracking.tags import CAUSE

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from mlflow_projects.attempt.stopping import Stoppable
    from mlflow_projects.tracking.client import Run, TrackingClient
    from mlflow_projects.tracking.server import TrackingSettings

Value = TypeVar("Value")
_MOST_OF_REASON = 1000  # characters


class MLflowStepOperator(MLflowRunOperator):
    """The base of operators whose tasks are attempts."""

    _attempt: Stoppable | None = None
    _finished: Run | None = None
    _state_before_report: str | None = None
    # For OpenLineage: the run of this try, how to ask for it, and what the step handed on at its good end.
    opened_run: Run | None = None
    settings: TrackingSettings | None = None
    handed_on: dict[str, Any] | None = None

    def artifact(self, path: str = "") -> ArtifactReference:
        """Return where this step's artifacts are; see :func:`mlflow_projects.artifact`."""
        return ArtifactReference(self, path)

    def model(self, name: str) -> ModelReference:
        """Return the address of a model that this step logs (``models:/m-…``), as a value for a later step.

        :param name: what ``log_model(name=…)`` calls it; of several, the last one counts
        """
        return ModelReference(self, name)

    def metric(self, name: str) -> MetricReference:
        """Return the last value of a metric that this step logs, for an argument of a later task, or in a template.

        The later task is put downstream of this one.
        """
        return MetricReference(self, name)

    def param(self, name: str) -> ParamReference:
        """Return a parameter of this step's run, as text; see :meth:`metric`."""
        return ParamReference(self, name)

    def watched(self, context: Context, attempt: Stoppable, work: Callable[[], Value]) -> Value:
        """Do the work so that Airflow can stop it."""
        self._attempt = attempt
        try:
            with stop_without_supervisor(), time_out_is_heard(self.execution_timeout, attempt.expire):
                return work()
        except StepFailedError as error:
            if error.cause == "killed_by_memory":
                earlier_tries.count_memory_kill(context)
            raise
        except AttemptKilledError as error:
            self.log.debug("The attempt ended:", exc_info=True)
            raise MLflowFailedException(f"The attempt was {error}.", cause=error.cause, status="KILLED") from None
        finally:
            self._attempt = None
            let_supervisor_notice_the_end()

    def memory_kills(self, context: Context) -> int:
        """Return how often this task was killed for want of memory, since a person last cleared it."""
        return earlier_tries.memory_kills(context)

    def on_kill(self) -> None:
        """Stop the attempt; harmless when the attempt is over (Airflow calls this after a time-out too)."""
        if self._attempt:
            self._attempt.kill()

    def close_previous_try(
        self, context: Context, client: TrackingClient, previous: Mapping[str, Any] | None
    ) -> str | None:
        """Return the run of the try before this one; close it if its worker died before it could."""
        if previous is None:
            return None
        run_id = str(previous["run_id"])
        if earlier_tries.close(context, client, previous, self.stop_job):
            self.log.warning("Run %s of an earlier try did not end well; now KILLED.", run_id)
        return run_id

    def finished(self, context: Context, run: Run) -> None:
        """Remember the run that is now FINISHED, for :meth:`confirm_success`."""
        self._finished, self._state_before_report = run, own_state(context["ti"])

    def xcom_of(self, run: Run, status: str) -> dict[str, Any]:
        """Return the XCom of a run, with its parameters: later tasks may need one."""
        return {**super().xcom_of(run, status), "params": dict(run.params)}

    def models_of(self, client: TrackingClient, run: Run) -> dict[str, str]:
        """Return the address of each model that a run which has its end logged, by name."""
        try:
            return addresses_of_models(client, run)
        except TrackingError as error:  # the run must keep its end
            self.log.warning("The models of run %s cannot be listed: %s", run.run_id, shown(str(error)))
            return {}

    def publish(self, context: Context, client: TrackingClient, run: Run) -> None:
        """Make the "MLflow run" button work, and remember the run for OpenLineage."""
        self.opened_run, self.settings = run, client.settings
        super().publish(context, client, run)

    def hand_on(self, context: Context, client: TrackingClient, run: Run, told: Mapping[str, Any]) -> dict[str, Any]:
        """Return the XCom of a good end, with the models; say it in the event of each asset in ``outlets`` too.

        :param run: the one that made the result
        :param told: what is known of it
        """
        self.handed_on = {**told, "models": self.models_of(client, run)}
        if self.assets(self.outlets):
            event = {key: value for key, value in self.handed_on.items() if key not in ("params", "status")}
            self.emit(context, {**event, "model_versions": self._versions_of(client, run)})
        return self.handed_on

    def _versions_of(self, client: TrackingClient, run: Run) -> list[dict[str, Any]]:
        try:
            found = versions_of(client, run.run_id)
        except TrackingError as error:
            self.log.warning("The model versions of run %s cannot be listed: %s", run.run_id, shown(str(error)))
            found = []
        return [{"name": one.name, "version": one.version, "uri": one.uri} for one in found]

    def get_openlineage_facets_on_start(self) -> OperatorLineage | None:
        """Return what the step reads, for Airflow's openlineage provider; see operators/lineage.py."""
        return self._lineage()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage | None:  # noqa: ARG002
        """Return what the step read and, if it ended well, made; from which code, in which run."""
        return self._lineage()

    get_openlineage_facets_on_failure = get_openlineage_facets_on_complete

    def _lineage(self) -> OperatorLineage | None:
        try:
            from mlflow_projects.operators.lineage import lineage_of

            return lineage_of(self)
        except Exception as error:  # whatever it is, the task has nothing to do with it
            self.log.warning("OpenLineage is not told about this step: %s", shown(f"{type(error).__name__}: {error}"))
            self.log.debug("OpenLineage is not told:", exc_info=True)
            return None

    def confirm_success(self, ti: Any) -> None:
        """Withdraw the run's success if Airflow did not take it.

        A person may have marked or cleared the task, or the DAG run may have timed out, between the last
        heartbeat and the end of the command. Called in the task process after it reported its success.
        """
        state = own_state(ti)
        if self._finished is None or not refused_success(self._state_before_report, state):
            return
        reason = f"Airflow had set the task to {state or 'run again'} before its success was reported"
        self.log.warning("Run %s is withdrawn, now KILLED: %s.", self._finished.run_id, reason)
        with self.tracking() as client:
            withdraw(client, self._finished, reason)

    def take_back_success(self, error: Any) -> None:
        """Let the run be FAILED if Airflow failed the task after the run's good end.

        What a function returned may be nothing that an XCom holds; a ``post_execute`` may fail. Called in the task
        process after it reported its failure.

        :param error: why, as far as Airflow tells it
        """
        if self._finished is None:
            return
        reason = shown(f"the task failed after its end: {type(error).__name__}: {error}"[:_MOST_OF_REASON])
        self.log.warning("Run %s is withdrawn, now FAILED: %s.", self._finished.run_id, reason)
        run, tags = self._finished, {CAUSE: "user_error"}
        with self.tracking() as client:
            end_if_there(client, run, "FAILED", reason, tags=tags, end_time=run.end_time)
        self._finished = None  # in ``airflow dags test`` the next try has this very task

    def mapping(self, name: str) -> Mapping[str, Any]:
        """Return an argument that must have rendered to a mapping.

        :raises AirflowFailException: it is something else
        """
        value = getattr(self, name)
        if value in (None, "", "None"):
            return {}
        dag = self.get_dag()
        if isinstance(value, str) and dag and dag.render_template_as_native_obj:
            value = as_native(value)
        if not isinstance(value, Mapping):
            raise AirflowFailException(
                f"Task {self.task_id!r}: {name} rendered to {type(value).__name__}, not to a mapping; for a template "
                "of the whole mapping, give the DAG render_template_as_native_obj=True."
            )
        return value

    def default_run_name(self, context: Context) -> str:
        """Return the task's id without its group, with the index of a mapped task."""
        return indexed_name(str(self.label), context["ti"].map_index)
