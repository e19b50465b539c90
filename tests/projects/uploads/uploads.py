"""Upload files of 256 KB that cannot be compressed, with a pause after each."""

import os
import sys
import tempfile
import time
from pathlib import Path

# MLflow's client repeats a refused upload for four minutes; nobody who tests waits that long.
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "2"

import mlflow

files, pause = int(sys.argv[1]), float(sys.argv[2])
with tempfile.TemporaryDirectory() as folder, mlflow.start_run():
    for number in range(files):
        file = Path(folder) / f"{number}.bin"
        file.write_bytes(os.urandom(2**18))
        mlflow.log_artifact(str(file))
        time.sleep(pause)
