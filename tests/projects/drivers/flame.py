"""Options by fire."""

import fire
import mlflow


def train(data: str, rate: float = 0.1, deep: bool = False):
    mlflow.run("step", "train", parameters={"data": data, "rate": rate, "deep": deep}, env_manager="local")


if __name__ == "__main__":
    fire.Fire(train)
