"""Log two curves, perhaps wait half way for the file TESTS_GATE, leave a nested run and a file, exit as told."""

import argparse
import math
import os
import sys
import time
from pathlib import Path

import mlflow

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int)
parser.add_argument("--waits", choices=["yes", "no"])
parser.add_argument("--code", type=int)
arguments = parser.parse_args()

with mlflow.start_run():
    for step in range(arguments.steps):
        loss = math.exp(-step / 12) + 0.05 * math.sin(step)
        mlflow.log_metrics({"loss": loss, "accuracy": 1 - loss / 2}, step=step)
        while (
            arguments.waits == "yes" and step == arguments.steps // 2 and not Path(os.environ["TESTS_GATE"]).exists()
        ):
            time.sleep(0.2)
    with mlflow.start_run(run_name="evaluate <b>not bold</b>", nested=True):
        mlflow.log_metric("accuracy", 0.97)
    mlflow.log_text("weights\n" * 500, "model/weights.txt")
    sys.stdout.write("The curves are drawn.\n")
sys.exit(arguments.code)
