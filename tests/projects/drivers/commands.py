"""Steps that are started by the command `mlflow run`, and another command between them."""

import os
import subprocess

subprocess.run(["mlflow", "run", "step", "-e", "load", "-P", "rows=3", "--env-manager", "local"], check=True)
subprocess.check_call("rm -rf /tmp/no-such-folder-of-a-driver", shell=True)
os.system("mlflow run step -P data='a b' --env-manager=local --experiment-name shell")
