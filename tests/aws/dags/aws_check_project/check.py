"""The training jobs of the DAG ``aws_check``: ``good`` succeeds, ``bad`` fails, ``late`` waits for its end."""

import json
import os
import pathlib
import signal
import sys

LINES = 300
mode, text = sys.argv[1:]
base = pathlib.Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))


def stopped(*_: object) -> None:
    pathlib.Path(os.environ["MLFLOW_PROJECTS_CHECKPOINT_DIR"], "last").write_text("written after SIGTERM")
    sys.exit(0)


if mode == "good":
    for number in range(1, LINES + 1):
        print(f"line {number} of {LINES}", flush=True)
    names = [name for name in os.environ if name.startswith("AIRFLOW_")]
    answer = {"text": text, "run_id": os.environ["MLFLOW_RUN_ID"], "of_airflow": names}
    (base / "model" / "answer.json").write_text(json.dumps(answer))
elif mode == "bad":
    print("the last words", flush=True)
    sys.exit(3)
else:
    signal.signal(signal.SIGTERM, stopped)
    print("waiting for SIGTERM", flush=True)
    signal.pause()
