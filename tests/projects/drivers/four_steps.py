"""Four steps; each gets paths that are built from the experiment's and the run's id."""

import argparse
import os

import mlflow


def parsed():
    parser = argparse.ArgumentParser()
    parser.add_argument("--commit", default="000000", help="not used by a step")
    parser.add_argument("--data", default="small", help="small or large")
    parser.add_argument("--data_downstream", default="./data/raw/")
    parser.add_argument("--cached_id", default="", help="an earlier run")
    parser.add_argument("--train_downstream", default="./data/model/")
    parser.add_argument("--tensorboard", default="./data/board/")
    parser.add_argument("--epochs", type=int, default=1, help="how often all is seen")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--learning_rate", type=float, default=0.001)
    parser.add_argument("--network", default="plain", choices=["plain", "deep", "wide"], help="which network")
    parser.add_argument("--dockerfile", default="./Dockerfile")
    parser.add_argument("--model_file", default="model_0.onnx")
    parser.add_argument("--report_downstream", default="./data/report/")
    return parser.parse_args()


def main():
    options = parsed()
    experiment_id = int(os.getenv("MLFLOW_EXPERIMENT_ID", "0"))
    client = mlflow.tracking.MlflowClient()
    with mlflow.start_run():
        made = mlflow.run(
            uri="./step",
            entry_point="main",
            backend="local",
            env_manager="local",
            parameters={"data": options.data, "to": options.data_downstream, "cached": options.cached_id},
        )
        made = client.get_run(made.run_id)
        data = os.path.join("/tmp/mlruns/", str(experiment_id), made.info.run_id, "artifacts/raw")
        trained = mlflow.run(
            uri="./step",
            entry_point="train",
            backend="local",
            env_manager="local",
            parameters={
                "data": data,
                "to": options.train_downstream,
                "board": options.tensorboard,
                "epochs": options.epochs,
                "batch_size": options.batch_size,
                "workers": options.workers,
                "rate": options.learning_rate,
                "network": options.network,
            },
        )
        trained = client.get_run(trained.run_id)
        model = os.path.join("/tmp/mlruns/", str(experiment_id), trained.info.run_id, "artifacts")
        built = mlflow.run(
            uri="./step",
            entry_point="main",
            run_name="build",
            backend="local",
            env_manager="local",
            parameters={
                "data": f"{model}/{options.model_file}",
                "file": os.path.join(model, "model.json"),
                "dockerfile": options.dockerfile,
            },
        )
        mlflow.run(
            uri="./step",
            entry_point="main",
            run_name="report",
            backend="local",
            env_manager="local",
            parameters={"data": os.path.join(data, "test"), "of": built.run_id, "to": options.report_downstream},
        )


if __name__ == "__main__":
    main()
