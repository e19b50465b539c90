"""Log datasets, files, a metric, a model, and register it."""

import sys

import mlflow
import pandas as pd
from mlflow.entities import LoggedModelOutput

name = sys.argv[1]
with mlflow.start_run() as run:
    frame = pd.DataFrame({"x": [1, 2]})
    mlflow.log_input(mlflow.data.from_pandas(frame, source="s3://lake/wine/red.csv", name="red"), context="training")
    mlflow.log_input(mlflow.data.from_pandas(frame, name="in memory"))
    mlflow.log_metric("loss", 0.5)
    mlflow.log_metric("odd", float("nan"))
    mlflow.log_text("made", "made/text.txt")
    mlflow.log_text("made", "top.txt")
    client = mlflow.MlflowClient()
    model = client.create_logged_model(run.info.experiment_id, name="model", source_run_id=run.info.run_id)
    client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, step=0)])
    client.finalize_logged_model(model.model_id, "READY")
    client.create_registered_model(name)
    client.create_model_version(name, f"models:/{model.model_id}", run.info.run_id, model_id=model.model_id)
