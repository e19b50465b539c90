"""``python -m mlflow_projects.cli``, for where the console command is not on the PATH."""

from __future__ import annotations

import sys

from mlflow_projects.cli import main

if __name__ == "__main__":
    sys.exit(main())
