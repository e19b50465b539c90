"""Airflow's SimpleAuthManager knows no permission per DAG; under this one, some DAGs are for administrators only."""

from __future__ import annotations

import os
from typing import Any

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

PRIVATE_DAGS = frozenset(os.environ["TESTS_PRIVATE_DAGS"].split(","))


class PerDagAuthManager(SimpleAuthManager):
    def is_authorized_dag(self, *, user: Any, details: Any = None, **rest: Any) -> bool:
        if user.role != "admin" and details is not None and details.id in PRIVATE_DAGS:
            return False
        return bool(super().is_authorized_dag(user=user, details=details, **rest))
