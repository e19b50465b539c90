"""Steps of a list, with a hydra configuration; one of them gets a file that is made here."""

import json
import os

import hydra
import mlflow

STEPS = ["load", "check", "forest"]


@hydra.main(config_name="config", config_path="conf", version_base="1.1")
def go(config):
    os.environ["WANDB_PROJECT"] = config["main"]["project"]
    wanted = config["main"]["steps"]
    active = STEPS if wanted == "all" else wanted.split(",")
    here = hydra.utils.get_original_cwd()
    if "load" in active:
        mlflow.run(
            os.path.join(here, "step"), "load", parameters={"rows": config["etl"]["rows"]}, env_manager="local"
        )
    if "check" in active:
        low = f"low={config['etl']['low']}"
        mlflow.run(os.path.join(here, "step"), run_name="check", parameters={"data": low}, env_manager="local")
    if "forest" in active:
        path = os.path.abspath("forest.json")
        with open(path, "w") as file:
            json.dump(dict(config["forest"]), file)
        mlflow.run(os.path.join(here, "step"), "train", parameters={"data": path}, env_manager="local")


if __name__ == "__main__":
    go()
