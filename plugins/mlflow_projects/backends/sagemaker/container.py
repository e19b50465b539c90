"""What the container gets: command, variables, packages; and what of a step it cannot get."""

from __future__ import annotations

import os

from mlflow_projects.backends.contract import Job
from mlflow_projects.backends.sagemaker.settings import SageMakerSettings
from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.command import FilledLater, build_command
from mlflow_projects.project.paths import local_path_of
from mlflow_projects.project.python_environment import ENV_MANAGERS, base_of, read_python_environment
from mlflow_projects.project.requirements_files import names_files
from mlflow_projects.public_uri import public_uri

# What of the tracking settings a job may know; passwords and tokens come from Secrets Manager.
_PUBLIC_VARIABLES = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_INSECURE_TLS",
    "MLFLOW_S3_ENDPOINT_URL",
    "MLFLOW_RUN_ID",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_RUN_CONTEXT",
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING",
)
_SECRET_VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


def check_environment(job: Job, settings: SageMakerSettings) -> None:
    """Refuse what a training job cannot reach or must not show.

    :raises ProjectError: with the remedy
    """
    uri = settings.tracking_uri or job.variables.get("MLFLOW_TRACKING_URI", "")
    if not uri.startswith(("http://", "https://", "databricks", "arn:")):
        raise ProjectError(
            f"A training job cannot reach the tracking store {uri!r}; use a tracking server (http or https), or name "
            "one in backend_config 'tracking_uri'."
        )
    if public_uri(settings.tracking_uri) != settings.tracking_uri:
        raise ProjectError(
            "backend_config: 'tracking_uri' holds a user or password, which a training job would show; put the user "
            "into the Airflow connection and the password into AWS Secrets Manager "
            "(secret_environment.MLFLOW_TRACKING_PASSWORD)."
        )
    for name in _SECRET_VARIABLES:
        if job.variables.get(name) and name not in settings.secret_environment:
            raise ProjectError(
                f"The tracking server needs a password or token, which must not be in a training job's request; "
                f"put it into AWS Secrets Manager and name its ARN in backend_config: secret_environment.{name}."
            )
    if job.env_manager not in (None, *ENV_MANAGERS) or job.env_manager == "conda":
        raise ProjectError(
            f"The SageMaker backend has no env_manager {job.env_manager!r}; use 'local' (what is in the image), or "
            "'virtualenv' or 'uv' to install what the project declares in the container."
        )
    if job.env_manager in ("virtualenv", "uv"):
        packages_of(job, settings)


def public_variables(job: Job, settings: SageMakerSettings) -> dict[str, str]:
    """Return the variables that everybody may see who can describe the job."""
    variables = {name: job.variables[name] for name in _PUBLIC_VARIABLES if job.variables.get(name)}
    if settings.tracking_uri:
        variables["MLFLOW_TRACKING_URI"] = settings.tracking_uri
    return variables


def command_of(job: Job) -> tuple[str, list[dict[str, str]]]:
    """Return the command, and the downloads whose tokens in it our runner fills in."""
    inputs: list[dict[str, str]] = []

    def download(uri: str, _: str) -> str:
        token = FilledLater(f"@@MLFLOW_PROJECTS_INPUT_{len(inputs)}@@")
        inputs.append({"token": token, "uri": uri})
        return token

    def localize(name: str, value: str) -> str:
        root, local = job.project.root.resolve(), local_path_of(value) or ""
        path = (root / local).resolve()
        if not local or not path.exists() or not path.is_relative_to(root):
            raise ProjectError(
                f"Parameter {name!r} is the path {value!r} on the worker, which a training job does not see; pass an "
                "s3:// or artifact URI, or a path inside the project."
            )
        return os.path.relpath(path, root)

    return build_command(job.project, job.entry_point, job.parameters, download, localize), inputs


def packages_of(job: Job, settings: SageMakerSettings) -> list[str]:
    """Return what is to be installed before the command, as lines for pip; [] unless asked for."""
    wanted = ["-r requirements.txt"] if settings.install_requirements else []
    if wanted and not (job.project.root / "requirements.txt").is_file():
        raise ProjectError(
            f"backend_config: 'install_requirements' is set, but {job.project.root} has no requirements.txt."
        )
    if job.env_manager in ("virtualenv", "uv") and job.project.environment_kind:
        declared = read_python_environment(job.project)
        if declared.dropped:
            raise ProjectError(
                f"{job.project.environment_file}: a training job installs with pip, which has no package that is "
                f"known to be the same as {', '.join(declared.dropped)}; name what the project needs of them in the "
                "'pip' section, or use an image that has them and env_manager 'local'."
            )
        if base_of(job.project) != job.project.root and names_files(declared.requirements):
            raise ProjectError(
                f"{job.project.environment_file}: for a training job, a conda file whose 'pip' section names files "
                "must stand in the project's own folder; move it there."
            )
        wanted += [*declared.build_requirements, *declared.requirements]
    return wanted
