"""Predict the quality of a batch of wines with a model of the registry; log the predictions as a CSV file."""

import argparse
import math

import mlflow
import mlflow.pyfunc
import wine_data
from mlflow.models import get_model_info
from sklearn.metrics import mean_squared_error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model-uri", required=True, help="models:/name@alias, models:/name/version or runs:/id/model"
    )
    parser.add_argument("--data", default="", help="a CSV file or its URL; default: the 1599 red wines")
    arguments = parser.parse_args()
    wines = wine_data.load(arguments.data)
    measured = wines[list(wine_data.COLUMNS)]
    with mlflow.start_run():
        info = get_model_info(arguments.model_uri)
        # An alias moves: the record says which model it was.
        mlflow.set_tags({"wine.model_run_id": info.run_id, "wine.model_id": info.model_id})
        predicted = mlflow.pyfunc.load_model(arguments.model_uri).predict(measured)
        metrics = {"rows": len(wines), "predicted_mean": float(predicted.mean())}
        if wine_data.QUALITY in wines:
            metrics["rmse"] = math.sqrt(mean_squared_error(wines[wine_data.QUALITY], predicted))
        mlflow.log_metrics(metrics)
        mlflow.log_text(measured.assign(predicted=predicted).to_csv(index=False), "predictions.csv")
    print(f"Scored {len(wines)} wines with {arguments.model_uri}: {metrics}")


if __name__ == "__main__":
    main()
