"""Upload files of 256 KB that cannot be compressed until the file exists that is named; at least one."""

import os
import sys
import tempfile
import time
from pathlib import Path

# MLflow's client repeats a refused upload for four minutes; nobody who tests waits that long.
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "2"

import mlflow

told, number = Path(sys.argv[1]), 0
with tempfile.TemporaryDirectory() as folder, mlflow.start_run():
    while not (number and told.exists()):
        file = Path(folder) / f"{number}.bin"
        file.write_bytes(os.urandom(2**18))
        mlflow.log_artifact(str(file))
        number += 1
        time.sleep(0.5)
