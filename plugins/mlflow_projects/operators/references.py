"""What one step leaves, as a parameter of a later one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import XComArg
from airflow.sdk.definitions._internal.mixins import ResolveMixin
from airflow.sdk.exceptions import AirflowFailException

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.definitions.mappedoperator import MappedOperator


RETURN_KEY = "return_value"


def artifact(step: BaseOperator | MappedOperator | XComArg, path: str = "") -> ArtifactReference:
    """Return where a step's artifacts are, as a value for a later step's ``parameters``.

    The later step is put downstream of this one. Inside an f-string it is a template. In a mapped task group it is
    the artifact of the step with the same index; outside of the group, and of a mapped step, it is a list.

    :param step: a step, also a mapped one (``….partial(…).expand(…)``), or its XCom
    :param path: below the run's artifact URI
    """
    return ArtifactReference(step, path)


class StepReference(ResolveMixin):
    """Something of a step, known when that step has run; of a mapped one, a list of it."""

    def __init__(self, step: BaseOperator | MappedOperator | XComArg) -> None:
        self.xcom = step if isinstance(step, XComArg) else XComArg(step)
        (self.operator,) = {operator for operator, _ in self.xcom.iter_references()}
        # Where a function's task leaves what it returns, its run has a key of its own.
        self._key = getattr(getattr(self.operator, "operator_class", self.operator), "run_key", RETURN_KEY)

    def iter_references(self) -> Iterable[tuple[Any, str]]:
        """Tell Airflow which task this depends on."""
        yield self.operator, self._key

    def resolve(self, context: Mapping[str, Any]) -> Any:
        """Return it.

        :raises AirflowFailException: the step left no run, because it was skipped, for example
        """
        result = XComArg(self.operator, self._key).resolve(context)  # Airflow knows which indexes are meant
        if isinstance(result, Sequence) and not isinstance(result, str):
            return [self.of(one) for one in result]
        return self.of(result)

    def of(self, result: Any) -> str:
        """Return it, of one step's XCom."""
        raise NotImplementedError

    def _run_in(self, result: Any, what: str) -> Mapping[str, Any]:
        if not isinstance(result, Mapping) or not result.get("artifact_uri"):
            raise AirflowFailException(
                f"Task {self.operator.task_id!r} left no MLflow run, so {what} of it cannot be used; it was skipped, "
                "never ran, or runs no MLflow Project."
            )
        return result

    def _pulled(self) -> str:
        """Return the expression that a template has for the step's XCom."""
        in_mapped_group = self.operator.get_closest_mapped_task_group() is not None
        index = ", map_indexes=ti.map_index" if in_mapped_group else ""
        key = "" if self._key == RETURN_KEY else f", key='{self._key}'"
        return f"ti.xcom_pull(task_ids='{self.operator.task_id}'{key}{index})"


class ArtifactReference(StepReference):
    """The URI of a step's artifact."""

    def __init__(self, step: BaseOperator | MappedOperator | XComArg, path: str) -> None:
        super().__init__(step)
        self.path = path.strip("/")

    def of(self, result: Any) -> str:
        """Return the URI.

        :raises AirflowFailException: it is a logged model, which MLflow 3 keeps elsewhere
        """
        run = self._run_in(result, repr(self.path))
        name = self.path.partition("/")[0]  # or a file of the model
        if name in (run.get("models") or {}) and not self._is_there(run, name):
            raise AirflowFailException(
                f"{name!r} is a model that task {self.operator.task_id!r} logged, and not among the artifacts "
                f"of its run: MLflow 3 keeps models beside them. Use {self.operator.label}.model({name!r})."
            )
        return f"{run['artifact_uri'].rstrip('/')}/{self.path}".rstrip("/")

    def __str__(self) -> str:
        return f"{{{{ {self._pulled()}['artifact_uri'] }}}}/{self.path}".rstrip("/")

    def _is_there(self, run: Mapping[str, Any], name: str) -> bool:
        """Ask the tracking server, as a folder may have a model's name."""
        from mlflow_projects.exceptions import TrackingError
        from mlflow_projects.hooks.mlflow_hook import MLflowHook

        try:
            client = MLflowHook(run["mlflow_conn_id"]).get_conn()
            try:
                return bool(client.list_artifacts(run["run_id"], name))
            finally:
                client.close()
        except TrackingError:
            return True  # whoever reads it finds out


class MetricReference(StepReference):
    """The last value of a metric that a step logged."""

    def __init__(self, step: BaseOperator | MappedOperator | XComArg, name: str) -> None:
        super().__init__(step)
        self.name = name

    def of(self, result: Any) -> Any:
        """Return the value.

        :raises AirflowFailException: the step logged no such metric
        """
        return self._value_in(result, "metric", "metrics")

    def _value_in(self, result: Any, kind: str, key: str) -> Any:
        values = self._run_in(result, f"{kind} {self.name!r}").get(key) or {}
        if self.name not in values:
            has = ", ".join(map(repr, values)) or "none"
            raise AirflowFailException(
                f"Task {self.operator.task_id!r} logged no {kind} {self.name!r}; its run has: {has}."
            )
        return values[self.name]

    def __str__(self) -> str:
        return f"{{{{ {self._pulled()}['metrics'][{self.name!r}] }}}}"


class ParamReference(MetricReference):
    """A parameter of a step's run, as text."""

    def of(self, result: Any) -> Any:
        """Return the text.

        :raises AirflowFailException: the run has no such parameter
        """
        return self._value_in(result, "param", "params")

    def __str__(self) -> str:
        return f"{{{{ {self._pulled()}['params'][{self.name!r}] }}}}"


class ModelReference(StepReference):
    """The URI of a model that a step logged: ``models:/m-…``."""

    def __init__(self, step: BaseOperator | MappedOperator | XComArg, name: str) -> None:
        super().__init__(step)
        self.name = name

    def of(self, result: Any) -> str:
        """Return the URI.

        :raises AirflowFailException: the step logged no model of that name
        """
        models = self._run_in(result, f"model {self.name!r}").get("models") or {}
        if self.name not in models:
            has = ", ".join(map(repr, models)) or "none"
            raise AirflowFailException(
                f"Task {self.operator.task_id!r} logged no model {self.name!r}; its run has: {has}. For a folder "
                f"among its artifacts use {self.operator.label}.artifact({self.name!r})."
            )
        return str(models[self.name])

    def __str__(self) -> str:
        return f"{{{{ {self._pulled()}['models'][{self.name!r}] }}}}"
