#!/bin/bash
# MWAA runs this in each part of Airflow, before it installs requirements.txt; variables that are exported stay set.

# Projects in git need it. The published image of 3.3.1 has it already.
command -v git >/dev/null || sudo dnf install -y git-core

# The disk of a worker is small, and gone with the worker.
export AIRFLOW__MLFLOW_PROJECTS__CACHE_MAX_GB=5
