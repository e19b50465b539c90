"""docs/models.md shows the example as it is, and triggers that there are."""

from __future__ import annotations

import re

from mlflow_projects import MLflowModelTrigger
from mlflow_projects.config import OPTIONS
from mlflow_projects.ui import URL_PREFIX
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
EXAMPLE = (ROOT / "docs" / "examples" / "model_events.py").read_text(encoding="utf-8")


def test_the_example_is_that_of_the_tests() -> None:
    assert EXAMPLE in BLOCKS


def test_each_trigger_of_the_table_is_one_and_they_differ() -> None:
    table = re.findall(r"^\| `(MLflowModelTrigger\(.*\))` \|", PAGE, re.MULTILINE)
    triggers = [eval(source, {"MLflowModelTrigger": MLflowModelTrigger}) for source in table]
    assert len({str(trigger.serialize()) for trigger in triggers}) == 5


def test_the_webhook_is_made_for_what_is_taken() -> None:
    from mlflow.entities.webhook import WebhookEvent

    from mlflow_projects.ui.webhook import _EVENTS, router

    [block] = [block for block in BLOCKS if "create_webhook" in block]
    kinds = [WebhookEvent.from_str(kind) for kind in re.findall(r'"(\w+\.\w+)"', block)]  # type: ignore[arg-type]
    assert {(kind.entity.value, kind.action.value) for kind in kinds} == set(_EVENTS)
    [route] = router.routes
    assert f"https://airflow.example.com{URL_PREFIX}{route.path}" in block  # type: ignore[attr-defined]
    assert {name.lower() for name in re.findall(r"AIRFLOW__MLFLOW_PROJECTS__(\w+)=", PAGE)} <= set(OPTIONS)
