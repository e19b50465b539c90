"""Which image a job runs in."""

from __future__ import annotations

from collections.abc import Mapping

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.spec import Project


def choose_image(project: Project, given: str | Mapping[str, str], instance_type: str, region: str) -> str:
    """Return the image's URI: the one given, else ``docker_env.image`` of the project.

    :param given: a URI, or framework and version, which the SageMaker SDK looks up
    :raises ProjectError: there is none, or it cannot be looked up
    """
    if isinstance(given, str) and given:
        return given
    if given and isinstance(given, Mapping):
        return _look_up(given, instance_type, region)
    image = (project.docker_env or {}).get("image")
    if image:
        return str(image)
    raise ProjectError(
        "backend_config: the SageMaker backend needs 'image_uri', the image in which the job runs; give it there, in "
        "Airflow's option [mlflow_projects] sagemaker, or as 'docker_env.image' in the MLproject."
    )


def _look_up(given: Mapping[str, str], instance_type: str, region: str) -> str:
    if missing := {"framework", "version"} - set(given):
        raise ProjectError(f"backend_config: 'image_uri' lacks {sorted(missing)[0]!r}.")
    try:
        from sagemaker.core import image_uris
    except ImportError as error:
        raise ProjectError(
            "backend_config: an 'image_uri' by framework and version needs the SageMaker SDK on the worker: "
            "pip install 'mlflow-projects-on-airflow[sagemaker]' (Python 3.11 or older), or give the whole "
            "URI."
        ) from error
    options = {key: value for key, value in given.items() if key not in ("framework", "version")}
    try:
        return str(
            image_uris.retrieve(
                given["framework"], region, version=given["version"], instance_type=instance_type,
                image_scope=options.pop("image_scope", "training"), **options,
            )
        )  # fmt: skip
    except (ValueError, TypeError) as error:
        raise ProjectError(f"backend_config: 'image_uri' cannot be looked up: {error}") from error
