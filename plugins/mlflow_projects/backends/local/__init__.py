"""The local backend: the command is a process tree on the worker, or a container of the worker's engine."""

from __future__ import annotations

import os
from typing import ClassVar

from mlflow_projects.backends.contract import Backend, Job, Launch
from mlflow_projects.backends.local import conda_environment
from mlflow_projects.backends.local.command import ProcessLaunch
from mlflow_projects.backends.local.settings import CONFIG_KEYS, LocalSettings
from mlflow_projects.backends.local.withheld_variables import worker_variables
from mlflow_projects.project.python_environment import choose_env_manager


class LocalBackend(Backend):
    """Runs commands below this process; ``backend_config`` holds the fields of ``LocalSettings``."""

    config_keys: ClassVar = CONFIG_KEYS

    def prepare(self, job: Job) -> Launch:
        """Choose between a container, for which an engine must answer, and an env manager of this worker."""
        settings = LocalSettings.of(job.config, job.project)
        if settings.docker_image:
            from mlflow_projects.backends.local.container import ContainerLaunch

            return ContainerLaunch(job, settings, worker_variables(os.environ), self.host.log)
        manager = choose_env_manager(job.project, job.env_manager, settings.conda_env_manager)
        if manager == "conda":
            conda_environment.check(job.project, settings.conda_channels, settings.conda_program, os.environ)
        return ProcessLaunch(job, settings, manager, self.host.log)
