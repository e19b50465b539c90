"""Every combination of some values, for the mapped steps of a sweep."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

if TYPE_CHECKING:
    from airflow.sdk import Context


class ParameterGridOperator(BaseOperator):
    """Return one set of parameters for each combination of values; the first axis changes slowest.

    Give it to a mapped step: ``MLflowProjectOperator.partial(...).expand(parameters=grid.output)``.

    Returns a list of mappings as XCom.

    :param axes: values by parameter name: a list, or JSON text of one, such as
        ``"{{ params.alphas | tojson }}"`` (templated)
    :param common: parameters that are the same in each combination (templated)
    """

    template_fields: Sequence[str] = ("axes", "common")

    def __init__(self, *, axes: Mapping[str, Any], common: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axes = axes
        self.common = common

    def execute(self, context: Context) -> list[dict[str, Any]]:  # noqa: ARG002
        """Return the combinations.

        :raises AirflowFailException: the values of an axis are no list, or there are none
        """
        axes = {name: self._values(name, given) for name, given in self.axes.items()}
        grid = [
            {**(self.common or {}), **dict(zip(axes, values, strict=True))}
            for values in itertools.product(*axes.values())
        ]
        self.log.info("%d combination(s) of %s.", len(grid), ", ".join(axes))
        return grid

    def _values(self, name: str, given: Any) -> list[Any]:
        values = given
        if isinstance(given, str):
            try:
                values = json.loads(given)
            except (ValueError, RecursionError):
                values = None
        if not isinstance(values, list | tuple) or not values:
            raise AirflowFailException(
                f"Task {self.task_id!r}: the axis {name!r} must be a list with at least one value, not {given!r}."
            )
        return list(values)
