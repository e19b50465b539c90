"""Log the parameter in Python's own spelling and the loss, end the run as told, exit as told."""

import sys

import mlflow

mlflow.start_run()
mlflow.log_param("learning_rate", float(sys.argv[1]))
mlflow.log_metric("loss", float(sys.argv[4]))
mlflow.end_run(sys.argv[3])
sys.exit(int(sys.argv[2]))
