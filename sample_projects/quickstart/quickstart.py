"""Record a parameter, a metric with three values and a file."""

import random

import mlflow


def main() -> None:
    with mlflow.start_run():
        mlflow.log_param("param1", random.randint(0, 100))
        for step in range(3):
            mlflow.log_metric("foo", step + random.random(), step=step)
        mlflow.log_text("Hello from the quickstart.\n", "test.txt")
    print("Recorded param1, foo and test.txt.")


if __name__ == "__main__":
    main()
