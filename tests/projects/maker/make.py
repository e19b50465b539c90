import json
import os
import sys
import time
import urllib.request
from pathlib import Path

text, counter, seconds, upstream = sys.argv[1:5]
with Path(counter).open("a", encoding="utf-8") as file:
    file.write(f"{text}\n")
time.sleep(float(seconds))
server, experiment = os.environ["MLFLOW_TRACKING_URI"], os.environ["MLFLOW_EXPERIMENT_ID"]
run_id = os.environ["MLFLOW_RUN_ID"]
target = f"{server}/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run_id}/artifacts/made/text.txt"
urllib.request.urlopen(urllib.request.Request(target, data=f"{text} {upstream}".encode(), method="PUT")).close()
metric = {"run_id": run_id, "key": "length", "value": len(text), "timestamp": int(time.time() * 1000), "step": 3}
headers = {"Content-Type": "application/json"}
target = f"{server}/api/2.0/mlflow/runs/log-metric"
urllib.request.urlopen(urllib.request.Request(target, data=json.dumps(metric).encode(), headers=headers)).close()
