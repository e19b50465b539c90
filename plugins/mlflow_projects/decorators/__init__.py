"""``@task.mlflow`` and ``mlflow_task``."""
