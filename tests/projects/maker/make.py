import json
import os
import sys
import time
import urllib.request
from pathlib import Path

text, counter, gate, upstream = sys.argv[1:5]
with Path(counter).open("a", encoding="utf-8") as file:
    file.write(f"{text}\n")
while not Path(gate).exists():
    time.sleep(0.1)
server, experiment = os.environ["MLFLOW_TRACKING_URI"], os.environ["MLFLOW_EXPERIMENT_ID"]
run_id = os.environ["MLFLOW_RUN_ID"]
target = f"{server}/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run_id}/artifacts/made/text.txt"
urllib.request.urlopen(urllib.request.Request(target, data=f"{text} {upstream}".encode(), method="PUT")).close()
moment = int(time.time() * 1000)
metrics = [
    {"key": "length", "value": len(text), "timestamp": moment, "step": 3},
    {"key": "none", "value": "NaN", "timestamp": moment, "step": 0},
]
headers = {"Content-Type": "application/json"}
body = json.dumps({"run_id": run_id, "metrics": metrics}).encode()
target = f"{server}/api/2.0/mlflow/runs/log-batch"
urllib.request.urlopen(urllib.request.Request(target, data=body, headers=headers)).close()
