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


def mlflow_value(run: Any, kind: str, name: str, task_id: str) -> Any:
    """Return a metric or a parameter of a step's run: the macro by which a template has it.

    :param run: what the step left as XCom
    :param kind: ``metric`` or ``param``
    :raises AirflowFailException: there is none; it names those there are
    """
    values = _run_in(run, f"{kind} {name!r}", task_id).get(f"{kind}s") or {}
    if name not in values:
        has = ", ".join(map(repr, values)) or "none"
        raise AirflowFailException(f"Task {task_id!r} logged no {kind} {name!r}; its run has: {has}.")
    return values[name]


def _run_in(result: Any, what: str, task_id: str) -> Mapping[str, Any]:
    if not isinstance(result, Mapping) or not result.get("artifact_uri"):
        raise AirflowFailException(
            f"Task {task_id!r} left no MLflow run, so {what} of it cannot be used; it was skipped, "
            "never ran, or runs no MLflow Project."
        )
    return result


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
        run = _run_in(result, repr(self.path), self.operator.task_id)
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

    kind = "metric"

    def __init__(self, step: BaseOperator | MappedOperator | XComArg, name: str) -> None:
        super().__init__(step)
        self.name = name

    def of(self, result: Any) -> Any:
        """Return the value.

        :raises AirflowFailException: the step's run has none of that name
        """
        return mlflow_value(result, self.kind, self.name, self.operator.task_id)

    def __str__(self) -> str:
        given = f"{self._pulled()}, {self.kind!r}, {self.name!r}, {self.operator.task_id!r}"
        return f"{{{{ macros.mlflow_projects.mlflow_value({given}) }}}}"


class ParamReference(MetricReference):
    """A parameter of a step's run, as text."""

    kind = "param"


class ModelReference(StepReference):
    """The URI of a model that a step logged: ``models:/m-…``."""

    def __init__(self, step: BaseOperator | MappedOperator | XComArg, name: str) -> None:
        super().__init__(step)
        self.name = name

    def of(self, result: Any) -> str:
        """Return the URI.

        :raises AirflowFailException: the step logged no model of that name
        """
        models = _run_in(result, f"model {self.name!r}", self.operator.task_id).get("models") or {}
        if self.name not in models:
            has = ", ".join(map(repr, models)) or "none"
            raise AirflowFailException(
                f"Task {self.operator.task_id!r} logged no model {self.name!r}; its run has: {has}. For a folder "
                f"among its artifacts use {self.operator.label}.artifact({self.name!r})."
            )
        return str(models[self.name])

    def __str__(self) -> str:
        return f"{{{{ {self._pulled()}['models'][{self.name!r}] }}}}"
