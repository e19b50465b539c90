"""From many runs to the model in use: find the best run, register its model, promote it if it is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.exceptions import AirflowFailException

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.operators.base import (
    DEFAULT_CONN_ID,
    MLflowRunOperator,
    as_run_id,
    existing_run,
    is_retry,
    texts,
)
from mlflow_projects.operators.enclosing import enclosing_parent
from mlflow_projects.operators.model_base import MLflowModelOperator, as_version
from mlflow_projects.operators.templates import text_or_none
from mlflow_projects.tracking.client import quoted
from mlflow_projects.tracking.registration import is_better, metrics_of, move_alias, number, register, version_dict
from mlflow_projects.tracking.tags import PARENT_RUN_ID, SUPERSEDES

if TYPE_CHECKING:
    from airflow.sdk import Context

    from mlflow_projects.tracking.client import Run, TrackingClient

_MAX_RUNS = 50_000
_STATE_KEY = "mlflow_promotion"


class MLflowBestRunOperator(MLflowRunOperator):
    """Find the run with the best value of a metric among the finished children of a parent run.

    A run without the metric, or with NaN or infinity as its value, is never the best. Of equal runs it is the
    one that started first, then the one whose id comes first. Of a task that ran again after a clear, only the
    last run counts.

    Returns ``{"run_id", "experiment_id", "artifact_uri", "status", "run_name", "metrics", "mlflow_conn_id",
    "params", "metric", "value"}`` as XCom.

    :param metric: the metric's name (templated)
    :param direction: ``min`` or ``max`` (templated)
    :param parent_run_id: the parent run: an id, or a start task's XCom; default: the parent of the enclosing
        ``mlflow_run`` (templated)
    :param experiment_name: where to search; default: the parent's experiment; without a parent, all runs of
        this experiment are searched (templated)
    :param filter_string: more conditions in MLflow's search language (templated)
    :param mlflow_conn_id: Airflow connection to the tracking server
    :raises AirflowFailException: no run has the metric, or there is nowhere to search
    """

    template_fields: Sequence[str] = ("metric", "direction", "parent_run_id", "experiment_name", "filter_string")

    def __init__(
        self,
        *,
        metric: str,
        direction: str = "min",
        parent_run_id: Any = None,
        experiment_name: str | None = None,
        filter_string: str = "",
        mlflow_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mlflow_conn_id = mlflow_conn_id
        self.metric = metric
        self.direction = direction
        self.parent_run_id = parent_run_id
        self.experiment_name = experiment_name
        self.filter_string = filter_string

    def execute(self, context: Context) -> dict[str, Any]:
        """Search, compare, return the best."""
        direction = _direction(self.direction)
        with self.tracking() as client:
            given = self.parent_run_id or enclosing_parent(self, context, client)
            parent_id = as_run_id(given)
            experiment_id = self._experiment_id(client, given)
            conditions = [f"tags.`{PARENT_RUN_ID}` = {quoted(parent_id)}"] if parent_id else []
            conditions += [self.filter_string] if self.filter_string else []
            runs = client.search_runs([experiment_id], " and ".join(conditions), limit=_MAX_RUNS)
            best = _best(runs, self.metric, direction)
            if best is None:
                place = f"below the parent run {parent_id}" if parent_id else f"in experiment {experiment_id}"
                raise ProjectError(
                    f"None of the {len(runs)} run(s) {place} is FINISHED with a number as metric {self.metric!r}; "
                    "check the metric's name and the runs."
                )
            self.publish(context, client, best)
        value = best.metrics[self.metric]
        self.log.info("Best of %d run(s): %s with %s = %s", len(runs), best.name, self.metric, value)
        found = self.xcom_of(best, best.status)
        return {**found, "params": dict(best.params), "metric": self.metric, "value": value}

    def _experiment_id(self, client: TrackingClient, parent: Any) -> str:
        if self.experiment_name:
            found = client.experiment_id(str(self.experiment_name))
            if found is None:
                raise ProjectError(f"There is no experiment {self.experiment_name!r} at {client.settings.address}.")
            return found
        if isinstance(parent, Mapping) and parent.get("experiment_id"):
            return str(parent["experiment_id"])
        run_id = as_run_id(parent)
        if run_id is None:
            raise ProjectError(
                f"Task {self.task_id!r} has nowhere to search: give parent_run_id or experiment_name, or put it "
                "inside an mlflow_run."
            )
        return existing_run(client, run_id).experiment_id


class MLflowRegisterModelOperator(MLflowModelOperator):
    """Register a model that a run logged, and wait until the version is READY.

    A version of the same run and source that is there already (made by an earlier try, or by the project
    itself) is taken instead of making another one.

    Each Asset in ``outlets`` gets an event whose ``extra`` is the XCom.

    Returns ``{"name", "version", "run_id", "source", "uri", "metrics", "mlflow_conn_id"}`` as XCom, where
    ``version`` is a number and ``metrics`` are the run's.

    :param name: the registered model; made if it does not exist (templated)
    :param run_id: the run: an id, or the XCom of a task that stands for a run (templated)
    :param model: name of a logged model of the run, or path of a model among its artifacts (templated)
    :param tags: for the version (templated)
    :param description: for a new version, in Markdown (templated)
    :param alias: an alias to move to the version, whatever its metrics (templated)
    :param mlflow_conn_id: Airflow connection to the tracking server
    :raises AirflowFailException: the run has no such model, or MLflow does not take a name
    """

    template_fields: Sequence[str] = ("name", "run_id", "model", "tags", "description", "alias")
    template_fields_renderers: ClassVar[dict[str, str]] = {"tags": "json", "description": "md"}

    def __init__(
        self,
        *,
        name: str,
        run_id: Any,
        model: str = "model",
        tags: Mapping[str, str] | None = None,
        description: str | None = None,
        alias: str | None = None,
        mlflow_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mlflow_conn_id = mlflow_conn_id
        self.name = name
        self.run_id = run_id
        self.model = model
        self.tags = tags
        self.description = description
        self.alias = alias

    def execute(self, context: Context) -> dict[str, Any]:
        """Find the version or make it."""
        run_id = as_run_id(self.run_id)
        if run_id is None:
            raise AirflowFailException(f"Task {self.task_id!r} was given no run; pass a run's id or XCom as run_id.")
        with self.tracking() as client:
            run = existing_run(client, run_id)
            name, alias, description = str(self.name), text_or_none(self.alias), text_or_none(self.description)
            version = register(
                client, name, run, str(self.model), tags=texts(self.tags), description=description or ""
            )
            if alias:
                move_alias(client, name, alias, version.version)
            result = version_dict(version, run.metrics, self.mlflow_conn_id)
            self.publish_model(context, client.settings, result)
        self.emit(context, {**result, **({"alias": alias} if alias else {})})
        return result


class MLflowPromoteModelOperator(MLflowModelOperator):
    """Move an alias to a model version if it is better than the version that holds the alias now.

    Without a holder the alias is moved. With ``metric``, the value of the run that made the version must be
    strictly better than that of the holder's run; a missing value, NaN or infinity never wins and loses against
    any number. Without ``metric``, the alias is moved in any case. The task succeeds either way.

    Each Asset in ``outlets`` gets an event with the XCom as ``extra`` if the alias was moved; if not, there is
    no event, so a DAG that is scheduled on the asset is not started.

    Returns ``{"name", "version", "run_id", "source", "uri", "metrics", "mlflow_conn_id", "alias", "promoted",
    "metric", "value", "previous_version", "previous_value"}`` as XCom, where ``promoted`` is a bool and the
    previous ones are None if nobody held the alias.

    :param name: the registered model (templated)
    :param version: its number, or the XCom of the task that registered it (templated)
    :param alias: the alias (templated)
    :param metric: name of the metric that decides (templated)
    :param direction: ``min`` or ``max`` (templated)
    :param mlflow_conn_id: Airflow connection to the tracking server
    :raises AirflowFailException: there is no such version, or MLflow does not take the alias
    """

    template_fields: Sequence[str] = ("name", "version", "alias", "metric", "direction")

    def __init__(
        self,
        *,
        name: str,
        version: Any,
        alias: str = "champion",
        metric: str | None = None,
        direction: str = "min",
        mlflow_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mlflow_conn_id = mlflow_conn_id
        self.name = name
        self.version = version
        self.alias = alias
        self.metric = metric
        self.direction = direction

    def execute(self, context: Context) -> dict[str, Any]:
        """Compare with the holder, and move the alias or leave it."""
        self.name, self.alias = str(self.name), str(self.alias)  # a template may give numbers
        wanted = as_version(self.version, "version")
        direction = _direction(self.direction)
        if wanted is None:
            raise AirflowFailException(f"Task {self.task_id!r} was given no version to promote.")
        with self.tracking() as client:
            version = client.model_version(self.name, wanted)
            if version is None:
                raise ProjectError(f"Model {self.name!r} has no version {wanted} at {client.settings.address}.")
            metrics = metrics_of(client, version)
            value = number(metrics, self.metric)
            previous = self._holder(client)
            if before := self._moved_by_lost_try(context, previous, wanted):
                previous, promoted = before, True
            elif promoted := self._is_to_move(previous, wanted, value, direction):
                # Kept first: a try that is lost after the move would else find nothing to do, and tell nobody.
                state: Any = {"version": wanted, "max_tries": context["ti"].max_tries, "previous": previous}
                context["task_state_store"].set(_STATE_KEY, state)
                move_alias(client, self.name, self.alias, wanted)
            result = {
                **version_dict(version, metrics, self.mlflow_conn_id),
                "alias": self.alias,
                "promoted": promoted,
                "metric": self.metric,
                "value": value,
                **previous,
            }
            self.publish_model(context, client.settings, result)
        if promoted:
            self.emit(context, result)
        else:
            self.withhold_events()
        return result

    def _holder(self, client: TrackingClient) -> dict[str, Any]:
        holder = client.version_by_alias(self.name, self.alias)
        return {
            "previous_version": holder.version if holder else None,
            "previous_value": number(metrics_of(client, holder), self.metric) if holder else None,
        }

    def _is_to_move(self, previous: Mapping[str, Any], version: int, value: float | None, direction: str) -> bool:
        holder, holders_value = previous["previous_version"], previous["previous_value"]
        verdict = "moves"
        if holder == version:
            verdict = "is there already"
        elif holder is not None and self.metric and not is_better(value, holders_value, direction):
            verdict = "stays"
        compared = f" ({self.metric}: {value} against {holders_value})" if self.metric else ""
        self.log.info(
            "Alias %r of %s: version %s is its candidate, %s its holder%s; it %s.",
            self.alias, self.name, version, f"version {holder}" if holder else "nobody", compared, verdict,
        )  # fmt: skip
        return verdict == "moves"

    def _moved_by_lost_try(
        self, context: Context, previous: Mapping[str, Any], version: int
    ) -> dict[str, Any] | None:
        """Return the holder before, if an earlier try of this task moved the alias and could not say so."""
        state = context["task_state_store"].get(_STATE_KEY)
        if previous["previous_version"] != version or not isinstance(state, Mapping):
            return None
        # After a Clear, the move was told to everybody already.
        if state.get("version") != version or not is_retry(state, context["ti"]):
            return None
        before: Any = state["previous"]
        return dict(before)


def _direction(value: str) -> str:
    if value not in ("min", "max"):
        raise AirflowFailException(f"direction must be 'min' or 'max', not {value!r}.")
    return value


def _best(runs: Sequence[Run], metric: str, direction: str) -> Run | None:
    superseded = {run.tags.get(SUPERSEDES) for run in runs}
    sign = 1 if direction == "min" else -1
    ranked = [
        (sign * value, run.start_time or 0, run.run_id, run)
        for run in runs
        if run.status == "FINISHED"
        and run.run_id not in superseded
        and (value := number(run.metrics, metric)) is not None
    ]
    return min(ranked, key=lambda entry: entry[:3])[3] if ranked else None
