"""Which client speaks to a tracking server."""

from __future__ import annotations

from mlflow_projects.tracking.client import TrackingClient
from mlflow_projects.tracking.server import TrackingSettings


def connect(settings: TrackingSettings) -> TrackingClient:
    """Return a client for whatever the settings' URI names."""
    if settings.is_http:
        from mlflow_projects.tracking.rest import RestClient

        return RestClient(settings)
    from mlflow_projects.tracking.native import NativeClient

    return NativeClient(settings)
