"""Retries by what went wrong: again soon, again with more memory, or not again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, get_args

from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy

from mlflow_projects.attempt.causes import cause_of_error
from mlflow_projects.exceptions import Cause, ProjectError

if TYPE_CHECKING:
    from airflow.sdk import Context

CAUSES: tuple[str, ...] = get_args(Cause)
Rule = str | timedelta | None
_DEFAULTS: Mapping[str, Rule] = {
    "capacity": timedelta(minutes=2),
    "interrupted": timedelta(seconds=10),
    "tracking": timedelta(minutes=1),
    "bad_input": "fail",
    "killed_by_memory": "fail",  # but for escalate
}


@dataclass
class MLflowRetryPolicy(RetryPolicy):
    """Decide by the cause of a failure whether, and when, a step is tried again.

    It is Airflow's ``retry_policy``: the task's ``retries`` say how many tries there are at most. Airflow asks it in
    the task's process only. A worker that was killed never asks it: then the task's own ``retries`` and
    ``retry_delay`` count.

    ::

        MLflowProjectOperator(
            …, retries=3,
            retry_policy=MLflowRetryPolicy(
                {"user_error": "fail"}, escalate={"docker_memory": ["4g", "8g"]}
            ),
        )

    :param rules: by cause (``killed_by_memory``, ``user_error``, ``bad_input``, ``interrupted``, ``capacity``,
        ``timeout``, ``tracking``, ``unknown``): ``"fail"`` for no other try, ``"retry"`` for one after the task's
        ``retry_delay``, or the time after which there is one. Default: capacity again after two minutes, an
        interrupted job after ten seconds, MLflow away after one minute; a wrong input never; the others as the task
        says; out of memory never, unless ``escalate`` has more of it
    :param escalate: values for keys of ``backend_config``: the first for the try after the first kill for want of
        memory, the second after the second; when one list is at its end, there is no other try
    :raises ProjectError: a cause or a rule that there is not
    """

    rules: Mapping[str, Rule] = field(default_factory=dict)
    escalate: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for cause, rule in self.rules.items():
            if cause not in CAUSES:
                raise ProjectError(f"MLflowRetryPolicy has no cause {cause!r}; there are: {', '.join(CAUSES)}.")
            if rule not in ("fail", "retry") and not isinstance(rule, timedelta):
                raise ProjectError(f"MLflowRetryPolicy: the rule for {cause!r} is 'fail', 'retry' or a timedelta.")
        for key, values in self.escalate.items():
            if isinstance(values, str) or not values:
                raise ProjectError(f"MLflowRetryPolicy: escalate[{key!r}] must be a list of values, in their order.")

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Decide what follows a failure."""
        del try_number, max_tries  # Airflow's own count of them holds in any case
        cause = getattr(exception, "cause", None)
        if cause not in CAUSES:
            cause = cause_of_error(exception)
        task: Any = context["task"] if context else None
        # More memory is for what has a backend_config: not for a function, or another operator of the DAG.
        if cause == "killed_by_memory" and self.escalate and hasattr(task, "backend_config"):
            kills = task.memory_kills(context)
            if kills > self._steps:
                return RetryDecision.fail(f"{cause}: escalate has no more than {self._steps} value(s)")
            return RetryDecision.retry(timedelta(seconds=1), f"{cause}: again with {self.more_after(kills)}")
        rule = {**_DEFAULTS, **self.rules}.get(cause)
        if rule == "fail":
            return RetryDecision.fail(f"{cause}: no other try")
        if rule is None:
            return RetryDecision.default()
        return RetryDecision.retry(rule if isinstance(rule, timedelta) else None, f"{cause}: another try")

    @property
    def _steps(self) -> int:
        return min(map(len, self.escalate.values()))

    def more_after(self, kills: int) -> dict[str, Any]:
        """Return what ``backend_config`` gets after so many kills for want of memory."""
        return {key: values[min(kills, len(values)) - 1] for key, values in self.escalate.items()} if kills else {}

    def serialize(self) -> dict[str, Any]:
        """Return what JSON can hold of the policy."""
        rules = {
            cause: rule.total_seconds() if isinstance(rule, timedelta) else rule for cause, rule in self.rules.items()
        }
        return {"rules": rules, "escalate": {key: [*values] for key, values in self.escalate.items()}}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> MLflowRetryPolicy:
        """Return the policy that :meth:`serialize` wrote."""
        rules = {
            cause: rule if isinstance(rule, str) else timedelta(seconds=rule) for cause, rule in data["rules"].items()
        }
        return cls(rules, data["escalate"])
